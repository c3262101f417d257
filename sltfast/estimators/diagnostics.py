"""Error bars and convergence of a mean over chains, and what to do when it has not converged."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np

RHAT_LIMIT = 1.1
RUNAWAY = 10.0  # mean of the last third over the largest value in the first: diffusion makes it 2.5
DRIFT_Z = 3.0  # standard errors between the first and the last third of the trace
DRIFT_SHARE = 0.1  # and this share of the mean: a difference that matters
FEWEST_STEPS = 12  # in which a first and a last third can be told apart
FEW_EFFECTIVE_DRAWS = 100.0


class MeanEstimate(NamedTuple):
    """A mean over chains and draws with its errors.

    mcse: autocorrelation-based Monte Carlo standard error of the pooled mean.
    between: standard deviation of the chains' means over √chains (NaN for one chain).
    se: the larger of the two.  rhat: rank-normalised split R̂ (NaN for one chain).  ess: effective draws of the mean.
    """

    mean: float
    se: float
    mcse: float
    between: float
    rhat: float
    ess: float


def mean_estimate(trace: np.ndarray) -> MeanEstimate:
    """Mean, standard errors, R̂ and ESS of a trace [chains, draws] (Vehtari et al. 1903.08008, through arviz-stats).

    Fewer than 4 draws leave all but the mean NaN. Chains that are copies of each other have no R̂.

    Raises:
        ValueError: not two-dimensional, empty, or with values that are not finite.
    """
    if trace.ndim != 2 or trace.size == 0:
        raise ValueError(f"a trace must have shape [chains, draws], got {trace.shape}")
    if not np.isfinite(trace).all():
        raise ValueError("a trace must be finite: exclude the chains that diverged")
    chains, draws = trace.shape
    mean = float(trace.mean())
    mcse = between = rhat = ess = math.nan
    if draws >= 4:
        from arviz_stats.base import array_stats

        axes = {"chain_axis": 0, "draw_axis": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a constant trace divides 0 by 0 and has R̂ NaN
            ess = float(array_stats.ess(trace, method="mean", **axes))
            mcse = _mcse(trace)
            if chains > 1:
                between = float(trace.mean(axis=1).std(ddof=1) / math.sqrt(chains))
            if chains > 1 and np.ptp(trace, axis=0).any():
                rhat = float(array_stats.rhat(trace, **axes))
    errors = [error for error in (mcse, between) if not math.isnan(error)]
    return MeanEstimate(mean, max(errors, default=math.nan), mcse, between, rhat, ess)


def _mcse(trace: np.ndarray) -> float:
    from arviz_stats.base import array_stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # as above
        return float(array_stats.mcse(trace, method="mean", chain_axis=0, draw_axis=1))


class Verdict(NamedTuple):
    """``word`` is "converged", "drifting" or "diverged"; ``advice`` names the setting to change.

    ``drift``: the last third's mean less the first's, in standard errors of the difference (NaN for too few steps).
    """

    word: str
    advice: str
    drift: float = math.nan


def verdict(excess: np.ndarray, *, dead: int, burnin: int, estimate: MeanEstimate | None = None) -> Verdict:
    """Judge the paired trace ℓ(w_t; b_t) − ℓ(w*; b_t) of the living chains, [chains, draws] after burn-in.

    Diverged: a chain died, or the last third's mean is over ten times all that the first third saw. Drifting: a mean
    below zero by more than two standard errors, a first and a last third that differ by more than 3 standard errors and
    a tenth of the mean, or R̂ above 1.1. Else converged. ``estimate`` is the trace's, where it is known already.
    """
    few = excess.shape[1] < FEWEST_STEPS
    judged = _few(excess) if few else _judged(excess, burnin, estimate or mean_estimate(excess))
    if dead:
        advice = f"{dead} chain(s) met NaN or infinity: lower lr first, then n_beta or localization"
        return Verdict("diverged", advice, judged.drift)
    return judged


def _few(excess: np.ndarray) -> Verdict:
    return Verdict("drifting", f"{excess.shape[1]} steps are too few to judge: raise num_draws")


def _judged(excess: np.ndarray, burnin: int, estimate: MeanEstimate) -> Verdict:
    third = excess.shape[1] // 3
    first, last = excess[:, :third], excess[:, -third:]
    change = float(last.mean() - first.mean())
    error = math.hypot(_mcse(first), _mcse(last))
    drift = change / error if error > 0 else math.copysign(math.inf, change) if change else 0.0
    if abs(float(last.mean())) > RUNAWAY * float(np.abs(first).max()) > 0:
        return Verdict("diverged", _runaway_advice(change), drift)
    if estimate.mean < -2 * estimate.se:
        return Verdict(
            "drifting",
            "the chains find lower loss than w*, so w* is no minimum of it: train further, or raise localization to "
            "stay closer",
            drift,
        )
    if abs(change) > DRIFT_Z * error and abs(change) > DRIFT_SHARE * abs(estimate.mean):
        return Verdict("drifting", _drift_advice(change, burnin), drift)
    if estimate.rhat > RHAT_LIMIT:
        return Verdict(
            "drifting",
            f"the chains disagree (R̂ {estimate.rhat:.2f}): raise num_draws or num_burnin_steps, or localization, "
            "to make them mix sooner",
            drift,
        )
    if estimate.ess < FEW_EFFECTIVE_DRAWS:
        advice = f"only {estimate.ess:.0f} effective draws: raise num_draws for a smaller error"
        return Verdict("converged", advice, drift)
    return Verdict("converged", "no change needed", drift)


def _runaway_advice(change: float) -> str:
    if change < 0:
        return "the loss runs away below its value at w*: w* is no minimum; train further or raise localization"
    return "the loss runs away: the step is unstable; lower lr first, then n_beta or localization"


def _drift_advice(change: float, burnin: int) -> str:
    if change < 0:
        return (
            "the loss still falls along the chain: raise num_burnin_steps; if it falls below the loss at w*, w* is no "
            "minimum: train further or raise localization"
        )
    start = "raise num_burnin_steps" if burnin else "set num_burnin_steps"
    return (
        f"the loss still rises along the chain: {start} and num_draws; if it never levels off, raise localization "
        "or lower lr"
    )
