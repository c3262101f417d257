"""λ̂ of quadratic potentials against the exact stationary law of SGLD at a finite step."""

import numpy as np
import pytest
import torch
from potentials import ROWS, Means, Quadratic, per_row, potential_llc, same_for_every_row

import sltfast
from sltfast.theory import LinearRegression, quadratic_llc, quadratic_llc_sgld

H = (0.0, 0.01, 0.1, 1.0, 5.0)
COPIES = 200


def stacked(h=H, copies=COPIES):
    return torch.tensor(h).repeat(copies)


def chain_mean(result):
    """λ̂ and its standard error from chains that share nothing."""
    chains = result["llc_per_chain"].values
    return chains.mean(), chains.std(ddof=1) / np.sqrt(len(chains))


@pytest.mark.parametrize(("n_beta", "gamma", "lr"), [(100.0, 10.0, 2e-3), (30.0, 50.0, 1e-2)])
def test_full_batches_follow_the_discrete_law(n_beta, gamma, lr):
    # Slowest direction: 2/(ε γ) ≤ 100 steps, so 600 steps of burn-in leave a bias of e^−12.
    result = potential_llc(
        Quadratic(stacked()),
        lr=lr,
        n_beta=n_beta,
        localization=gamma,
        num_chains=3,
        num_draws=900,
        num_burnin_steps=600,
    )
    expected = COPIES * quadratic_llc_sgld(H, n_beta, gamma, lr)
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error
    # The step bias itself is seen: the continuum value is far outside the error.
    assert expected - COPIES * quadratic_llc(H, n_beta, gamma) > 12 * error
    assert result.attrs["verdict"] == "converged"


def test_weight_decay_and_noise_level():
    w_star, settings = 0.5, {"n_beta": 50.0, "localization": 20.0, "lr": 4e-3}
    with pytest.warns(UserWarning, match="noise_level"):
        result = potential_llc(
            Quadratic(stacked(), w_star),
            **settings,
            llc_weight_decay=8.0,
            noise_level=0.8,
            num_chains=3,
            num_draws=600,
            num_burnin_steps=200,  # four times 2/(ε γ) = 25 steps and then some
        )
    expected = COPIES * quadratic_llc_sgld(H, **settings, weight_decay=8.0, w_star=w_star, noise_level=0.8)
    assert abs(float(result["llc_mean"]) - expected) < 4 * float(result["llc_se"])
    for changed in ({"weight_decay": 0.0, "noise_level": 0.8}, {"weight_decay": 8.0, "noise_level": 1.0}):
        other = COPIES * quadratic_llc_sgld(H, **settings, w_star=w_star, **changed)
        assert abs(expected - other) > 12 * float(result["llc_se"])


@pytest.mark.parametrize("w_star", [1e-3, 1.0, 100.0])
def test_the_scale_of_the_initial_weights_does_not_matter(w_star):
    # The same noise moves every chain, so only rounding differs: w = w* + δ is held to ulp(w*)/2 ≤ 4e-6, against a
    # spread of δ of 1/√(nβ h + γ) ≥ 0.08: to first order L errs by 1e-4 a coordinate, with random sign.
    settings = {
        "lr": 2e-3, "n_beta": 30.0, "localization": 10.0, "num_chains": 2, "num_draws": 100, "num_burnin_steps": 50
    }  # fmt: skip
    here = potential_llc(Quadratic(stacked(), w_star), **settings)
    origin = potential_llc(Quadratic(stacked(), 0.0), **settings)
    assert float(here["llc_mean"]) == pytest.approx(float(origin["llc_mean"]), rel=1e-4)


def test_a_displaced_start_is_forgotten():
    settings = {"lr": 4e-3, "n_beta": 30.0, "localization": 20.0}
    result = potential_llc(
        Quadratic(stacked()), **settings, init_noise=2.0, num_chains=3, num_draws=600, num_burnin_steps=300
    )
    # 2/(ε a) ≤ 25 steps: the start, 300 times the stationary energy, is worth 300 e^−24 after burn-in.
    assert abs(float(result["llc_mean"]) - COPIES * quadratic_llc_sgld(H, **settings)) < 4 * float(result["llc_se"])
    assert float(result["excess_trace"][:, 0].mean()) > 100 * float(result["excess_trace"][:, -1].mean())


@pytest.mark.parametrize(("rows", "micro"), [(8, 1), (8, 2), (256, 1)])
def test_minibatch_noise_of_reshuffled_epochs(rows, micro):
    # Four rows a batch: two batches an epoch (one step with two micro-batches: the full data, no noise), or 64.
    batch, lr, n_beta, gamma, copies = 4, 4e-3, 30.0, 10.0, 150
    h = torch.tensor([0.3, 1.0]).repeat(copies)
    y = torch.randn(rows, len(h), generator=torch.Generator().manual_seed(5))
    w_star = y.mean(0)
    result = sltfast.llc(
        Means(h, w_star),
        y,
        loss_fn=per_row,
        lr=lr,
        n_beta=n_beta,
        localization=gamma,
        batch_size=batch,
        gradient_accumulation_steps=micro,
        match_sampling_input_ids_across_chains=False,
        num_chains=6,
        num_draws=640,  # whole epochs, so that every position in an epoch counts equally
        num_burnin_steps=256,  # five times 2/(ε a) ≤ 26 steps, and more
        progress=False,
    )
    steps = rows // (batch * micro)
    row_variance = (h * y.std(0)).double().numpy() ** 2
    noise = row_variance / (batch * micro) * (1 - batch * micro / rows)
    law = {"localization": gamma, "lr": lr}
    expected = (
        quadratic_llc_sgld(h, n_beta, gradient_noise=noise, batches_per_epoch=steps, **law) if steps > 1 else None
    )
    still = quadratic_llc_sgld(h, n_beta, **law)
    mean, error = chain_mean(result)
    assert abs(mean - (still if expected is None else expected)) < 4 * error
    if expected is not None:
        # The noise is seen, and so is that reshuffled batches are not independent draws.
        assert abs(expected - still) > 8 * error
        assert abs(expected - quadratic_llc_sgld(h, n_beta, gradient_noise=noise, **law)) > 8 * error


def test_linear_regression_with_minibatches():
    # Many outputs share the features: λ̂ is the sum of the outputs' regressions. Every step sees new rows
    # (2000 batches an epoch, 1400 steps), so reshuffling moves the noise term by only 2/(K ε a) ≤ 1 % of itself.
    rng = np.random.default_rng(2)
    n, d, outputs, batch = 16_000, 3, 100, 8
    x = rng.standard_normal((n, d)) * np.array([0.7, 1.0, 1.3])
    y = x @ rng.standard_normal((d, outputs)) + 0.7 * rng.standard_normal((n, outputs))
    settings = {"n_beta": 50.0, "localization": 10.0, "lr": 4e-3}
    fits = [LinearRegression(x, column) for column in y.T]
    expected = sum(fit.llc_sgld(**settings, batch_size=batch) for fit in fits)
    model = torch.nn.Linear(d, outputs, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(np.stack([fit.optimum for fit in fits])))

    def squared_error(model, batch):
        features, targets = batch
        return 0.5 * (model(features) - targets).square().sum(-1)

    result = sltfast.llc(
        model,
        (torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)),
        loss_fn=squared_error,
        **settings,
        batch_size=batch,
        match_sampling_input_ids_across_chains=False,
        num_chains=6,
        num_draws=1200,
        num_burnin_steps=200,  # 2/(ε a) ≤ 15 steps
        progress=False,
    )
    mean, error = chain_mean(result)
    assert abs(mean - expected) < 4 * error
    # Full batches would give a value far outside the error: the mini-batch term is what is tested.
    assert expected - sum(fit.llc_sgld(**settings, batch_size=n) for fit in fits) > 12 * error


@pytest.mark.parametrize("localization", [0.0, 10.0])
def test_scaling_the_loss_against_n_beta_is_exact(localization):
    # Powers of two scale without rounding: L, ∇L and nβ ∇L agree bit for bit, and so does every weight of the chains.
    h = torch.tensor([0.3, 1.0, 2.0])
    y = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    settings = {
        "lr": 1e-3, "localization": localization, "batch_size": 8, "num_chains": 2, "num_draws": 60,
        "num_burnin_steps": 20, "progress": False,
    }  # fmt: skip
    single = sltfast.llc(Means(h, y.mean(0)), y, loss_fn=per_row, n_beta=30.0, **settings)
    double = sltfast.llc(
        Means(h, y.mean(0)), y, loss_fn=lambda model, batch: 2 * per_row(model, batch), n_beta=15.0, **settings
    )
    np.testing.assert_array_equal(double["excess_trace"].values, 2 * single["excess_trace"].values)
    np.testing.assert_array_equal(double["llc_per_chain"].values, single["llc_per_chain"].values)
    assert float(double["llc_mean"]) == float(single["llc_mean"])


def test_without_temperature_the_chain_samples_the_prior():
    # nβ = 0: δ ~ N(0, 1/(γ (1 − ε γ/4))) whatever the loss; E[L] = ½ Σ h Var δ.
    gamma, lr = 20.0, 5e-3
    samples = sltfast.sample(
        Quadratic(stacked()), ROWS, loss_fn=same_for_every_row, lr=lr, n_beta=0.0, localization=gamma, batch_size=4,
        num_chains=3, num_draws=500, num_burnin_steps=200, progress=False,
    )  # fmt: skip
    excess = (samples["loss"] - samples["init_loss_trace"]).values[:, 200:]
    means = excess.mean(axis=1)
    expected = 0.5 * COPIES * sum(H) / (gamma * (1 - lr * gamma / 4))
    # Var(½ h δ²) = ½ h² σ⁴ a copy, and δ² is autocorrelated as r²ᵗ, r = 1 − ε γ/2: (1 + r²)/(1 − r²) draws make one.
    sigma2, r2 = 1 / (gamma * (1 - lr * gamma / 4)), (1 - lr * gamma / 2) ** 2
    error = np.sqrt(0.5 * COPIES * sum(h * h for h in H) * sigma2**2 * (1 + r2) / (1 - r2) / excess.size)
    assert abs(means.mean() - expected) < 4 * error
