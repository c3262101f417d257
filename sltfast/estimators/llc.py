"""The local learning coefficient: λ̂ = nβ·(E[L(w)] − L(w*))."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.diagnostics import Reading, mean_estimate, suggested_steps, verdict
from sltfast.results.sampled_losses import InitLoss, SampledLosses, check_init_loss, sampled_chains, sampled_losses
from sltfast.results.samples import plain_settings, root_of, sampler_of_one
from sltfast.results.stopped import told

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.observables import ObservableSpec


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
    check_init_loss(init_loss)
    keywords = {"save_token_losses": False, "dataset_init_loss": init_loss == "dataset", **sampling}
    if init_loss != "init_batches":
        keywords["num_init_loss_batches"] = 0
    return keywords


def compute_llc(
    samples: xr.DataTree | xr.Dataset, *, include_burnin: bool = False, init_loss: InitLoss = "paired"
) -> xr.Dataset:
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
        ``init_loss_method``, the sampler's settings and, where chains were stopped, ``deaths``: the step, the loss and
        the coordinate farthest from w* of each. A chain whose loss blows up and stays finite is not stopped: the
        verdict calls it "diverged" where the last third of the trace is ten times beyond the first.

    Raises:
        ValueError: ``init_loss`` is unknown or was not recorded, fewer than one draw is there, or the samples are
            those of a sweep.
        AllChainsDied: no chain lived.

    Source: Lau et al. 2308.12108; errors: Vehtari et al. 1903.08008.
    """
    import xarray as xr

    check_init_loss(init_loss)
    tree = root_of(samples)
    sampler = sampler_of_one(tree, ": use sltfast.compute_sweep")
    n_beta, burnin = float(sampler["n_beta"]), int(sampler["num_burnin_steps"])
    losses = sampled_losses(tree, init_loss)
    loss = losses.trace
    chains = loss.shape[0]
    start = 0 if include_burnin else burnin
    death, alive, steps = sampled_chains(tree, loss, start)
    excess = losses.excess
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
    attrs = {"verdict": judged.word, "advice": judged.advice, "init_loss_method": losses.method, **plain_settings(tree)}
    died = told(tree.attrs.get("sltfast", {}).get("deaths", {}))
    if died:
        attrs["deaths"] = died
    return xr.Dataset(values, coords={"bound": ["lower", "upper"]}, attrs=attrs)


def _level_error(losses: SampledLosses, start: int, steps: int) -> float:
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
