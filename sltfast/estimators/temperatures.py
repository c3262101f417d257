"""The learning coefficient as the slope of the mean loss against the temperature."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sltfast.diagnostics import mean_estimate
from sltfast.errors import ChainDiverged
from sltfast.estimators.sweep import compute_sweep, sweep
from sltfast.results.sampled_losses import InitLoss
from sltfast.sampler.config import CELL_SETTINGS

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.observables import ObservableSpec


def llc_temperatures(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None = None,
    *,
    lr: float,
    n_betas: Sequence[float],
    localization: float = 0.0,
    loss_fn: LossFn | None = None,
    include_burnin: bool = False,
    init_loss: InitLoss = "paired",
    **sampling: Any,
) -> xr.Dataset:
    """Sample at several temperatures, all chains as one stack, and fit the slope of E[L] against 1/nβ.

    E_β[n·L] = n·L(w*) + λ/β + O(√(1/β)) as β → ∞, so that E_β[L] − L(w*) = a + λ·(1/nβ), and the slope is λ. It needs
    neither L(w*) nor that w* be the minimum: what is wrong with the level is in the intercept a. With localization, λ̂
    itself depends on nβ, and the slope is that of the localised posterior.

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        observables: as in ``sltfast.llc``, not evaluated: an LLC needs none.
        lr: step size ε > 0, the same at every temperature.
        n_betas: two or more inverse temperatures nβ > 0.
        localization: γ >= 0.
        loss_fn: see ``sltfast.sample``.
        include_burnin: see ``sltfast.compute_llc``.
        init_loss: see ``sltfast.compute_llc``; the slope does not depend on it.
        **sampling: every other keyword of ``sltfast.sample``; ``num_chains`` are those of each temperature.

    Returns:
        See ``sltfast.compute_llc_temperatures``.

    Raises:
        ValueError: fewer than two n_betas, one that is not above 0, several lr or localizations, or as
            ``sltfast.sample``.
        AllChainsDied: no chain of any temperature lived.

    Source: Murfet et al. 2010.11560; Watanabe, JMLR 14 (2013).
    """
    cold = _temperatures(n_betas)
    given: dict[str, Any] = {"lr": lr, "localization": localization, **sampling}
    for name in CELL_SETTINGS:
        if isinstance(given.get(name), Iterable):
            raise ValueError(f"{name} must be one number, the same at every temperature, got {given[name]!r}")
    swept = sweep(
        model,
        dataset,
        observables,
        n_beta=cold,
        loss_fn=loss_fn,
        include_burnin=include_burnin,
        init_loss=init_loss,
        **given,
    )
    return _fitted(swept, include_burnin=include_burnin)


def compute_llc_temperatures(
    samples: xr.DataTree, *, include_burnin: bool = False, init_loss: InitLoss = "paired"
) -> xr.Dataset:
    """The slope of E[L] against 1/nβ from the samples of several temperatures, and λ̂ at each.

    Weighted least squares of y_k = E[L]_k − L(w*) on x_k = 1/nβ_k with weights 1/SE(y_k)²:

        slope = Σ_k c_k·y_k,  c_k = W_k·(x_k − x̄_W)/Σ_j W_j·(x_j − x̄_W)².

    The chains of all temperatures share noise and batches, so y_k are not independent. The error of the slope is that
    of the mean of the trace Σ_k c_k·(ℓ_k(w_t; b_t) − ℓ(w*; b_t)), by autocorrelation and between chains, the larger,
    which counts what they share; the intercept's likewise. SE(y_k) is of the paired trace, whatever ``init_loss``.

    Args:
        samples: what ``sltfast.llc_temperatures`` wrote to its ``output_path``, read by ``sltfast.open``.
        include_burnin: see ``sltfast.compute_llc``.
        init_loss: see ``sltfast.compute_llc``.

    Returns:
        ``xr.Dataset`` with dimension n_beta, ascending: every variable of ``sltfast.compute_llc`` at each temperature;
        ``mean_excess`` and ``mean_excess_se``, y_k in nats; ``fitted`` (n_beta), whether the temperature is part of the
        fit: those with a chain that died are not; and scalars ``slope``, ``slope_se``, ``slope_rhat``, ``slope_ess``,
        ``intercept``, ``intercept_se`` (nats), NaN with a warning where fewer than two temperatures are left. attrs:
        the settings that all share.

    Raises:
        ValueError: the samples are not those of several temperatures of one setting.
        AllChainsDied: no chain of any temperature lived.

    Source: Murfet et al. 2010.11560; Watanabe, JMLR 14 (2013).
    """
    return _fitted(
        compute_sweep(samples, include_burnin=include_burnin, init_loss=init_loss), include_burnin=include_burnin
    )


def _temperatures(n_betas: Sequence[float]) -> list[float]:
    values = np.asarray(n_betas, dtype=np.float64)
    if values.ndim != 1 or len(set(values.tolist())) < 2:
        raise ValueError(f"n_betas must be two or more different inverse temperatures, got {n_betas!r}")
    if not bool((np.isfinite(values) & (values > 0)).all()):
        raise ValueError(f"n_betas must be finite and > 0 (the fit is against 1/nβ), got {n_betas!r}")
    return [float(value) for value in values]


def _fitted(swept: xr.Dataset, *, include_burnin: bool) -> xr.Dataset:
    others = {str(name): swept.sizes[name] for name in swept["llc_mean"].dims if name != "n_beta"}
    if any(size > 1 for size in others.values()):
        raise ValueError(f"the samples differ in more than n_beta: {others} values: use sltfast.compute_sweep")
    shared = {name: swept[name].item() for name in others}
    result = swept.squeeze(list(others), drop=True).drop_vars("recommended")
    result.attrs = {k: v for k, v in swept.attrs.items() if not k.startswith("recommend")} | shared
    n_beta = _temperatures(result["n_beta"].values.tolist())
    for name, source in (("mean_excess", "llc_mean"), ("mean_excess_se", "llc_se")):
        result[name] = result[source] / result["n_beta"]
        result[name].attrs["units"] = "nats"
    whole = (result["chains_alive"] == result.sizes["chain"]).values
    result["fitted"] = ("n_beta", whole)
    start = 0 if include_burnin else int(result.attrs["num_burnin_steps"])
    line = _no_line(whole)
    if whole.sum() >= 2:
        kept = result.isel(n_beta=whole)
        traces = kept["excess_trace"].transpose("n_beta", "chain", "step").values[..., start:]
        line = _line(1 / np.array(n_beta)[whole], kept["mean_excess"].values, traces)
    for name, value in line._asdict().items():
        result[name] = value
    return result


class _Line(NamedTuple):
    slope: float
    slope_se: float
    slope_rhat: float
    slope_ess: float
    intercept: float
    intercept_se: float


def _no_line(whole: np.ndarray) -> _Line:
    if whole.sum() < 2:
        warnings.warn(
            f"only {int(whole.sum())} of {len(whole)} temperatures kept all their chains: no slope can be fitted; "
            "lower lr, or leave out the largest n_betas",
            ChainDiverged,
            stacklevel=4,
        )
    return _Line(*[math.nan] * 6)


def _line(x: np.ndarray, y: np.ndarray, traces: np.ndarray) -> _Line:
    """The line through y [K] at x [K]; its errors from traces [K, chains, steps] whose means are y, up to a level."""
    traces = traces[..., np.isfinite(traces).all(axis=(0, 1))]  # of an interrupted run what all have
    error = np.array([mean_estimate(trace).se for trace in traces])
    weight = error**-2 if (np.isfinite(error) & (error > 0)).all() else np.ones_like(x)
    weight = weight / weight.sum()
    centre = float(weight @ x)
    of_slope = weight * (x - centre) / float(weight @ (x - centre) ** 2)
    of_intercept = weight - centre * of_slope
    slope, intercept = (mean_estimate(np.tensordot(c, traces, axes=1)) for c in (of_slope, of_intercept))
    return _Line(float(of_slope @ y), slope.se, slope.rhat, slope.ess, float(of_intercept @ y), intercept.se)
