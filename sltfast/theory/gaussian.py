"""λ̂ of a quadratic potential, exactly: for the continuous posterior and for SGLD at a finite step.

The potential is L(w) − L(w*) = ½ Σ_i h_i (w_i − w*_i)². Every coordinate is an AR(1) process under SGLD, so
stationary means and variances have closed forms; no quantity here is an expansion in the step ε.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import above_zero, at_least_zero, curvatures

__all__ = ["quadratic_covariance_sgld", "quadratic_llc", "quadratic_llc_sgld", "sgld_stability_limit"]


def quadratic_llc(h: ArrayLike, n_beta: float, localization: float = 0.0) -> float:
    """λ̂ of the localized posterior ∝ exp(−nβ L(w) − ½ γ |w − w*|²) itself, the limit ε → 0 of SGLD.

        λ̂ = ½ Σ_i nβ h_i / (nβ h_i + γ).

    Args:
        h: [d] Hessian eigenvalues, >= 0.
        n_beta: nβ >= 0.
        localization: γ >= 0, in the unit of nβ h.

    Returns:
        λ̂. A direction with h_i = 0 contributes nothing, also at γ = 0.

    Raises:
        ValueError: a negative or non-finite argument.
    """
    curved = n_beta_h(h, n_beta)
    gamma = at_least_zero("localization", localization)
    curved = curved[curved > 0]
    return float(0.5 * np.sum(curved / (curved + gamma)))


def sgld_stability_limit(h: ArrayLike, n_beta: float, localization: float = 0.0, weight_decay: float = 0.0) -> float:
    """Step size ε at and above which SGLD on the quadratic has no stationary law.

        ε_max = 4 / max_i a_i,    a_i = nβ h_i + γ + λ,

    because one step multiplies w_i − w*_i by 1 − ε a_i/2.

    Args:
        h: [d] Hessian eigenvalues, >= 0.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        weight_decay: λ >= 0.

    Returns:
        ε_max, infinite when nothing pulls the weights back.

    Raises:
        ValueError: a negative or non-finite argument.
    """
    gamma = at_least_zero("localization", localization)
    decay = at_least_zero("weight_decay", weight_decay)
    stiffest = float(np.max(n_beta_h(h, n_beta))) + gamma + decay
    return 4.0 / stiffest if stiffest > 0 else float("inf")


def quadratic_llc_sgld(
    h: ArrayLike,
    n_beta: float,
    localization: float = 0.0,
    lr: float = 1e-4,
    gradient_noise: ArrayLike | None = None,
    *,
    batches_per_epoch: int | None = None,
    weight_decay: float = 0.0,
    w_star: ArrayLike = 0.0,
    noise_level: float = 1.0,
) -> float:
    """Stationary mean of the paired estimate λ̂ = nβ E[ℓ(w_t; b_t) − ℓ(w*; b_t)] of SGLD at step ε, exactly.

    With δ = w − w* and a mini-batch gradient g(w; b) = h δ + ζ_b, Cov ζ = C, coordinate i obeys

        δ' = δ − (ε/2)(nβ (h δ + ζ) + γ δ + λ (w* + δ)) + √ε σ ξ = r δ − (ε/2)(nβ ζ + λ w*) + √ε σ ξ,
        a = nβ h + γ + λ,  r = 1 − ε a/2,  E δ = μ = −λ w*/a,

    so for batches that are independent of each other

        Var δ = [σ² + ε (nβ)² C_ii/4] / [a (1 − ε a/4)],    λ̂ = ½ nβ Σ_i h_i (Var δ_i + μ_i²).

    *Reshuffled batches* (every epoch a fresh permutation, cut into K batches) are not independent: within an
    epoch Cov(ζ_p, ζ_q) = −C/(K − 1), the noise cancels over an epoch, and w_t knows something about b_t. With
    u_p = Cov(δ_p, ζ_q), q >= p, and v_p = Var δ_p at position p of an epoch,

        u_0 = 0,  u_{p+1} = r u_p + (ε nβ/2) C/(K − 1),
        v_{p+1} = r² v_p − r ε nβ u_p + (ε nβ/2)² C + ε σ²,  v_K = v_0,
        λ̂ = nβ Σ_i mean_p [½ h_i (v_p + μ_i²) + u_p].

    Only the diagonal of C enters: in the eigenbasis of the Hessian the coordinates do not mix.

    Source: the stationary variance of an AR(1) process; the mini-batch term in the limit of small ε is in
    Mandt, Hoffman and Blei, "Stochastic gradient descent as approximate Bayesian inference", JMLR 18 (2017).

    Args:
        h: [d] Hessian eigenvalues, >= 0.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε > 0, below `sgld_stability_limit`.
        gradient_noise: [d] variances C_ii, or [d, d] covariance C, of the gradient of one step's mean loss at
            w*, in the eigenbasis of the Hessian; None for full-batch gradients.
        batches_per_epoch: K >= 2 for reshuffled batches; None for independent batches.
        weight_decay: λ >= 0, a Gaussian prior centred at 0.
        w_star: [d] or scalar, w*; matters only with weight decay.
        noise_level: σ >= 0.

    Returns:
        λ̂ in the stationary state, averaged over the positions of an epoch.

    Raises:
        ValueError: a negative or non-finite argument, a step at or above the stability limit, arrays of
            another length than h, or a direction with C_ii > 0 and a_i = 0, which has no stationary law.
    """
    curved = n_beta_h(h, n_beta)
    gamma = at_least_zero("localization", localization)
    decay = at_least_zero("weight_decay", weight_decay)
    sigma = at_least_zero("noise_level", noise_level)
    step = above_zero("lr", lr)
    a = curved + gamma + decay
    noise = np.zeros_like(a) if gradient_noise is None else variances(gradient_noise, len(a))
    centre = along("w_star", w_star, len(a))
    seen = (curved > 0) | (noise > 0)  # the loss does not change along the others
    curved, noise, centre, a = curved[seen], noise[seen], centre[seen], a[seen]
    if len(a) == 0 or n_beta == 0:
        return 0.0
    if not np.all(a > 0):
        raise ValueError(
            f"{np.sum(a == 0)} noisy directions with n_beta * h + localization + weight_decay = 0: "
            "they are never stationary (use localization > 0)"
        )
    if step * np.max(a) >= 4.0:
        limit = sgld_stability_limit(h, n_beta, localization, weight_decay)
        raise ValueError(f"lr must be < {limit:g} for SGLD to be stable here, got {lr!r}")

    shift = -decay * centre / a
    if batches_per_epoch is None or not np.any(noise):
        spread = (sigma**2 + step * n_beta**2 * noise / 4) / (a * (1 - step * a / 4))
        leak = np.zeros_like(a)
    else:
        spread, leak = reshuffled_moments(a, step, n_beta, sigma, noise, batches_per_epoch)
    return float(np.sum(0.5 * curved * (spread + shift**2) + n_beta * leak))


def quadratic_covariance_sgld(
    hessian: ArrayLike, n_beta: float, localization: float = 0.0, lr: float = 1e-4
) -> NDArray[np.float64]:
    """Stationary covariance of w − w* of full-batch SGLD at step ε on L = ½ (w − w*)ᵀ H (w − w*), exactly.

        Cov = A⁻¹ (1 − ε A/4)⁻¹,  A = nβ H + γ,

    the solution of Σ = (1 − ε A/2) Σ (1 − ε A/2) + ε; its limit ε → 0 is the posterior's own (nβ H + γ)⁻¹.

    Args:
        hessian: [d, d] symmetric, positive semidefinite.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε > 0, below `sgld_stability_limit`.

    Returns:
        [d, d] covariance.

    Raises:
        ValueError: a bad argument, a matrix that is not square and symmetric, a direction without a stationary law.
    """
    h = np.asarray(hessian, dtype=np.float64)
    if h.ndim != 2 or h.shape[0] != h.shape[1] or not np.allclose(h, h.T, rtol=1e-10, atol=0):
        raise ValueError(f"hessian must be a symmetric matrix [d, d], got shape {h.shape}")
    gamma, step = at_least_zero("localization", localization), above_zero("lr", lr)
    values, vectors = np.linalg.eigh(at_least_zero("n_beta", n_beta) * h)
    a = values + gamma
    if not np.all(a > 0) or step * np.max(a) >= 4.0:
        raise ValueError(
            f"n_beta * hessian + localization must have eigenvalues in (0, 4 / lr) = (0, {4 / step:g}), got "
            f"{a.min():g} to {a.max():g}"
        )
    return (vectors / (a * (1 - step * a / 4))) @ vectors.T


def reshuffled_moments(
    a: NDArray[np.float64], step: float, n_beta: float, sigma: float, noise: NDArray[np.float64], epoch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over an epoch of v_p = Var δ_p and u_p = Cov(δ_p, ζ_p), the recursions of `quadratic_llc_sgld`.

    Args:
        a: [d] total curvatures nβ h + γ + λ.
        step: ε.
        n_beta: nβ.
        sigma: σ.
        noise: [d] variances C_ii.
        epoch: K.

    Returns:
        ([d] mean of v_p, [d] mean of u_p).

    Raises:
        ValueError: K < 2: one batch an epoch is the full data set and has no gradient noise.
    """
    if epoch < 2:
        raise ValueError(
            f"batches_per_epoch must be >= 2, got {epoch!r} "
            "(a single batch is the full data set: use gradient_noise=None)"
        )
    r, kick = 1 - step * a / 2, step * n_beta / 2
    leak = np.zeros((epoch + 1, len(a)))
    for p in range(epoch):
        leak[p + 1] = r * leak[p] + kick * noise / (epoch - 1)
    gain = kick**2 * noise + step * sigma**2 - 2 * r * kick * leak[:epoch]
    # v_K = r^(2K) v_0 + Σ_p r^(2(K−1−p)) gain_p and v_K = v_0.
    powers = (r**2) ** np.arange(epoch - 1, -1, -1)[:, None]
    spread = np.empty((epoch, len(a)))
    spread[0] = np.sum(powers * gain, axis=0) / (1 - r ** (2 * epoch))
    for p in range(epoch - 1):
        spread[p + 1] = r**2 * spread[p] + gain[p]
    return spread.mean(axis=0), leak[:epoch].mean(axis=0)


def n_beta_h(h: ArrayLike, n_beta: float) -> NDArray[np.float64]:
    """[d] products nβ h_i of checked arguments."""
    return at_least_zero("n_beta", n_beta) * curvatures(h)


def along(name: str, values: ArrayLike, d: int) -> NDArray[np.float64]:
    """The values as [d] float64, a scalar repeated; ValueError for any other shape."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (d,)):
        raise ValueError(f"{name} must be a scalar or have shape ({d},) like h, got shape {array.shape}")
    return np.broadcast_to(array, (d,))


def variances(gradient_noise: ArrayLike, d: int) -> NDArray[np.float64]:
    """[d] variances from a [d] vector or the diagonal of a [d, d] covariance; else ValueError."""
    array = np.asarray(gradient_noise, dtype=np.float64)
    if array.shape not in ((d,), (d, d)):
        raise ValueError(f"gradient_noise must have shape ({d},) or ({d}, {d}) like h, got {array.shape}")
    diagonal = np.diagonal(array) if array.ndim == 2 else array
    if not np.all(diagonal >= 0):
        raise ValueError(f"gradient_noise must have variances >= 0, got {diagonal.min()!r}")
    return diagonal
