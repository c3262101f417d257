"""λ̂ of singular potentials against quadrature, the step bias of SGLD included."""

import numpy as np
import pytest
import torch
from potentials import Potential, potential_llc

from sltfast.theory import quadrature_llc, quadrature_llc_sgld


@pytest.mark.parametrize(("power", "gamma", "lr"), [(4, 1.0, 1e-3), (4, 100.0, 1e-3), (6, 10.0, 2e-3)])
def test_one_dimension_follows_the_discrete_chain(power, gamma, lr):
    n_beta, copies = 144.765, 1000
    result = potential_llc(
        Potential(torch.zeros(copies), lambda w: 0.5 * (w**power).sum()),
        lr=lr,
        n_beta=n_beta,
        localization=gamma,
        num_chains=2,
        num_draws=1500,
        # the density is about 0.6 wide at γ = 1 and w diffuses √(ε t): 0.6²/ε = 360 steps relax it
        num_burnin_steps=1000,
    )
    expected = copies * quadrature_llc_sgld(
        lambda w: 0.5 * w**power, lambda w: 0.5 * power * w ** (power - 1), n_beta, gamma, lr
    )
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error
    # Guard: the error resolves 3 % of λ̂, so a wrong power, γ or nβ cannot pass.
    assert error < 0.008 * expected


def crossing(p, q, n_beta, gamma, lr):
    """λ̂ of w1^p w2^q by quadrature, and its change at step ε to first order.

    SGLD on U = nβ L + ½ γ |w|² has the stationary density e^{−U} (1 + ε (|∇U|²/8 − ΔU/4) + const + O(ε²)).
    """
    value = quadrature_llc(lambda x, y: x**p * y**q, n_beta, gamma, center=(0.0, 0.0))
    axis = np.linspace(-1, 1, 2401) * 7 / np.sqrt(gamma)
    x, y = axis[:, None], axis[None, :]
    loss = x**p * y**q
    gradient = (n_beta * p * x ** (p - 1) * y**q + gamma * x) ** 2 + (n_beta * q * x**p * y ** (q - 1) + gamma * y) ** 2
    laplacian = n_beta * (p * (p - 1) * x ** (p - 2) * y**q + q * (q - 1) * x**p * y ** (q - 2)) + 2 * gamma
    density = np.exp(-n_beta * loss - gamma / 2 * (x**2 + y**2))
    density /= density.sum()
    correction = gradient / 8 - laplacian / 4
    covariance = (density * loss * correction).sum() - (density * loss).sum() * (density * correction).sum()
    return value, lr * n_beta * covariance


def crossing_llc(p, q, copies, **settings):
    # Started from the localization's own Gaussian, the flat arms of the cross are filled at once; what is left to relax
    # is the stiff direction across them.
    return potential_llc(
        Potential(torch.zeros(copies, 2), lambda w: (w[:, 0] ** p * w[:, 1] ** q).sum()),
        init_noise=settings["localization"] ** -0.5,
        num_chains=2,
        **settings,
    )


@pytest.mark.parametrize(("p", "q"), [(2, 2), (2, 4)])
def test_normal_crossings_follow_quadrature(p, q):
    settings, copies = {"n_beta": 20.0, "localization": 2.0, "lr": 1e-3}, 2000
    result = crossing_llc(p, q, copies, **settings, num_draws=3000, num_burnin_steps=2000)  # 2/(ε γ) = 1000 steps
    continuum, bias = crossing(p, q, settings["n_beta"], settings["localization"], settings["lr"])
    error = float(result["llc_se"]) / copies
    # The step bias is below 1 %, its second order (relative) the square of that.
    assert 0 < bias < 0.01 * continuum
    assert abs(float(result["llc_mean"]) / copies - continuum - bias) < 4 * error
    assert error < 0.02 * continuum


@pytest.mark.soak
def test_a_sharp_crossing_follows_quadrature():
    settings, copies = {"n_beta": 145.0, "localization": 1.0, "lr": 2e-4}, 2000
    result = crossing_llc(2, 2, copies, **settings, num_draws=40_000, num_burnin_steps=20_000)  # 2/(ε γ) = 10⁴ steps
    continuum, bias = crossing(2, 2, settings["n_beta"], settings["localization"], settings["lr"])
    error = float(result["llc_se"]) / copies
    assert abs(float(result["llc_mean"]) / copies - continuum - bias) < 4 * error
    assert error < 0.02 * continuum
