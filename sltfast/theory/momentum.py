"""λ̂ of a quadratic potential under SGHMC and SGNHT at a finite step: AR(2) processes, hence closed forms.

The potential is L(w) − L(w*) = ½ Σ_i h_i (w_i − w*_i)². With δ = w − w*, mini-batch gradients h δ + ζ_b that are
independent from step to step, Var ζ_b = C, and friction z, a coordinate obeys

    m' = (1 − z) m − (ε/2)(a δ + nβ ζ_b) + √(A ε) σ ξ,    δ' = δ + m',    a = nβ h + γ,

so that δ'' = (2 − z − ε a/2) δ' − (1 − z) δ + noise of variance ε s,  s = A σ² + ε (nβ)² C/4. The Yule–Walker
equations of an AR(2) process give

    Var δ = s / [z a (1 − x)],    Var m = ε s / [z (2 − z) (1 − x)],    x = ε a / (4 (2 − z)).

At z = A = 1 this is SGLD's AR(1) law (`quadratic_llc_sgld`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import above_zero, at_least_zero
from .gaussian import n_beta_h, variances

__all__ = ["quadratic_llc_sghmc", "quadratic_llc_sgnht", "sgnht_thermostat"]


def quadratic_llc_sghmc(
    h: ArrayLike,
    n_beta: float,
    localization: float = 0.0,
    lr: float = 1e-4,
    friction: float = 0.1,
    gradient_noise: ArrayLike | None = None,
    *,
    noise_level: float = 1.0,
) -> float:
    """Stationary mean of λ̂ = nβ E[ℓ(w_t; b_t) − ℓ(w*; b_t)] under SGHMC, exactly.

        λ̂ = ½ Σ_i nβ h_i Var δ_i,    Var δ = [σ² + ε (nβ)² C/(4 A)] / [a (1 − ε a/(4 (2 − A)))].

    The bias of the step halves as A → 0, and gradient noise counts 1/A times as much as under SGLD.

    Args:
        h: [d] Hessian eigenvalues, >= 0.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε > 0, below 4 (2 − A)/max a.
        friction: A in (0, 1].
        gradient_noise: [d] variances C_ii (or [d, d] covariance) of the gradient of one step's mean loss at w*, in the
            eigenbasis of the Hessian, independent from step to step; None for full-batch gradients.
        noise_level: σ >= 0.

    Returns:
        λ̂, dimensionless.

    Raises:
        ValueError: an argument out of range, or a step at or above the stability limit.
    """
    curved, a, thermal, step = _law(h, n_beta, localization, lr, friction, gradient_noise, noise_level)
    return _llc(curved, a, thermal, step, _fraction("friction", friction))


def sgnht_thermostat(
    h: ArrayLike,
    n_beta: float,
    localization: float = 0.0,
    lr: float = 1e-4,
    friction: float = 0.01,
    gradient_noise: ArrayLike | None = None,
) -> float:
    """The friction ζ at which SGNHT's thermostat comes to rest, for many coordinates.

    The thermostat holds the mean of Var m over the coordinates at ε/(2 − ζ), hence

        ζ = mean_i s_i / (1 − x_i(ζ)),    s = A + ε (nβ)² C/4,    x = ε a/(4 (2 − ζ)):

    the injected friction plus what carries away the heat of the gradient noise. ζ fluctuates about it by O(1/√d).

    Args:
        h: [d] Hessian eigenvalues, >= 0; coordinates with h = 0 count too.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε > 0.
        friction: A in (0, 1].
        gradient_noise: see `quadratic_llc_sghmc`.

    Returns:
        ζ in (0, 2).

    Raises:
        ValueError: an argument out of range, or so much gradient noise that no friction below 2 carries it away.
    """
    _, a, thermal, step = _law(h, n_beta, localization, lr, friction, gradient_noise, 1.0)
    low, high = 0.0, 2.0 - step * float(np.max(a)) / 4.0
    # the right side grows with ζ: the first crossing is the stable one, found from below
    for _ in range(10_000):
        x = step * a / (4.0 * (2.0 - low))
        following = float(np.mean(thermal / (1.0 - x)))
        if not following < high:
            raise ValueError(
                f"lr {lr!r} with this gradient noise brings more heat than a thermostat can carry away "
                "(use a smaller lr, or larger batches)"
            )
        if following - low <= 1e-14:
            break
        low = following
    return low


def quadratic_llc_sgnht(
    h: ArrayLike,
    n_beta: float,
    localization: float = 0.0,
    lr: float = 1e-4,
    friction: float = 0.01,
    gradient_noise: ArrayLike | None = None,
) -> float:
    """Stationary mean of λ̂ under SGNHT (`ops.langevin_step_`), for many coordinates and ζ at rest.

        λ̂ = ½ Σ_i nβ h_i s_i / [ζ a_i (1 − x_i)],    ζ of `sgnht_thermostat`.

    With equal a and C this is the λ̂ of the posterior itself, ½ Σ nβ h/a, at any step and any gradient noise; else the
    thermostat is right on average and cools coordinates with little gradient noise to warm the others.

    Args:
        h: [d] Hessian eigenvalues, >= 0.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε > 0.
        friction: A in (0, 1].
        gradient_noise: see `quadratic_llc_sghmc`.

    Returns:
        λ̂, dimensionless.

    Raises:
        ValueError: as `sgnht_thermostat`.
    """
    curved, a, thermal, step = _law(h, n_beta, localization, lr, friction, gradient_noise, 1.0)
    zeta = sgnht_thermostat(h, n_beta, localization, lr, friction, gradient_noise)
    return _llc(curved, a, thermal, step, zeta)


def _fraction(name: str, value: float) -> float:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{name} must be in (0, 1], got {value!r} (1 is SGLD)")
    return float(value)


def _law(
    h: ArrayLike,
    n_beta: float,
    localization: float,
    lr: float,
    friction: float,
    gradient_noise: ArrayLike | None,
    noise_level: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Checked nβ h, a, s and ε."""
    curved = n_beta_h(h, n_beta)
    a = curved + at_least_zero("localization", localization)
    noise = np.zeros_like(a) if gradient_noise is None else variances(gradient_noise, len(a))
    step, part = above_zero("lr", lr), _fraction("friction", friction)
    thermal = part * at_least_zero("noise_level", noise_level) ** 2 + step * n_beta**2 * noise / 4.0
    return curved, a, thermal, step


def _llc(
    curved: NDArray[np.float64], a: NDArray[np.float64], thermal: NDArray[np.float64], step: float, zeta: float
) -> float:
    """½ Σ nβ h s/[ζ a (1 − x)] over the directions in which the loss changes."""
    x = step * a / (4.0 * (2.0 - zeta))
    if np.max(x) >= 1.0:
        limit = 4.0 * (2.0 - zeta) / float(np.max(a))
        raise ValueError(f"lr must be < {limit:g} to be stable here, got {step!r}")
    seen = curved > 0
    return float(0.5 * np.sum((curved * thermal)[seen] / (zeta * a * (1.0 - x))[seen]))
