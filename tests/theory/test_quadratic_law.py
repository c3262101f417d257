"""The stationary law of SGLD on quadratics and linear regression, against plain simulations."""

from itertools import combinations

import numpy as np
import pytest

from sltfast.theory import LinearRegression, quadratic_llc, quadratic_llc_sgld, sgld_stability_limit


def test_quoted_values():
    h = (0, 0.01, 0.1, 1, 5)
    assert round(quadratic_llc(h, 100, 10), 4) == 1.2402
    assert round(quadratic_llc_sgld(h, 100, 10, 2e-3), 4) == 1.4372


def test_small_steps_give_the_continuum():
    h = [0.01, 0.1, 1, 5]
    assert quadratic_llc_sgld(h, 100, 10, 1e-9) == pytest.approx(quadratic_llc(h, 100, 10), rel=1e-6)


def test_flat_directions_contribute_nothing():
    assert quadratic_llc([0.0, 2.0], 10.0) == 0.5
    assert quadratic_llc_sgld([0.0, 2.0], 10.0, 0.0, 1e-3) == quadratic_llc_sgld([2.0], 10.0, 0.0, 1e-3)
    assert quadratic_llc_sgld([0.0, 2.0], 0.0, 1.0, 1e-3) == 0.0


def test_stability_limit_is_where_the_law_ends():
    limit = sgld_stability_limit([0.1, 2.0], 10.0, 3.0, 1.0)
    assert limit == 4 / 24
    assert np.isfinite(quadratic_llc_sgld([0.1, 2.0], 10.0, 3.0, limit * 0.999, weight_decay=1.0))
    with pytest.raises(ValueError, match=r"lr must be < 0.166667 .* got"):
        quadratic_llc_sgld([0.1, 2.0], 10.0, 3.0, limit, weight_decay=1.0)
    assert sgld_stability_limit([0.0], 10.0) == np.inf


def paired_mean(excess, chains):
    """Mean and standard error over chains of a [steps, chains] paired trace; the chains are independent."""
    means = excess.mean(axis=0)
    return means.mean(), means.std(ddof=1) / np.sqrt(chains)


@pytest.mark.parametrize("epoch", [None, 2, 5, 40])
def test_minibatch_noise_weight_decay_and_noise_level(epoch):
    h, n_beta, gamma, lr, decay, sigma = np.array([0.2, 1.0]), 30.0, 4.0, 4e-3, 3.0, 0.7
    w_star, scale = np.array([0.5, -1.0]), np.array([0.6, 0.9])
    chains, burn, steps = 1500, 400, 800  # the slowest coordinate relaxes in 2/(ε a) = 39 steps
    rng = np.random.default_rng(7)
    w = np.tile(w_star, (chains, 1))
    excess = []
    for step in range(burn + steps):
        if epoch is None:
            zeta = scale * rng.standard_normal((chains, 2))
        else:
            position = step % epoch
            if position == 0:  # exchangeable, summing to zero over the epoch: Cov(ζ_p, ζ_q) = −C/(K − 1)
                block = rng.standard_normal((epoch, chains, 2))
                block = scale * (block - block.mean(axis=0)) / np.sqrt(1 - 1 / epoch)
            zeta = block[position]
        delta = w - w_star
        if step >= burn:
            excess.append(n_beta * np.sum(0.5 * h * delta**2 + zeta * delta, axis=1))
        drift = n_beta * (h * delta + zeta) + gamma * delta + decay * w
        w = w - lr / 2 * drift + np.sqrt(lr) * sigma * rng.standard_normal((chains, 2))
    mean, error = paired_mean(np.array(excess), chains)
    expected = quadratic_llc_sgld(
        h,
        n_beta,
        gamma,
        lr,
        scale**2,
        batches_per_epoch=epoch,
        weight_decay=decay,
        w_star=w_star,
        noise_level=sigma,
    )
    assert abs(mean - expected) < 4 * error
    # Guard: the mini-batch term is far outside the error, so the test can see it.
    still = quadratic_llc_sgld(h, n_beta, gamma, lr, weight_decay=decay, w_star=w_star, noise_level=sigma)
    if epoch is None:
        assert expected - still > 10 * error


def test_many_batches_an_epoch_are_independent_batches():
    arguments = ([0.2, 1.0], 30.0, 4.0, 4e-3, [0.4, 0.8])
    independent = quadratic_llc_sgld(*arguments)
    gaps = [abs(quadratic_llc_sgld(*arguments, batches_per_epoch=k) - independent) for k in (1000, 10_000)]
    # Falls as 1/K once K ≫ 2/(ε a) = 50; the next order is a relative 50/K.
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.05)


def test_covariance_matrix_enters_by_its_diagonal():
    full = np.array([[0.4, 0.3], [0.3, 0.8]])
    assert quadratic_llc_sgld([0.2, 1], 30, 4, 4e-3, full) == quadratic_llc_sgld([0.2, 1], 30, 4, 4e-3, [0.4, 0.8])


def regression(n=4000, d=3, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.linspace(0.5, 1.5, d)
    return LinearRegression(x, x @ np.ones(d) + 0.8 * rng.standard_normal(n))


def test_regression_at_its_optimum():
    data = regression()
    np.testing.assert_allclose(data.residuals @ data.x, 0, atol=1e-9 * len(data.x))
    assert data.llc(200.0, 0.0) == pytest.approx(1.5)
    eigenvalues = np.linalg.eigvalsh(data.hessian)
    full = data.llc_sgld(200.0, 5.0, 1e-3, len(data.x))
    assert full == pytest.approx(quadratic_llc_sgld(eigenvalues, 200.0, 5.0, 1e-3), rel=1e-10)


def test_regression_with_minibatches():
    data = regression()
    n_beta, gamma, lr, batch, chains, burn, steps = 60.0, 5.0, 4e-3, 4, 800, 200, 600
    rng = np.random.default_rng(3)
    n, d = data.x.shape
    delta = np.zeros((chains, d))
    excess = []
    for step in range(burn + steps):
        # A row repeats in a batch with probability < b²/(2n) = 0.002: C moves by < 1e-3 of itself.
        rows = rng.integers(n, size=(chains, batch))
        x, e = data.x[rows], data.residuals[rows]
        along = np.einsum("cbd,cd->cb", x, delta)
        if step >= burn:
            excess.append(n_beta * np.mean(0.5 * along**2 + e * along, axis=1))
        gradient = np.einsum("cbd,cb->cd", x, along + e) / batch
        delta = delta - lr / 2 * (n_beta * gradient + gamma * delta) + np.sqrt(lr) * rng.standard_normal((chains, d))
    mean, error = paired_mean(np.array(excess), chains)
    expected = data.llc_sgld(n_beta, gamma, lr, batch)
    assert abs(mean - expected) < 4 * error
    # Guards: the additive noise alone, and no noise at all, are both outside the error.
    basis = np.linalg.eigh(data.hessian)
    noise = basis.eigenvectors.T @ data.gradient_noise(batch) @ basis.eigenvectors
    additive = quadratic_llc_sgld(basis.eigenvalues, n_beta, gamma, lr, noise)
    assert expected - additive > 8 * error
    assert additive - quadratic_llc_sgld(basis.eigenvalues, n_beta, gamma, lr) > 8 * error


def test_gradient_noise_is_the_covariance_of_batch_means():
    data = regression(n=6)
    gradients = data.residuals[:, None] * data.x
    means = np.array([gradients[list(rows)].mean(axis=0) for rows in combinations(range(6), 2)])
    np.testing.assert_allclose(data.gradient_noise(2), means.T @ means / len(means), rtol=1e-10)
    assert not np.any(data.gradient_noise(6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quadratic_llc([-1.0], 1.0), r"h must be finite and >= 0 .* got"),
        (lambda: quadratic_llc([], 1.0), "non-empty vector"),
        (lambda: quadratic_llc([1.0], 1.0, -2.0), "localization must be finite and >= 0, got -2.0"),
        (lambda: quadratic_llc_sgld([1.0], 1.0, 0.0, 0.0), "lr must be finite and > 0, got 0.0"),
        (lambda: quadratic_llc_sgld([0.0], 1.0, 0.0, 0.1, [1.0]), "never stationary"),
        (
            lambda: quadratic_llc_sgld([1.0], 1.0, 0.0, 0.1, [1.0, 2.0]),
            r"gradient_noise must have shape \(1,\)",
        ),
        (lambda: quadratic_llc_sgld([1.0], 1.0, 0.0, 0.1, [-1.0]), "variances >= 0"),
        (lambda: quadratic_llc_sgld([1.0], 1.0, 0.0, 0.1, [1.0], batches_per_epoch=1), "must be >= 2, got 1"),
        (lambda: quadratic_llc_sgld([1.0], 1.0, 0.0, 0.1, w_star=[1.0, 2.0]), "w_star must be a scalar"),
        (lambda: LinearRegression(np.ones((3, 2)), np.ones(3)), "full column rank, got 3 rows of 2"),
        (lambda: LinearRegression(np.ones((3, 2)), np.ones(2)), "x must be"),
        (lambda: regression().llc_sgld(60.0, 0.0, 1e-3, 0), "batch_size must be in 1 … 4000"),
        (lambda: regression().llc_sgld(60.0, 0.0, 10.0, 4), "lr=10.0 is too large"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
