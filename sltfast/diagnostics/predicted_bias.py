"""What localisation and the step size do to λ̂, told ahead from the spectrum of the Hessian at w*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sltfast.diagnostics.curvature import trace_of
from sltfast.theory.checks import above_zero, at_least_zero

if TYPE_CHECKING:
    import xarray as xr

BIAS = 0.05  # of λ̂: the step's share that a recommended lr leaves
FLAT = 1e-6  # of the largest eigenvalue: what is smaller counts as 0 in the rank
HALVINGS = 60  # of the interval that the recommended lr is sought in


def predicted_bias(
    spectrum: xr.Dataset,
    *,
    lr: float,
    n_beta: float,
    localization: float = 0.0,
    llc_weight_decay: float = 0.0,
) -> xr.Dataset:
    """λ̂ as it would be were L quadratic around w*, and how much of it γ and ε have put in or taken out.

    With the eigenvalues h of H and a = nβ·h + γ + λ:

        λ̂_0 = ½·#{h > 0},   λ̂_γ = ½·Σ nβh/a,   λ̂_ε = ½·Σ nβh/(a·(1 − εa/4)),

    the sums by the quadrature of ``curvature``. λ̂_γ − λ̂_0 is the localisation bias and λ̂_ε − λ̂_γ that of the step.
    A singular model is not quadratic where h ≈ 0: there λ̂_0 is an upper bound of what the loss itself would give at
    γ = 0, and the localisation bias one of its size; λ̂_γ, λ̂_ε and their difference hold as far as chains stay where L
    is quadratic. Full batches are assumed (for the noise of others see ``per_sample.noise_scale``).

    A direction with a <= 0 (h < 0 and too little γ) has no stationary law: the chain leaves w* along it. They are
    counted in ``runaway`` and left out of the sums; those with h < 0 < a take from λ̂.

    Args:
        spectrum: what ``curvature`` returns.
        lr: ε > 0.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        llc_weight_decay: λ >= 0; taken as curvature only, not for its pull towards 0.

    Returns:
        ``xr.Dataset``: ``llc`` = λ̂_ε (NaN at and above the stability limit), ``llc_continuum`` = λ̂_γ,
        ``llc_unlocalized`` = λ̂_0, ``localization_bias``, ``discretization_bias``, each with its ``…_se`` over probes;
        ``stability_limit``, 4/max a, beyond which a step blows up, from the largest eigenvalue and its residual;
        ``recommended_lr``, the largest ε up to half of it whose bias is at most 5 % of λ̂_γ; ``runaway``, directions
        with a <= 0; ``least_localization``, the γ that would hold all of them (0 where there are none). attrs: the
        settings, ``advice``.

    Raises:
        ValueError: a spectrum that is none, or a negative or infinite number.

    Source: the stationary variance of SGLD on a quadratic, as ``sltfast.theory.quadratic_llc_sgld`` has it.
    """
    if not {"nodes", "weights", "residuals", "largest"} <= set(getattr(spectrum, "data_vars", ())):
        raise ValueError("spectrum must be what sltfast.diagnostics.curvature returns")
    step, beta = above_zero("lr", lr), at_least_zero("n_beta", n_beta)
    gamma, decay = at_least_zero("localization", localization), at_least_zero("llc_weight_decay", llc_weight_decay)
    nodes = spectrum["nodes"].values
    held, curved = gamma + decay, beta * nodes
    a = curved + held
    stays = a > 0
    safe = np.where(stays, a, 1.0)
    largest = float(spectrum["largest"]) + float(spectrum["largest_residual"])
    stiffest = max(beta * largest + held, float(np.nanmax(a)))
    limit = 4 / stiffest if stiffest > 0 else math.inf
    continuum = np.where(stays, curved / safe / 2, 0.0)
    rank = np.where(nodes > FLAT * float(spectrum["largest"]), 0.5 if beta else 0.0, 0.0)

    def added(lr: float) -> np.ndarray:
        """What the step adds at every node: ½·nβh/a·(εa/4)/(1 − εa/4)."""
        part = lr * safe / 4
        return continuum * part / (1 - part)

    stable = step < limit
    discretization = added(step) if stable else np.full_like(nodes, np.nan)
    found = {
        "llc": continuum + discretization,
        "llc_continuum": continuum,
        "llc_unlocalized": rank,
        "localization_bias": continuum - rank,
        "discretization_bias": discretization,
    }
    values: dict[str, float] = {}
    for name, at_nodes in found.items():
        values[name], values[f"{name}_se"] = trace_of(spectrum, at_nodes)
    aim = BIAS * abs(values["llc_continuum"])
    recommended = _largest_step(lambda lr: abs(trace_of(spectrum, added(lr))[0]) <= aim, limit)
    values |= {"stability_limit": limit, "recommended_lr": recommended}
    values["runaway"] = trace_of(spectrum, np.where(stays, 0.0, 1.0))[0]
    lowest = float(np.nanmin(a))
    values["least_localization"] = gamma - lowest if lowest <= 0 else 0.0
    return _told(values, {"lr": step, "n_beta": beta, "localization": gamma, "llc_weight_decay": decay})


def _largest_step(fine: Callable[[float], bool], limit: float) -> float:
    """The largest ε that is fine, by bisection, up to half the limit: beyond it steps overshoot. Inf without one."""
    if math.isinf(limit):
        return limit
    low, high = 0.0, limit / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fine(middle) else (low, middle)
    return low


def _told(values: dict[str, float], settings: dict[str, float]) -> xr.Dataset:
    import xarray as xr

    said = []
    if values["runaway"] > 0:
        said.append(
            f"w* is no minimum along {values['runaway']:.3g} directions that localization {settings['localization']:g} "
            f"does not hold: raise it above {values['least_localization']:.3g}, or train further"
        )
    if settings["lr"] >= values["stability_limit"]:
        said.append(
            f"lr {settings['lr']:g} blows up along the stiffest direction (limit {values['stability_limit']:.3g}): "
            f"lower it to {values['recommended_lr']:.2g}"
        )
    elif settings["lr"] > values["recommended_lr"]:
        said.append(
            f"the step adds {values['discretization_bias']:.3g} to λ̂ ({values['llc_continuum']:.3g} without): lower lr "
            f"to {values['recommended_lr']:.2g}"
        )
    return xr.Dataset(values, attrs={**settings, "advice": "; ".join(said) or "the step is small enough"})
