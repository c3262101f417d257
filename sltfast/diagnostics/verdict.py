"""Whether a mean over chains has converged, and what to do when it has not."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sltfast.diagnostics.autocorrelation import suggested_steps
from sltfast.diagnostics.mean import MeanEstimate, mean_estimate
from sltfast.diagnostics.trace import trace_diagnostics

RHAT_LIMIT = 1.1
RUNAWAY = 10.0  # mean of the last third over the largest value in the first: diffusion makes it 2.5
DRIFT_Z = 3.0  # standard errors between the first and the last third of the trace
DRIFT_SHARE = 0.1  # and this share of the mean: a difference that matters
FEWEST_STEPS = 12  # in which a first and a last third can be told apart
FEW_EFFECTIVE_DRAWS = 100.0


class Verdict(NamedTuple):
    """``word`` is "converged", "drifting" or "diverged"; ``advice`` names the setting to change.

    ``drift``: the last third's mean less the first's, in standard errors of the difference (NaN for too few steps).
    """

    word: str
    advice: str
    drift: float = math.nan


class Reading(NamedTuple):
    """What a trace is of: what the advice on it depends on.

    spacing: steps from one entry to the next.  between: the run's ``num_steps_bw_draws``.  burnin: its burn-in.
    sampled: it is the loss that the chains sample, so that w* should be a minimum of it.
    """

    burnin: int = 0
    spacing: int = 1
    between: int = 1
    sampled: bool = True


def verdict(excess: np.ndarray, *, dead: int, reading: Reading, estimate: MeanEstimate | None = None) -> Verdict:
    """Judge the paired trace ℓ(w_t; b_t) − ℓ(w*; b_t) of the living chains.

    Diverged: a chain died, or the last third's mean is over ten times all that the first third saw. Drifting: a mean
    below zero by more than two standard errors, a first and a last third that differ by more than 3 standard errors and
    a tenth of the mean, or R̂ above 1.1. Else converged. The loss of an observable may well fall below its value at w*,
    and is judged by the rest.

    Args:
        excess: [chains, draws] after burn-in, in nats, finite.
        dead: chains that died.
        reading: what the trace is of.
        estimate: of the trace, where it is known already.

    Returns:
        ``Verdict``: the word, what to change, and the drift.

    Source: R̂ of Vehtari et al. 1903.08008; the thresholds are this package's.
    """
    few = excess.shape[1] < FEWEST_STEPS
    judged = _few(excess, reading) if few else _judged(excess, reading, estimate or mean_estimate(excess))
    if dead:
        advice = f"{dead} chain(s) met NaN or infinity: lower lr first, then n_beta or localization"
        return Verdict("diverged", advice, judged.drift)
    return judged


def _few(excess: np.ndarray, reading: Reading) -> Verdict:
    unit = "steps" if reading.sampled else "draws"
    return Verdict("drifting", f"{excess.shape[1]} {unit} are too few to judge: raise num_draws")


def _judged(excess: np.ndarray, reading: Reading, estimate: MeanEstimate) -> Verdict:
    third = excess.shape[1] // 3
    first, last = excess[:, :third], excess[:, -third:]
    change = float(last.mean() - first.mean())
    error = math.hypot(*(float(trace_diagnostics(part, ranks=False).mcse) for part in (first, last)))
    drift = change / error if error > 0 else math.copysign(math.inf, change) if change else 0.0
    if abs(float(last.mean())) > RUNAWAY * float(np.abs(first).max()) > 0:
        return Verdict("diverged", _runaway_advice(change), drift)
    if reading.sampled and estimate.mean < -2 * estimate.se:
        return Verdict(
            "drifting",
            "the chains find lower loss than w*, so w* is no minimum of it: train further, or raise localization to "
            "stay closer",
            drift,
        )
    if abs(change) > DRIFT_Z * error and abs(change) > DRIFT_SHARE * abs(estimate.mean):
        return Verdict("drifting", _drift_advice(change, reading.burnin), drift)
    if estimate.rhat > RHAT_LIMIT:
        return Verdict(
            "drifting",
            f"the chains disagree (R̂ {estimate.rhat:.2f}): raise num_draws or num_burnin_steps, or localization, "
            "to make them mix sooner",
            drift,
        )
    if estimate.ess < FEW_EFFECTIVE_DRAWS:
        return Verdict("converged", _few_effective_advice(reading, estimate), drift)
    return Verdict("converged", "no change needed", drift)


def _few_effective_advice(reading: Reading, estimate: MeanEstimate) -> str:
    said = f"only {estimate.ess:.0f} effective draws"
    steps = float(suggested_steps(estimate.tau, reading.spacing))
    if not steps > reading.between:  # NaN where the trace is constant
        return f"{said}: raise num_draws for a smaller error"
    return (
        f"{said} (autocorrelation time {estimate.tau * reading.spacing:.3g} steps): raise num_draws for a smaller "
        f"error, or num_steps_bw_draws to {steps:.0f}, at which draws are nearly independent"
    )


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
