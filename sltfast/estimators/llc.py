"""The local learning coefficient: λ̂ = nβ·(E[L(w)] − L(w*))."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from sltfast.diagnostics import Reading, mean_estimate, suggested_steps, verdict
from sltfast.errors import AllChainsDied

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.observables import ObservableSpec

InitLoss = Literal["paired", "dataset", "init_batches"]


def llc(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None = None,
    *,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    include_burnin: bool = False,
    init_loss: InitLoss = "paired",
    **sampling: Any,
) -> xr.Dataset:
    """Sample around w* and estimate the local learning coefficient.

    λ̂(w*) = nβ·(E_β[L(w)] − L(w*)), the expectation over p(w) ∝ exp(−nβ·L(w) − γ/2·|w − w*|²).

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        observables: taken for devinterp's sake and not evaluated: an LLC needs none.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ (see ``default_nbeta``).
        loss_fn: ``loss_fn(model, batch) -> losses per item``; not needed for language models.
        include_burnin: average over burn-in too, as devinterp does.
        init_loss: see ``compute_llc``.
        **sampling: every other keyword of ``sltfast.sample``.

    Returns:
        See ``compute_llc``.

    Raises:
        As ``sltfast.sample``.

    Source: Lau et al. 2308.12108.
    """
    from sltfast.sampling import sample

    if observables is not None and not isinstance(observables, Mapping):
        raise TypeError(f"observables must be a mapping from name to data set, got {type(observables).__name__}")
    samples = sample(model, dataset, lr=lr, n_beta=n_beta, loss_fn=loss_fn, **needed_for(init_loss, sampling))
    return compute_llc(samples, include_burnin=include_burnin, init_loss=init_loss)


def needed_for(init_loss: InitLoss, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of ``sltfast.sample`` that record no more than an LLC needs, where the caller does not ask for it.

    Raises:
        ValueError: ``init_loss`` is unknown.
    """
    _check_init_loss(init_loss)
    keywords = {"save_token_losses": False, "dataset_init_loss": init_loss == "dataset", **sampling}
    if init_loss != "init_batches":
        keywords["num_init_loss_batches"] = 0
    return keywords


def compute_llc(samples: xr.DataTree, *, include_burnin: bool = False, init_loss: InitLoss = "paired") -> xr.Dataset:
    """The local learning coefficient of recorded samples, with error bars and a verdict.

    λ̂_c = nβ·mean_t[ℓ(w_t; b_t) − ℓ(w*; b_t)] for each chain c; λ̂ is the mean over the chains that lived. Pairing on
    the same batch b_t takes the batch's own level out of the trace, so its errors and R̂ are those of the chain.
    A negative λ̂ is reported as it is.

    Args:
        samples: from ``sltfast.sample`` or ``sltfast.open`` (also interrupted), or devinterp's tree (no paired losses:
            its ``init_loss`` is used).
        include_burnin: average over burn-in too, as devinterp does.
        init_loss: L(w*) as "paired" differences; over the whole "dataset" (sampled with ``dataset_init_loss=True``);
            or the mean of the first "init_batches", as devinterp does.

    Returns:
        ``xr.Dataset``: ``llc_mean``, ``llc_std`` (over chains, ddof 0 as in devinterp), ``llc_per_chain`` (chain; NaN
        where it died), ``llc_se`` = max(``llc_mcse``, between-chain), ``llc_mcse``, ``llc_ci`` (bound: λ̂ ∓ 1.96·SE),
        ``rhat``, ``ess``, ``tau`` (autocorrelation time in steps), ``suggested_steps_bw_draws`` (at which draws are
        nearly independent), ``drift`` (the last third less the first, in standard errors), ``loss_trace``,
        ``excess_trace`` (chain, step; nats per item, burn-in included), ``init_loss``, ``alive``, ``death_step``. λ̂ is
        dimensionless. R̂, ESS, drift and the verdict are of the paired trace, whatever ``init_loss``; SE then joins the
        error of the level. attrs: ``verdict`` ("converged", "drifting" or "diverged"), ``advice``,
        ``init_loss_method`` and the sampler's settings.

    Raises:
        ValueError: ``init_loss`` is unknown or was not recorded, fewer than one draw is there, or the samples are
            those of a sweep.
        AllChainsDied: no chain lived.

    Source: Lau et al. 2308.12108; errors: Vehtari et al. 1903.08008.
    """
    import xarray as xr

    _check_init_loss(init_loss)
    tree: Any = samples.dataset if hasattr(samples, "dataset") else samples
    if "metadata" not in getattr(tree, "attrs", {}):
        raise ValueError("samples must be a tree from sltfast.sample, sltfast.open or devinterp: it has no metadata")
    sampler = tree.attrs["metadata"]["config"]["sampler"]
    if sampler.get("cells"):
        raise ValueError(f"samples hold the {len(sampler['cells'])} cells of a sweep: use sltfast.compute_sweep")
    n_beta, burnin = float(sampler["n_beta"]), int(sampler["num_burnin_steps"])
    losses = _losses(tree, init_loss)
    loss = losses.trace
    chains = loss.shape[0]
    death = tree["death_step"].values if "death_step" in tree else _deaths(loss)
    alive, steps = _recorded(loss, death, completed=tree.attrs.get("completed") == 1)
    start = 0 if include_burnin else burnin
    if steps <= start:
        raise ValueError(f"{steps} steps were recorded, all of them burn-in ({burnin}): nothing is left to average")
    excess = loss - losses.at_init
    kept = excess[alive, start:steps]
    estimate = mean_estimate(kept)
    # λ̂ against another level is the paired one plus the difference of levels, whose error joins in
    paired = losses.method == "paired"
    offset = np.zeros(len(kept)) if paired else losses.at_init[alive, start:steps].mean(axis=1) - losses.level
    per_chain = np.full(chains, math.nan)
    per_chain[alive] = n_beta * (kept.mean(axis=1) + offset)
    mean = n_beta * (estimate.mean + float(offset.mean()))
    error = n_beta * math.hypot(estimate.se, _level_error(losses, start, steps))
    judged_part = excess[alive, burnin:steps] if steps > burnin else kept
    judged = verdict(
        judged_part,
        dead=int((death >= 0).sum()),
        reading=Reading(burnin=burnin, between=int(sampler.get("num_steps_bw_draws", 1))),
        estimate=estimate if judged_part.shape == kept.shape else None,
    )
    if n_beta == 0.0:
        judged = judged._replace(advice=f"λ̂ is 0 by definition at n_beta = 0; {judged.advice}")
    values = {
        "llc_mean": mean,
        "llc_std": float(per_chain[alive].std()),
        "llc_per_chain": ("chain", per_chain),
        "llc_scalar": mean,
        "llc_se": error,
        "llc_mcse": n_beta * estimate.mcse,
        "llc_ci": ("bound", np.array([mean - 1.96 * error, mean + 1.96 * error])),
        "rhat": estimate.rhat,
        "ess": estimate.ess,
        "tau": estimate.tau,
        "suggested_steps_bw_draws": float(suggested_steps(estimate.tau)),
        "drift": judged.drift,
        "loss_trace": (("chain", "step"), loss),
        "excess_trace": (("chain", "step"), excess),
        "init_loss": losses.level,
        "alive": ("chain", alive),
        "death_step": ("chain", death),
    }
    attrs = {"verdict": judged.word, "advice": judged.advice, "init_loss_method": losses.method, **_settings(sampler)}
    return xr.Dataset(values, coords={"bound": ["lower", "upper"]}, attrs=attrs)


def _check_init_loss(init_loss: str) -> None:
    if init_loss not in get_args(InitLoss):
        raise ValueError(f"init_loss must be one of {get_args(InitLoss)}, got {init_loss!r}")


class _Losses(NamedTuple):
    """Mini-batch losses [chain, step], what is subtracted from each, the level L(w*), and how it was had."""

    trace: np.ndarray
    at_init: np.ndarray
    level: float
    method: str
    batches: int = 0  # behind the level, where it is a mean over some


def _losses(tree: Any, init_loss: InitLoss) -> _Losses:
    if "loss" not in tree:
        return _unpaired(tree, init_loss)
    trace = np.asarray(tree["loss"].values, dtype=np.float64)
    paired = np.asarray(tree["init_loss_trace"].values, dtype=np.float64)
    if init_loss == "dataset":
        if "init_loss_dataset" not in tree:
            raise ValueError("init_loss='dataset' needs samples taken with dataset_init_loss=True")
        return _Losses(trace, paired, float(tree["init_loss_dataset"]), init_loss)
    if init_loss == "init_batches":
        if "init_loss_mean" not in tree:
            raise ValueError("init_loss='init_batches' needs samples taken with num_init_loss_batches > 0")
        sampler = tree.attrs["metadata"]["config"]["sampler"]
        level = float(tree["init_loss_mean"].mean())
        return _Losses(trace, paired, level, init_loss, int(sampler["num_init_loss_batches"]))
    return _Losses(trace, paired, float(paired.mean()), init_loss)


def _unpaired(tree: Any, init_loss: InitLoss) -> _Losses:
    """A tree of devinterp's: its initial loss is all there is to subtract."""
    if init_loss == "dataset":
        raise ValueError("init_loss='dataset' needs samples taken by sltfast with dataset_init_loss=True")
    if not {"sampling_loss_micro", "init_loss"} <= set(tree.data_vars):
        raise ValueError(f"the samples hold no losses of the sampled batches (variables: {sorted(tree.data_vars)})")
    trace = tree["sampling_loss_micro"].mean(["batch_sampling", "token_pos"], dtype=np.float64).values
    level = float(tree["init_loss"].astype(np.float64).mean())
    return _Losses(trace, np.full_like(trace, level), level, "init_batches")


def _level_error(losses: _Losses, start: int, steps: int) -> float:
    """Standard error of mean_t ℓ(w*; b_t) − L(w*): 0 where it is paired away, or where the same batches say both.

    Chains that share their batches say it once, not C times.
    """
    if losses.method == "paired" or np.ptp(losses.at_init) == 0:
        return 0.0
    levels = losses.at_init[:, start:steps]
    shared = not np.ptp(losses.at_init, axis=0).any()
    error = mean_estimate(levels[:1] if shared else levels).mcse
    if losses.batches:
        error = math.hypot(error, float(levels.std()) / math.sqrt(losses.batches))
    return error


def _deaths(loss: np.ndarray) -> np.ndarray:
    """First step without a finite loss, -1 where there is none."""
    gone = ~np.isfinite(loss)
    return np.where(gone.any(axis=1), gone.argmax(axis=1), -1)


def _recorded(loss: np.ndarray, death: np.ndarray, *, completed: bool) -> tuple[np.ndarray, int]:
    """The chains to average and how many of their steps: whole chains, or of an interrupted run what all have."""
    counts = np.isfinite(loss).sum(axis=1)
    living = (death < 0) & ((counts == loss.shape[1]) | (not completed)) & (counts > 0)
    whole = living & (counts == loss.shape[1])
    if whole.any():
        if not whole[living].all():
            _warn_partial(whole)
        living = whole
    elif not living.any():
        raise AllChainsDied("no chain lived: there is nothing to average (see death_step)", samples=None)
    elif not completed:
        _warn_partial(living)
    return living, int(counts[living].min())


def _warn_partial(used: np.ndarray) -> None:
    warnings.warn(
        f"the run was interrupted: λ̂ is from {int(used.sum())} of {len(used)} chains",
        UserWarning,
        stacklevel=4,
    )


def _settings(sampler: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sampler.items() if isinstance(value, str | int | float)}
