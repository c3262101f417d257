"""Both RMSprop-SGLD methods on a quadratic, against a plain simulation and against the SGLD that they tend to."""

import numpy as np
import pytest
import torch
from potentials import Quadratic, potential_llc

from sltfast.theory import quadratic_llc_sgld

H = (0.1, 1.0, 5.0)
METHODS = ["rmsprop_sgld", "rmsprop_sgld_hh"]
WINDOWS = ((0, 5), (5, 30), (30, 120), (120, 400))


def simulated_windows(method, n_beta, gamma, lr, alpha, eps, paths):
    """Mean excess loss of one set of coordinates H in each window, and its variance over paths, in plain numpy.

    v ← α v + (1 − α) g²,  G = 1/(√v̂ + eps),  w ← w − (ε/2) G (nβ g + γ δ) + √(ε G) ξ,  g = h δ: the second moment
    sees the loss's gradient only. v̂ = v from v = 0, or v/(1 − α^{t+1}) from v = 1.
    """
    rng = np.random.default_rng(11)
    h = np.array(H)
    delta, v = np.zeros((paths, len(H))), np.full((paths, len(H)), float(method == "rmsprop_sgld_hh"))
    trace = np.zeros((WINDOWS[-1][1], paths))
    for step in range(len(trace)):
        trace[step] = 0.5 * (h * delta**2).sum(axis=1)
        g = h * delta
        v = alpha * v + (1 - alpha) * g * g
        corrected = v / (1 - alpha ** (step + 1)) if method == "rmsprop_sgld_hh" else v
        G = 1 / (np.sqrt(corrected) + eps)
        delta = delta - lr / 2 * G * (n_beta * g + gamma * delta) + np.sqrt(lr * G) * rng.standard_normal(delta.shape)
    means = np.array([trace[start:stop].mean(axis=0) for start, stop in WINDOWS])
    return means.mean(axis=1), means.var(axis=1, ddof=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("alpha", "eps"), [(0.99, 0.1), (0.9, 0.02)])
def test_follows_the_update_rule_from_the_first_step(method, alpha, eps):
    n_beta, gamma, lr, copies, chains, paths = 30.0, 5.0, 2e-3, 1500, 2, 6000
    result = potential_llc(
        Quadratic(torch.tensor(H).repeat(copies)),
        lr=lr,
        n_beta=n_beta,
        localization=gamma,
        sampling_method=method,
        rmsprop_alpha=alpha,
        rmsprop_eps=eps,
        num_chains=chains,
        num_draws=WINDOWS[-1][1],
    )
    trace = result["excess_trace"].values / copies
    expected, variance = simulated_windows(method, n_beta, gamma, lr, alpha, eps, paths)
    seen = np.array([trace[:, start:stop].mean() for start, stop in WINDOWS])
    error = np.sqrt(variance * (1 / (copies * chains) + 1 / paths))
    assert np.all(np.abs(seen - expected) < 4 * error), (seen, expected, error)
    # Guard: the other variant's first steps are outside the error (uncorrected v from 0 starts with a large step).
    other, _ = simulated_windows(METHODS[1 - METHODS.index(method)], n_beta, gamma, lr, alpha, eps, paths)
    assert abs(expected[0] - other[0]) > 8 * error[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_large_eps_is_plain_sgld(method):
    # G = 1/(√v̂ + eps) → 1/eps: with eps = 1000 and lr = 1000 ε this is SGLD at step ε, to √v̂/eps < 1e-3 of a step bias
    # that is itself 4 % of λ̂.
    settings, copies, eps = {"n_beta": 30.0, "localization": 10.0}, 300, 1000.0
    result = potential_llc(
        Quadratic(torch.tensor(H).repeat(copies)),
        lr=2e-3 * eps,
        **settings,
        sampling_method=method,
        rmsprop_eps=eps,
        num_chains=2,
        num_draws=800,
        num_burnin_steps=400,  # 2/(ε a) ≤ 77 steps
    )
    expected = copies * quadratic_llc_sgld(H, lr=2e-3, **settings)
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error
    assert error < 0.015 * expected
