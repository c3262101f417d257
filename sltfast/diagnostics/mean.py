"""The mean over chains, with its error bars."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sltfast.diagnostics.trace import trace_diagnostics


class MeanEstimate(NamedTuple):
    """A mean over chains and draws with its errors.

    mcse: autocorrelation-based Monte Carlo standard error of the pooled mean.
    between: standard deviation of the chains' means over √chains (NaN for one chain).
    se: the larger of the two.  rhat: rank-normalised split R̂ (NaN for one chain).  ess: effective draws of the mean.
    tau: integrated autocorrelation time, in draws.
    """

    mean: float
    se: float
    mcse: float
    between: float
    rhat: float
    ess: float
    tau: float = math.nan


def mean_estimate(trace: np.ndarray) -> MeanEstimate:
    """Mean, standard errors, R̂, ESS and τ of one trace.

    Args:
        trace: [chains, draws], finite; chains that died left out.

    Returns:
        ``MeanEstimate``, in the trace's units. Fewer than 4 draws leave all but the mean NaN. Chains that are copies of
        each other have no R̂.

    Raises:
        ValueError: not two-dimensional, empty, or with values that are not finite.

    Source: Vehtari et al. 1903.08008.
    """
    if trace.ndim != 2 or trace.size == 0:
        raise ValueError(f"a trace must have shape [chains, draws], got {trace.shape}")
    if not np.isfinite(trace).all():
        raise ValueError("a trace must be finite: exclude the chains that diverged")
    found = trace_diagnostics(trace)
    return MeanEstimate(*(float(getattr(found, name)) for name in MeanEstimate._fields))
