"""The local learning coefficient, λ̂ = nβ·(mean loss along the chain − init loss)."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from sltfast.compat.defects import warn_once
from sltfast.compat.devinterp.slt.lm_loss import LossFn
from sltfast.compat.devinterp.slt.sampling import ObservableSpec, sample
from sltfast.compat.devinterp.slt.weight_restrictions import ParamMasks
from sltfast.compat.exact_run.estimates import float32_llc
from sltfast.compat.exactness import wants_exact
from sltfast.compat.fast_run.job import Job
from sltfast.compat.fast_run.sampling import exactly, in_memory, sampled
from sltfast.isolation import alone

if TYPE_CHECKING:
    import xarray as xr


def llc(
    model: nn.Module,
    dataset: Any,
    observables: dict[str, ObservableSpec],
    *,
    lr: float,
    n_beta: float,
    param_masks: ParamMasks | None = None,
    loss_fn: LossFn | None = None,
    **kwargs: Any,
) -> xr.Dataset:
    """Sample, and estimate the LLC.

    Args:
        model: as ``sample``.
        dataset: likewise.
        observables: checked; evaluated only where ``output_path`` keeps them, for no LLC depends on them.
        lr: step size ε.
        n_beta: inverse temperature nβ.
        param_masks: as ``sample``.
        loss_fn: likewise.
        **kwargs: every other keyword of ``sample``.

    Returns:
        See ``compute_llc``.

    Raises:
        As ``sample``.

    Source: Lau et al. 2308.12108.
    """
    bound = inspect.signature(sample).bind(
        model, dataset, observables, lr=lr, n_beta=n_beta, param_masks=param_masks, loss_fn=loss_fn, **kwargs
    )
    bound.apply_defaults()
    keywords = bound.arguments
    if keywords["output_path"] is not None:
        return compute_llc(sampled(keywords), exact=keywords["exact"])
    job = Job.of(keywords)
    if exactly(job, keywords, param_masks):
        return compute_llc(sampled(keywords), exact=keywords["exact"])
    root = in_memory(job.without_observables(), {"": param_masks}, token_losses=False)[""].dataset
    return _llc(root["loss"].values, root["init_loss"].values, job.config.n_beta, job.config.num_burnin_steps)


def compute_llc(samples: xr.DataTree, *, exact: bool | None = None) -> xr.Dataset:
    """The LLC of recorded samples, over every step, the burn-in included.

    λ̂_c = nβ·(mean of ``sampling_loss_micro`` of chain c − mean of ``init_loss``). Steps that a dead chain did not take
    are left out of its mean, with a warning.

    Args:
        samples: a tree of ``sample``, or devinterp's.
        exact: sum in float32, in devinterp's order; None: whether the call stands within ``exact()``.

    Returns:
        ``llc_mean``, ``llc_std`` (over chains, ddof 0), ``llc_per_chain`` (chain), ``loss_trace`` (chain, step), all
        float32; ``llc_scalar``, nβ times the one mean of everything, and ``init_loss``, float64.

    Source: Lau et al. 2308.12108; devinterp 2.0.1.
    """
    if wants_exact(exact):
        return float32_llc(samples)
    root = samples.dataset
    settings = root.attrs["metadata"]["config"]["sampler"]
    losses = root["sampling_loss_micro"].transpose("chain", "step", ...)
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of steps that hold nothing but NaN
        trace = [np.nanmean(losses[chain].values, axis=(1, 2), dtype=np.float64) for chain in range(len(losses))]
    burnin = int(settings.get("num_burnin_steps", 0))
    return _llc(np.stack(trace), root["init_loss"].values, float(settings["n_beta"]), burnin)


def _llc(trace: np.ndarray, init_loss: np.ndarray, n_beta: float, burnin: int) -> xr.Dataset:
    """From the mean loss of every step, float64 [chains, steps], NaN where a chain was dead."""
    import xarray as xr

    if burnin:
        warn_once("burn-in in the LLC", stacklevel=4)
    if np.isnan(trace).any():
        warn_once("dead chains in the LLC", stacklevel=4)
    level = float(init_loss.mean(dtype=np.float64))
    counts = np.sum(~np.isnan(trace), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_chain = n_beta * (np.nansum(trace, axis=1) / counts - level)
        everything = n_beta * (np.nansum(trace) / counts.sum() - level)
    alive = per_chain[~np.isnan(per_chain)]
    mean, deviation = (float(alive.mean()), float(alive.std())) if len(alive) else (np.nan, np.nan)
    return xr.Dataset(
        {
            "llc_mean": ((), np.float32(mean)),
            "llc_std": ((), np.float32(deviation)),
            "llc_per_chain": ("chain", per_chain.astype(np.float32)),
            "llc_scalar": everything,
            "loss_trace": (("chain", "step"), trace.astype(np.float32)),
            "init_loss": level,
        }
    )
