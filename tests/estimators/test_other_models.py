"""Images, regression and reinforcement learning go through the same calls: λ̂, χ, influence and the loss kernel."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import sltfast

SETTINGS = {"lr": 1e-3, "n_beta": 30.0, "localization": 50.0, "num_chains": 4, "num_draws": 40, "progress": False}


class Case(NamedTuple):
    """A model at w*, its loss, its data, two data sets to look at, and a part of it."""

    model: nn.Module
    loss: object
    data: object
    observables: dict
    part: str
    settings: dict


class Convnet(nn.Module):
    """Two convolutions and a linear layer for images of 8 × 8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, images):
        return self.head(self.features(images).flatten(1))


def cross_entropy(model, batch):
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels, reduction="none")


def squared_error(model, batch):
    x, y = batch
    return (model(x) - y).square().mean(1)


class Policy(nn.Module):
    """A softmax policy over the moves in every cell of a gridworld."""

    def __init__(self, cells=9, moves=4) -> None:
        super().__init__()
        self.logits = nn.Embedding(cells, moves)
        nn.init.zeros_(self.logits.weight)

    def forward(self, cells):
        return self.logits(cells).log_softmax(-1)


def regret(model, batch):
    """π(a|s)/π_ref(a|s)·(V* − r(s, a)), of moves that count as the reference policy π_ref makes them.

    Single moves have regret of either sign; their weighted mean is the exact regret Σ_s Σ_a π(a|s)·(V* − r)/S.
    """
    cells, moves, apart, reference = batch
    at_move = model(cells).exp().gather(1, moves[:, None])[:, 0]
    return at_move / torch.where(reference == 0, 1, reference) * apart, reference


def trained(model, loss, data, steps, rate):
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        optimiser.zero_grad()
        result = loss(model, data)
        (result[0] * result[1] if isinstance(result, tuple) else result).mean().backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return model


def vision():
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(images).float().view(-1, 1, 8, 8)[:360] / 16, torch.from_numpy(labels)[:360]
    data = images[:256], labels[:256]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trained(Convnet(), cross_entropy, data, 150, 0.01)
    held_out = images[256:], labels[256:]
    return Case(model, cross_entropy, data, {"train": (data, 2), "held out": (held_out, 2)}, "head.*", {})


def regression():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(256, 2, generator=generator) * 4 - 2
    y = torch.stack([x[:, 0].sin(), x.prod(1)], 1) + 0.1 * torch.randn(256, 2, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 2))
        model = trained(net, squared_error, (x, y), 300, 0.02)
    outside = x[:64] * 2, y[:64]
    return Case(model, squared_error, (x, y), {"train": ((x, y), 2), "outside": (outside, 2)}, "4.*", {})


def reinforcement():
    """All moves in a 3 × 3 gridworld whose last cell is the goal, where nothing counts any more."""
    generator = np.random.default_rng(0)
    cells, moves = (part.ravel() for part in np.meshgrid(np.arange(9), np.arange(4), indexing="ij"))
    here = np.stack(divmod(cells, 3), 1)
    there = np.clip(here + np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])[moves], 0, 2)
    apart = 1.0 - (there.sum(1) - here.sum(1)) - generator.uniform(0, 0.5, 36)  # V* − r, below 0 for the best moves
    assert apart.min() < 0 < apart.max()

    def followed(reference):
        columns = cells, moves, apart.astype(np.float32), np.where(cells == 8, 0, reference).astype(np.float32)
        return tuple(torch.from_numpy(np.ascontiguousarray(column)) for column in columns)

    data, other = followed(np.full(36, 0.25)), followed(generator.dirichlet(np.ones(4) * 3, 9).ravel())
    model = trained(Policy(), regret, data, 60, 0.05)
    return Case(model, regret, data, {"train": (data, 1), "other": (other, 1)}, "logits.*", {"batch_size": 36})


CASES = {"vision": vision, "regression": regression, "reinforcement learning": reinforcement}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param()


def keywords(case, **changes):
    return {**SETTINGS, "batch_size": 32, "loss_fn": case.loss, **case.settings, **changes}


def by_hand(samples, name):
    """[chain·draw, items] recorded losses of one observable, items that count nothing left out."""
    losses = samples.dataset[f"loss_{name}"].values[..., 0].astype(np.float64)
    losses = losses.reshape(-1, losses.shape[-1])
    return losses[:, ~np.isnan(losses).all(0)]


def test_llc(case):
    estimate = sltfast.llc(case.model, case.data, **keywords(case))
    assert np.isfinite(float(estimate["llc_mean"]))
    assert estimate["alive"].all()
    assert float(estimate["llc_se"]) > 0


def test_engines_agree(case):
    short = keywords(case, num_draws=6)
    together = sltfast.sample(case.model, case.data, case.observables, engine="auto", **short)
    alone = sltfast.sample(case.model, case.data, case.observables, engine="sequential", **short)
    for name in ("loss", "loss_train"):
        # float32 sums in another order, over 6 steps of weights that hardly move
        np.testing.assert_allclose(together[name].values, alone[name].values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_susceptibilities(case):
    result = sltfast.susceptibilities(
        case.model,
        case.data,
        case.observables,
        {"part": case.part},
        sampling_task="train",
        include_sampling_task=True,
        **keywords(case),
    )
    assert result["components"]["llc_mean"].dims == ("wr",)
    samples = sltfast.sample(case.model, case.data, case.observables, **keywords(case))
    phi = samples.dataset["mean_loss_train"].values.ravel()
    names = result["susceptibilities"].attrs["dataset_id_to_name"]
    of_items = result["susceptibilities"].dataset
    for number, name in enumerate(names):
        chosen = of_items.isel(sus_flat=np.flatnonzero(of_items["dataset_id"] == number)).sel(wr="full")
        losses = by_hand(samples, name)
        apart = losses - phi[:, None]
        expected = -((phi - phi.mean())[:, None] * (apart - apart.mean(0))).mean(0)
        got = chosen["sus_single_chain"].values
        # losses are recorded in float32: 1e-7 of their level, times the spread of φ
        scale = np.abs(losses).max() * phi.std()
        np.testing.assert_allclose(got[np.isfinite(got)], expected, rtol=1e-4, atol=1e-6 * scale)
        assert np.isfinite(chosen["se_single_chain"].values[np.isfinite(got)]).all()


def test_bif_and_loss_kernel(case):
    samples = sltfast.sample(case.model, case.data, case.observables, **keywords(case))
    keys = sorted(name.replace(" ", "_") for name in case.observables)
    losses = np.concatenate([by_hand(samples, name) for name in keys], 1)
    influence = sltfast.compute_bif(samples, correlation_method="sequence", progress=False)
    kernel = sltfast.compute_loss_kernel(samples, progress=False)
    counted = ~np.isnan(influence["influences"].values).all(0)
    assert counted.sum() == losses.shape[1]
    kept = np.ix_(counted, counted)
    covariance = np.cov(losses.T)
    # sums of float32 losses in float64
    np.testing.assert_allclose(influence["influences"].values[kept], -covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(kernel["kernel"].values[kept], covariance, rtol=1e-6, atol=1e-9)
    assert np.linalg.eigvalsh(kernel["kernel"].values[kept])[0] > -1e-9 * np.trace(covariance)
    assert (influence["influences_se"].values[kept] > 0).all()


def test_damped_influence(case):
    few = tuple(part[:24] for part in case.data)
    given = {"n_beta": 30.0, "localization": 3000.0, "loss_fn": case.loss, "progress": False}
    result = sltfast.damped_influence(case.model, few, **given)
    influence = result["influences"].values
    alone = sltfast.per_sample.gradient_norms(case.model, few, case.loss).double().numpy()
    own = -np.diag(influence)
    lowest = result.attrs["hessian_smallest_eigenvalue"]
    assert (own >= 0).all()
    # gᵀ(nβH + γ)⁻¹g <= |g|²/(nβλ_min + γ), up to conjugate gradients' tolerance and what Lanczos misses of λ_min
    assert (own <= 1.01 * alone**2 / (30.0 * lowest + 3000.0)).all()
    # γ outweighs nβ times the curvatures of trained networks: most of |g|²/γ is there
    assert own.sum() > 0.5 * (alone**2).sum() / 3000.0
    np.testing.assert_allclose(influence, influence.T, atol=2e-4 * np.abs(influence).max())


def test_influence_over_checkpoints(case):
    result = sltfast.influence_over_checkpoints(
        {0: case.model, 1: case.model}, case.data, case.observables, **keywords(case, num_draws=8)
    )
    assert np.array_equal(result["influences"][0], result["influences"][1], equal_nan=True)
    assert np.isfinite(result["influences"][0]).any()


def test_weighted_signed_losses_are_the_exact_regret():
    case = reinforcement()
    other = case.observables["other"][0]
    apart = case.data[2].view(9, 4)[:8]
    exact = float((case.model(torch.arange(8)).exp() * apart).sum(1).mean().detach())
    policy = Policy()
    policy.load_state_dict(case.model.state_dict())
    (policy(torch.arange(8)).exp() * apart).sum(1).mean().backward()
    for data in (case.data, other):  # whatever policy has made the moves
        samples = sltfast.sample(case.model, data, **keywords(case, num_draws=2))
        # 36 terms of float32
        assert float(samples.dataset["init_loss_trace"][0, 0]) == pytest.approx(exact, rel=1e-5)
        gradient = sltfast.per_sample.weighted_sum(case.model, data, loss_fn=regret)["logits.weight"]
        torch.testing.assert_close(gradient, policy.logits.weight.grad, rtol=1e-4, atol=1e-7)
