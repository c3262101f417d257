"""Traces whose autocorrelation is known."""

import math

import numpy as np


def ar1(rho, chains=4, draws=4000, items=(), seed=0):
    """Stationary AR(1) of variance 1, [chains, draws, *items]: ρ_t = ρ^t, τ = (1 + ρ)/(1 − ρ)."""
    generator = np.random.default_rng(seed)
    x = np.empty((chains, draws, *items))
    x[:, 0] = generator.standard_normal((chains, *items))
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * generator.standard_normal((chains, *items))
    return x
