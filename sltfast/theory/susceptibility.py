"""χ of linear regression, exactly: for the localized posterior and for full-batch SGLD at a finite step."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import at_least_zero
from .regression import LinearRegression

__all__ = ["regression_covariance", "regression_susceptibility"]

Array = NDArray[np.float64]


def regression_covariance(
    fit: LinearRegression, n_beta: float, localization: float, lr: float = 0.0, moves: ArrayLike | None = None
) -> Array:
    """Covariance S of w − w* when only some coordinates move.

        S = [a (1 − ε a/4)]⁻¹ on the coordinates that move,  a = nβ H + γ there,  and 0 elsewhere.

    Args:
        fit: the regression, at its optimum w*.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε of full-batch SGLD; 0: the posterior itself.
        moves: [d] bool, which coordinates move; None: all.

    Returns:
        [d, d] S; w − w* is Gaussian with mean 0 at any ε, as each step is linear in it.

    Raises:
        ValueError: a bad argument, a direction that nothing holds back, or a step that is not stable.
    """
    n_beta = at_least_zero("n_beta", n_beta)
    gamma = at_least_zero("localization", localization)
    step = at_least_zero("lr", lr)
    d = len(fit.hessian)
    moving = np.ones(d, bool) if moves is None else np.asarray(moves, bool)
    if moving.shape != (d,):
        raise ValueError(f"moves must have shape ({d},), one flag a coordinate, got shape {moving.shape}")
    at = np.ix_(moving, moving)
    values, vectors = np.linalg.eigh(n_beta * fit.hessian[at] + gamma * np.eye(int(moving.sum())))
    if len(values) and (values[0] <= 0 or step * values[-1] >= 4):
        raise ValueError(
            f"n_beta * H + localization must lie in (0, 4 / lr), got eigenvalues {values[0]:g} … {values[-1]:g} and "
            f"lr={lr!r}"
        )
    covariance = np.zeros((d, d))
    covariance[at] = (vectors / (values * (1 - step * values / 4))) @ vectors.T
    return covariance


def regression_susceptibility(
    fit: LinearRegression,
    x: ArrayLike,
    n_beta: float,
    localization: float,
    lr: float = 0.0,
    moves: ArrayLike | None = None,
    estimator: Literal["two_chain", "single_chain"] = "two_chain",
) -> Array:
    """χ of every row, for ℓ_i = ½ (x_i · w − y_i)² and φ = L(w) − L(w*), L the mean over the fit's own rows.

    With δ = w − w* ~ N(0, S_C), φ = ½ δᵀ H δ and ℓ_i − ℓ*_i = e_i x_i·δ + ½ (x_i·δ)²; odd moments vanish, so that

        single-chain  χ_i = ½ tr(H S_C H S_C) − ½ x_iᵀ S_C H S_C x_i,
        two-chain     χ_i = single-chain + E_C[φ] (E_C[d_i] − E_F[d_i]),
        E[φ] = ½ tr(H S),  E[d_i] = ½ tr(H S) − ½ x_iᵀ S x_i,

    F the full run. No target enters: χ of a row does not depend on its residual.

    Args:
        fit: the regression, at its optimum w*.
        x: [m, d] features of the rows.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε of full-batch SGLD; 0: the posterior itself.
        moves: [d] bool, the component C; None: all coordinates.
        estimator: which one.

    Returns:
        [m] χ_i, without a factor nβ.

    Raises:
        ValueError: as `regression_covariance`, features of another width, or an unknown estimator.

    Source: Baker et al. 2504.18274 (definition); moments of Gaussian quadratic forms (Isserlis).
    """
    rows = np.asarray(x, dtype=np.float64)
    hessian = fit.hessian
    if rows.ndim != 2 or rows.shape[1] != len(hessian):
        raise ValueError(f"x must be [m, {len(hessian)}], got shape {rows.shape}")
    if estimator not in ("two_chain", "single_chain"):
        raise ValueError(f"estimator must be 'two_chain' or 'single_chain', got {estimator!r}")
    restricted = regression_covariance(fit, n_beta, localization, lr, moves)
    full = regression_covariance(fit, n_beta, localization, lr)

    def difference(covariance: Array) -> Array:
        return 0.5 * (np.trace(hessian @ covariance) - _forms(rows, covariance))

    twice = restricted @ hessian @ restricted
    single = 0.5 * (np.trace(hessian @ twice) - _forms(rows, twice))
    if estimator == "single_chain":
        return np.asarray(single)
    mean = 0.5 * np.trace(hessian @ restricted)
    return np.asarray(single + mean * (difference(restricted) - difference(full)))


def _forms(rows: Array, matrix: Array) -> Array:
    """[m] x_iᵀ M x_i."""
    return np.einsum("mi,ij,mj->m", rows, matrix, rows)
