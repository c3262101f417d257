"""The gradient-noise scale against closed forms and against an ensemble of mini-batches."""

import math
from pathlib import Path

import one_by_one
import pytest
import torch
from architectures import gpt2
from models import token_rows
from torch import nn

from sltfast import per_sample
from sltfast.batches import BatchStream
from sltfast.data import as_source

DIM, NOISE, ROWS = 6, 0.7, 20_000


class Linear(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, x):
        return x @ self.w


def half_squares(model, batch):
    x, y = batch
    return 0.5 * (model(x) - y).square()


def linear_regression(seed=0):
    """Rows y = w₀·x + noise, x ~ N(0, 1), measured at w = w₀ + δ.

    g = x (x·δ − noise), so G = δ, and with E[x xᵀ (x·δ)²] = |δ|²·1 + 2δδᵀ:
    Σ = (|δ|² + σ²)·1 + δδᵀ,  tr Σ = (d + 1)|δ|² + d·σ²,  and along δ the variance is 2|δ|² + σ².
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, true, apart = normal(ROWS, DIM), normal(DIM), 0.5 * normal(DIM)
    y = x @ true + NOISE * normal(ROWS)
    squared = float(apart.square().sum())
    return Linear(true + apart), (x, y), squared, (DIM + 1) * squared + DIM * NOISE**2


def test_linear_regression_has_a_closed_form():
    model, data, gradient_squared, trace = linear_regression()
    got = per_sample.noise_scale(model, data, half_squares, batch_size=500, num_items=ROWS - 1000)
    # the rows are a sample of the population: its own standard error, not shrunk because nearly all rows were read
    unread = math.sqrt(1 - got.items / ROWS)
    assert abs(got.trace - trace) < 4 * got.trace_se / unread
    assert abs(got.gradient_squared - gradient_squared) < 4 * got.gradient_squared_se / unread
    # the square of a nearly Gaussian product: a variance to √(k/N), its kurtosis k at most that of x² x'² (81)
    along = 2 * gradient_squared + NOISE**2
    assert abs(got.variance_along_mean - along) < 4 * math.sqrt(81 / got.items) * along
    assert got.trace_se / unread < 0.05 * trace
    assert got.gradient_squared_se / unread < 0.1 * gradient_squared
    assert got.noise_scale == got.trace / got.gradient_squared
    assert (got.items, got.dataset_items, got.numel) == (ROWS - 1000, ROWS, DIM)


def test_estimates_from_few_items_are_unbiased_and_their_errors_honest():
    model, data, _, _ = linear_regression()
    data = tuple(part[:400] for part in data)
    whole = per_sample.noise_scale(model, data, half_squares, batch_size=400, num_items=400)
    assert whole.trace_se == 0  # every item was read
    few = [
        per_sample.noise_scale(model, data, half_squares, batch_size=20, num_items=40, seed=s, check=False)
        for s in range(200)
    ]
    for name in ("trace", "gradient_squared"):
        values = torch.tensor([getattr(one, name) for one in few])
        errors = torch.tensor([getattr(one, f"{name}_se") for one in few])
        spread = float(values.std())
        assert abs(float(values.mean()) - getattr(whole, name)) < 4 * spread / len(few) ** 0.5
        # 200 runs give a spread to 5 %; the errors are estimates themselves, from 40 items each
        assert 0.75 < float(errors.square().mean().sqrt()) / spread < 1.35


def test_it_predicts_the_covariance_of_mini_batch_gradients():
    model, data, _, _ = linear_regression()
    data = tuple(part[:96] for part in data)
    got = per_sample.noise_scale(model, data, half_squares, batch_size=32, lr=1e-3, n_beta=20.0, num_items=96)
    stream = BatchStream(as_source(data), 32, seed=3)
    steps = [
        per_sample.weighted_sum(model, stream.batch(k, torch.device("cpu")), loss_fn=half_squares)["w"]
        for k in range(1500)
    ]
    gradients = torch.stack(steps)
    # three batches of an epoch sum to a constant, which leaves 2/3 as many independent: 4 standard errors of a trace
    measured = float(gradients.var(0).sum())
    spread = float((gradients - gradients.mean(0)).square().sum(1).std()) / (len(steps) * 2 / 3) ** 0.5
    assert abs(measured - got.batch_trace) < 4 * spread
    assert spread < 0.05 * measured


def test_the_ratio_is_that_of_one_step():
    model, data, _, _ = linear_regression()
    lr, n_beta = 2e-3, 50.0
    got = per_sample.noise_scale(model, data, half_squares, batch_size=25, lr=lr, n_beta=n_beta, noise_level=0.5)
    assert got.batch_noise == pytest.approx((lr * n_beta) ** 2 / 4 * got.trace * (1 / 25 - 1 / ROWS))
    assert got.injected_noise == pytest.approx(lr * 0.25 * DIM)
    assert got.ratio == pytest.approx(got.batch_noise / got.injected_noise)
    assert got.ratio_along_mean == pytest.approx(got.ratio * got.variance_along_mean / (got.trace / DIM))
    assert got.ratio_along_mean > got.ratio
    settings = {"lr": lr, "n_beta": n_beta, "noise_level": 0.5, "batch_size": 25}
    at_lr = per_sample.noise_scale(model, data, half_squares, **{**settings, "lr": got.lr_limit})
    assert at_lr.ratio_along_mean == pytest.approx(0.1, rel=1e-9)
    below, above = (per_sample.NoiseScale(**{**vars(got), "batch_size": got.batch_size_limit - k}) for k in (0, 1))
    assert below.ratio_along_mean <= 0.1 < above.ratio_along_mean


def test_signal_to_noise_and_the_pull_of_localization():
    model, data, gradient_squared, trace = linear_regression()
    settings = {"num_items": 4000, "lr": 0.01, "n_beta": 30.0, "batch_size": 50}
    got = per_sample.noise_scale(model, data, half_squares, localization=200.0, **settings)
    variance = trace * (1 / 50 - 1 / ROWS)
    told = 4 * math.hypot(got.gradient_squared_se / gradient_squared, got.trace_se / trace)
    assert got.signal_to_noise == pytest.approx(gradient_squared / variance, rel=told)
    assert got.localization_pull == pytest.approx(0.005**2 * 200 * DIM)
    # one step of a chain that γ alone holds, simulated: E|(ε/2)γ(w − w*)|² with w − w* ~ N(0, 1/γ)
    away = torch.randn(20_000, DIM, generator=torch.Generator().manual_seed(3)) / 200**0.5
    pulls = (0.005 * 200 * away).square().sum(1)
    assert abs(float(pulls.mean()) - got.localization_pull) < 4 * float(pulls.std()) / 20_000**0.5
    expected = 30.0**2 * got.batch_trace / (200 * DIM)
    assert got.ratio_to_localization == pytest.approx(expected)
    free = per_sample.noise_scale(model, data, half_squares, **settings)
    assert free.ratio_to_localization == math.inf
    whole = per_sample.NoiseScale(**{**vars(got), "batch_size": ROWS})
    assert whole.signal_to_noise == math.inf
    at_minimum = per_sample.NoiseScale(**{**vars(got), "gradient_squared": -0.1})
    assert at_minimum.signal_to_noise == 0.0
    with pytest.raises(ValueError, match=r"localization must be finite and >= 0, got -1\.0"):
        per_sample.noise_scale(model, data, half_squares, localization=-1.0)


def test_advice():
    model, data, _, _ = linear_regression()
    calls = {"batch_size": 20, "num_items": 200}
    hot = per_sample.noise_scale(model, data, half_squares, lr=1e-2, n_beta=100.0, **calls)
    assert f"lower lr to {hot.lr_limit:.2g}, or raise batch_size to {hot.batch_size_limit:.0f}" in hot.advice()
    assert per_sample.noise_scale(model, data, half_squares, lr=1e-6, n_beta=9.0, **calls).advice().endswith(": small")
    bare = per_sample.noise_scale(model, data, half_squares, **calls)
    assert bare.advice().startswith("give lr and n_beta")
    assert math.isnan(bare.ratio)
    assert math.isnan(bare.lr_limit)
    assert math.isnan(bare.batch_size_limit)
    silent = per_sample.noise_scale(model, data, half_squares, lr=1e-6, n_beta=9.0, noise_level=0.0, **calls)
    assert "no noise is injected" in silent.advice()
    assert silent.ratio == math.inf


def test_along_the_noise_where_there_is_no_gradient():
    """At the minimum the mean gradient is noise itself, and points where Σ is large: tr Σ²/tr Σ on average.

    g = x·noise with x ~ N(0, diag(s)): Σ = σ²·diag(s).
    """
    generator = torch.Generator().manual_seed(1)
    s = torch.tensor([9.0, 1.0, 1.0, 0.25, 0.25, 0.25], dtype=torch.float64)
    x = torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64) * s.sqrt()
    y = NOISE * torch.randn(ROWS, generator=generator, dtype=torch.float64)
    model = Linear(torch.zeros(DIM, dtype=torch.float64))
    runs = [
        per_sample.noise_scale(model, (x, y), half_squares, batch_size=100, num_items=100, seed=k, check=False)
        for k in range(100)
    ]
    # E[uᵀΣu·|Ḡ|²]/E|Ḡ|² = tr Σ²/tr Σ: weighted by the |Ḡ|² that each run's direction came with
    weights = torch.tensor([one.gradient_squared + one.trace * (1 / 100 - 1 / ROWS) for one in runs])
    values = torch.tensor([one.variance_along_mean for one in runs])
    mean = float((weights * values).sum() / weights.sum())
    spread = float((weights * (values - mean)).square().sum().sqrt() / weights.sum())
    assert abs(mean - NOISE**2 * float(s.square().sum() / s.sum())) < 4 * spread
    assert spread < 0.2 * mean


def test_items_of_different_lengths_weigh_as_the_sampler_weighs_them():
    """With n = N, Ḡ is the gradient of the whole data set as one batch, whatever the batches it was read in."""
    model, ids = gpt2().double(), token_rows(12)
    mask = torch.ones_like(ids)
    for row in range(12):
        mask[row, 3 + row % 7 :] = 0
    data = {"input_ids": ids, "attention_mask": mask}
    got = per_sample.noise_scale(model, data, batch_size=5, num_items=12)
    gradient = per_sample.weighted_sum(model, data)
    rows = one_by_one.gradients(model, data)
    counts = mask.sum(1).double() - 1
    shares = counts / counts.mean()
    apart = [sum((row[n] - g).square().sum() for n, g in gradient.items()) for row in rows]
    trace = sum(s**2 * a for s, a in zip(shares, apart, strict=True)) / 11
    assert got.trace == pytest.approx(float(trace), rel=1e-10)
    squared = sum(float(g.square().sum()) for g in gradient.values())
    assert got.gradient_squared == pytest.approx(squared, rel=1e-10)


def test_a_gradient_that_is_not_told_from_zero_has_no_finite_scale():
    model, (x, y), _, _ = linear_regression()
    with torch.no_grad():
        model.w.copy_(torch.linalg.lstsq(x, y).solution)  # the minimum of this data set: G = 0
    scales = [per_sample.noise_scale(model, (x, y), half_squares, num_items=64, seed=s, check=False) for s in range(20)]
    below = [one for one in scales if one.gradient_squared <= 0]
    assert below
    assert all(one.noise_scale == math.inf for one in below)


def test_the_example_of_the_documentation_runs():
    source = per_sample.__doc__ or ""
    code = "\n".join(line[4:] for line in source.splitlines() if line.startswith("    "))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scope = {"torch": torch}
        exec(compile(code, str(Path(per_sample.__file__)), "exec"), scope)
    assert scope["noise"].ratio > 0
