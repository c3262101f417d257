"""The stationary laws of SGHMC and SGNHT on quadratics, against Lyapunov equations and plain simulations."""

import numpy as np
import pytest

from sltfast.theory import (
    quadratic_llc,
    quadratic_llc_sghmc,
    quadratic_llc_sgld,
    quadratic_llc_sgnht,
    sgnht_thermostat,
)


def lyapunov(a, lr, zeta, thermal):
    """Covariance of (δ, m) of one coordinate: Σ = F Σ Fᵀ + Q, iterated until it stands still."""
    keep, pull = 1 - zeta, lr * a / 2
    step = np.array([[1 - pull, keep], [-pull, keep]])
    kick = lr * thermal * np.ones((2, 2))
    sigma = np.zeros((2, 2))
    for _ in range(60):  # doubling: after k turns, 2^k steps
        sigma, step, kick = step @ sigma @ step.T + kick, step @ step, kick + step @ kick @ step.T
    return sigma


@pytest.mark.parametrize("friction", [0.02, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("noise", [None, np.array([0.5, 0.0, 2.0])])
def test_sghmc_solves_the_lyapunov_equation(friction, noise):
    h, n_beta, gamma, lr, sigma = np.array([0.1, 1.0, 5.0]), 30.0, 4.0, 5e-3, 0.8
    a = n_beta * h + gamma
    thermal = friction * sigma**2 + lr * n_beta**2 * (np.zeros(3) if noise is None else noise) / 4
    spread = [lyapunov(a[i], lr, friction, thermal[i])[0, 0] for i in range(3)]
    expected = 0.5 * n_beta * np.sum(h * spread)
    found = quadratic_llc_sghmc(h, n_beta, gamma, lr, friction, noise, noise_level=sigma)
    assert found == pytest.approx(expected, rel=1e-9)


def test_full_friction_is_sgld():
    h, noise = [0.1, 1.0, 5.0], [0.5, 0.0, 2.0]
    found = quadratic_llc_sghmc(h, 30.0, 4.0, 5e-3, 1.0, noise, noise_level=0.7)
    assert found == pytest.approx(quadratic_llc_sgld(h, 30.0, 4.0, 5e-3, noise, noise_level=0.7), rel=1e-12)


def test_small_steps_give_the_continuum():
    h = [0.01, 0.1, 1, 5]
    assert quadratic_llc_sghmc(h, 100, 10, 1e-9, 0.2) == pytest.approx(quadratic_llc(h, 100, 10), rel=1e-6)
    assert quadratic_llc_sgnht(h, 100, 10, 1e-9, 0.2) == pytest.approx(quadratic_llc(h, 100, 10), rel=1e-6)


def test_momentum_halves_the_bias_of_the_step():
    h, gamma, lr = [1.0], 0.0, 4e-3
    exact = quadratic_llc(h, 30.0, gamma)
    sgld = quadratic_llc_sgld(h, 30.0, gamma, lr) - exact
    sghmc = quadratic_llc_sghmc(h, 30.0, gamma, lr, 1e-6) - exact
    assert sghmc == pytest.approx(sgld / 2, rel=0.02)  # up to ε a/4 = 3 % of itself


@pytest.mark.parametrize(("lr", "noise"), [(5e-3, [0.1, 0.4, 0.2]), (1e-3, None)])
def test_thermostat_rests_where_the_momentum_has_its_temperature(lr, noise):
    h, n_beta, gamma, friction = np.array([0.1, 1.0, 5.0]), 30.0, 4.0, 0.05
    zeta = sgnht_thermostat(h, n_beta, gamma, lr, friction, noise)
    a = n_beta * h + gamma
    thermal = friction + lr * n_beta**2 * np.asarray([0.0] * 3 if noise is None else noise) / 4
    laws = [lyapunov(a[i], lr, zeta, thermal[i]) for i in range(3)]
    assert np.mean([law[1, 1] for law in laws]) == pytest.approx(lr / (2 - zeta), rel=1e-9)
    expected = 0.5 * n_beta * sum(h[i] * laws[i][0, 0] for i in range(3))
    assert quadratic_llc_sgnht(h, n_beta, gamma, lr, friction, noise) == pytest.approx(expected, rel=1e-9)


def test_equal_coordinates_are_at_the_posteriors_temperature_whatever_the_noise():
    for noise in (None, [0.3, 0.3]):
        found = quadratic_llc_sgnht([1.0, 1.0], 30.0, 10.0, 5e-3, 0.1, noise)
        assert found == pytest.approx(quadratic_llc([1.0, 1.0], 30.0, 10.0), rel=1e-9)


def test_sgnht_agrees_with_a_simulation():
    """Many coordinates of three kinds; ζ free. The mean over coordinates and steps, against its standard error."""
    h, n_beta, gamma, lr, friction = np.repeat([0.5, 1.0, 2.0], 1500), 30.0, 10.0, 4e-3, 0.05
    noise = np.repeat([0.1, 0.02, 0.05], 1500)
    rng = np.random.default_rng(3)
    a = n_beta * h + gamma
    delta, m, zeta = np.zeros_like(a), np.sqrt(lr / 2) * rng.standard_normal(len(a)), friction
    energies, frictions = [], []
    burn, steps = 1500, 3000
    for t in range(burn + steps):
        g = a * delta + n_beta * np.sqrt(noise) * rng.standard_normal(len(a))
        m = (1 - zeta) * m - lr / 2 * g + np.sqrt(friction * lr) * rng.standard_normal(len(a))
        delta = delta + m
        zeta += np.mean(m * m) - lr / (2 - zeta)
        if t >= burn:
            energies.append(0.5 * n_beta * h * delta**2)
            frictions.append(zeta)
    per_coordinate = np.mean(energies, axis=0)
    kinds = per_coordinate.reshape(3, 1500)
    error = np.sqrt(np.sum(kinds.var(axis=1, ddof=1) * 1500))
    expected = quadratic_llc_sgnht(h, n_beta, gamma, lr, friction, noise)
    assert abs(per_coordinate.sum() - expected) < 4 * error
    assert error < 0.01 * expected
    # ζ's mean, in blocks far longer than its memory (2ζ/ε ≈ 60 steps)
    blocks = np.mean(np.reshape(frictions, (10, -1)), axis=1)
    rest = sgnht_thermostat(h, n_beta, gamma, lr, friction, noise)
    assert abs(blocks.mean() - rest) < 4 * blocks.std(ddof=1) / 10**0.5
    # the published target ε/2 would rest elsewhere
    assert rest > friction + 0.02


def test_errors():
    with pytest.raises(ValueError, match=r"friction must be in \(0, 1\], got 0"):
        quadratic_llc_sghmc([1.0], 10.0, friction=0)
    with pytest.raises(ValueError, match=r"lr must be < 0\.64 to be stable here"):
        quadratic_llc_sghmc([1.0], 10.0, lr=0.64, friction=0.4)
    with pytest.raises(ValueError, match="more heat than a thermostat can carry away"):
        quadratic_llc_sgnht([1.0], 30.0, lr=1e-2, gradient_noise=[2.0])
    with pytest.raises(ValueError, match="gradient_noise must have shape"):
        quadratic_llc_sgnht([1.0], 30.0, gradient_noise=[2.0, 1.0])
