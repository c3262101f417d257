"""Every trace of a run judged: the sampled loss and each observable's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sltfast.diagnostics.autocorrelation import suggested_steps
from sltfast.diagnostics.mean import MeanEstimate
from sltfast.diagnostics.trace import trace_diagnostics
from sltfast.diagnostics.verdict import Reading, verdict
from sltfast.results.sampled_losses import sampled_chains, sampled_losses
from sltfast.results.samples import root_of, sampler_of_one

if TYPE_CHECKING:
    import xarray as xr

SAMPLED = "sampled loss"  # no observable can have this name: theirs become names of variables


class Trace(NamedTuple):
    """Of one quantity, [living chains, entries] after burn-in, how it is read, and whether its level at w* is known."""

    name: str
    values: np.ndarray
    reading: Reading
    from_init: bool = True


def diagnose(samples: xr.DataTree) -> xr.Dataset:
    """R̂, effective draws, autocorrelation, errors, signal-to-noise and drift of everything that a run recorded.

    The sampled loss is the paired ℓ(w_t; b_t) − ℓ(w*; b_t) at every step after burn-in, as in ``compute_llc``; an
    observable's is the mean loss of its items at every draw, less the same at w*. Chains that died are left out.

    Args:
        samples: from ``sltfast.sample``, ``sltfast.open`` or devinterp (whose observables have no level at w*: their
            mean is then the loss itself, and its signal-to-noise NaN).

    Returns:
        ``xr.Dataset`` over ``observable`` ("sampled loss" first): ``mean`` and ``sd`` (nats), ``se`` = max(``mcse``,
        between chains), ``rhat``, ``ess`` (of the mean), ``ess_bulk``, ``ess_tail``, ``tau`` and ``tau_se``
        (integrated autocorrelation time, in steps), ``suggested_steps_bw_draws`` (at which draws are nearly
        independent), ``signal_to_noise`` = |mean|/se, ``drift`` (the last third less the first, in standard errors),
        ``entries`` (steps or draws of a chain), ``verdict`` and ``advice``. With ``save_metrics`` also, over
        ``metric``: ``metric_mean`` and ``metric_sd`` of the nine norms and dot products of a step, after burn-in.
        attrs: ``chains`` used, ``chains_died``, ``verdict`` (the worst) and ``advice`` (its).

    Raises:
        ValueError, AllChainsDied: as ``sltfast.compute_llc``.

    Source: Vehtari et al. 1903.08008.
    """
    import xarray as xr

    tree = root_of(samples)
    alive, dead, traces = _judged(tree)
    rows = [_row(trace, dead) for trace in traces]
    numbers = {name: ("observable", np.array([row[name] for row in rows], np.float64)) for name in _NUMBERS}
    words = {name: ("observable", np.array([row[name] for row in rows], object)) for name in ("verdict", "advice")}
    worst = max(rows, key=lambda row: _BADNESS.index(row["verdict"]))
    result = xr.Dataset(
        {**numbers, "entries": ("observable", [trace.values.shape[1] for trace in traces]), **words},
        coords={"observable": [trace.name for trace in traces]},
        attrs={
            "chains": int(alive.sum()),
            "chains_died": dead,
            "verdict": worst["verdict"],
            "advice": worst["advice"],
        },
    )
    metrics = _metrics(tree, alive, traces[0].reading.burnin)
    return result if metrics is None else result.merge(metrics)


_NUMBERS = (
    "mean", "sd", "se", "mcse", "rhat", "ess", "ess_bulk", "ess_tail", "tau", "tau_se", "suggested_steps_bw_draws",
    "signal_to_noise", "drift",
)  # fmt: skip
_BADNESS = ("converged", "drifting", "diverged")


def traces_of(samples: xr.DataTree) -> list[Trace]:
    """The sampled loss, then every observable of a run: its living chains after burn-in.

    Raises:
        ValueError, AllChainsDied: as ``sltfast.compute_llc``.
    """
    return _judged(root_of(samples))[2]


def _judged(tree: Any) -> tuple[np.ndarray, int, list[Trace]]:
    """Which chains live [chain], how many died, and the traces of the living."""
    sampler = sampler_of_one(tree, ": judge one run at a time, as sltfast.compute_sweep does")
    burnin, between = int(sampler["num_burnin_steps"]), int(sampler.get("num_steps_bw_draws", 1))
    losses = sampled_losses(tree)
    chains = sampled_chains(tree, losses.trace, burnin)
    traces = _traces(tree, losses.excess[chains.alive], chains.alive, burnin, between)
    return chains.alive, int((chains.death >= 0).sum()), traces


def _traces(tree: Any, excess: np.ndarray, alive: np.ndarray, burnin: int, between: int) -> list[Trace]:
    found = [Trace(SAMPLED, _recorded(excess[:, burnin:]), Reading(burnin, 1, between))]
    for name in observables_of(tree):
        values = mean_losses(tree, name)[alive]
        level = f"init_mean_loss_{name}"
        if level in tree:
            values = values - float(tree[level])
        values = _recorded(values)
        if values.shape[1]:
            found.append(Trace(name, values, Reading(burnin, between, between, sampled=False), level in tree))
    return found


def observables_of(tree: Any) -> list[str]:
    """Names of the observables of a run's root data set, in its order."""
    prefixes = ("mean_loss_", "loss_")
    named = [str(name) for name in tree.data_vars if str(name).startswith(prefixes) and "draw" in tree[name].dims]
    return list(dict.fromkeys(name.removeprefix("mean_").removeprefix("loss_") for name in named))


def mean_losses(tree: Any, observable: str) -> np.ndarray:
    """[chain, draw] float64 mean loss of an observable's items at each draw; padding does not count.

    Raises:
        ValueError: the samples have no such observable.
    """
    if f"mean_loss_{observable}" in tree:
        return np.asarray(tree[f"mean_loss_{observable}"].values, dtype=np.float64)
    if f"loss_{observable}" not in tree:
        raise ValueError(f"the samples have no observable {observable!r} (they have {observables_of(tree)})")
    losses = tree[f"loss_{observable}"]
    items = [dim for dim in losses.dims if dim not in ("chain", "draw")]
    mean = losses.mean(items, skipna=True, dtype=np.float64)
    return np.asarray(mean.transpose("chain", "draw").values)


def _recorded(values: np.ndarray) -> np.ndarray:
    """The entries that every chain has: an interrupted run ends before the last."""
    gone = ~np.isfinite(values).all(axis=0)
    return values[:, : int(gone.argmax())] if gone.any() else values


def _row(trace: Trace, dead: int) -> dict[str, Any]:
    values, reading = trace.values, trace.reading
    found = trace_diagnostics(values)
    estimate = MeanEstimate(*(float(getattr(found, name)) for name in MeanEstimate._fields))
    judged = verdict(values, dead=dead, reading=reading, estimate=estimate)
    row: dict[str, Any] = {name: float(getattr(found, name)) for name in _NUMBERS if hasattr(found, name)}
    row["tau"], row["tau_se"] = row["tau"] * reading.spacing, row["tau_se"] * reading.spacing
    row["suggested_steps_bw_draws"] = float(suggested_steps(estimate.tau, reading.spacing))
    row["signal_to_noise"] = float(found.signal_to_noise) if trace.from_init else math.nan
    return row | {"drift": judged.drift, "verdict": judged.word, "advice": judged.advice}


def _metrics(tree: Any, alive: np.ndarray, burnin: int) -> xr.Dataset | None:
    """Means over living chains and steps after burn-in of what ``save_metrics`` recorded; None where it did not."""
    import xarray as xr

    names: Sequence[str] = [str(name) for name in tree.data_vars if str(name).startswith("metrics_")]
    if not names:
        return None
    values = np.stack([np.asarray(tree[name].values, np.float64)[alive, burnin:] for name in names])
    kept = values[:, :, np.isfinite(values).all(axis=(0, 1))]
    if not kept.size:
        return None
    moments = {"metric_mean": kept.mean(axis=(1, 2)), "metric_sd": kept.std(axis=(1, 2))}
    return xr.Dataset(
        {name: ("metric", value) for name, value in moments.items()},
        coords={"metric": [name.removeprefix("metrics_") for name in names]},
    )
