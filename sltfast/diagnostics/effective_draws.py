"""Effective sample sizes of many traces at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sltfast.diagnostics.autocorrelation import pooled

FEWEST_DRAWS = 4  # of which autocorrelations say anything, as in ArviZ
FLAT = float(np.finfo(np.float64).resolution)  # a range below this is a constant, as in ArviZ


class Effective(NamedTuple):
    """Of n traces: ``size``, effective draws [n]; ``window`` [n], the lag at which their autocorrelation was cut."""

    size: np.ndarray
    window: np.ndarray


def effective_draws(traces: np.ndarray) -> Effective:
    """ESS of n traces [n, C, D] of at least 2 draws, by Geyer's initial monotone sequence.

    ESS = C·D/τ,  τ = −1 + 2·Σ_{k<K} P_k + ρ_{2K},  P_k = min_{j<=k} (ρ_{2j} + ρ_{2j+1}),  K the first pair that is not
    positive: exactly what ``arviz_stats`` computes one trace at a time.
    """
    count, chains, draws = traces.shape
    total = chains * draws
    rho = pooled(traces)
    pairs = max(1, -(-(draws - 2) // 2))
    sums = rho[:, 0 : 2 * pairs : 2] + rho[:, 1 : 2 * pairs : 2]
    ended = sums <= 0
    last = np.where(ended.any(axis=1), ended.argmax(axis=1), pairs - 1)
    before = np.arange(pairs) < last[:, None]
    summed = np.where(before, np.minimum.accumulate(sums, axis=1), 0.0).sum(axis=1)
    here = np.arange(count), last
    even = rho[:, 0 : 2 * pairs : 2][here]
    tau = -1 + 2 * summed + np.where(sums[here] >= 0, even, np.maximum(even, 0.0))
    size = total / np.maximum(tau, 1 / np.log10(total))
    flat = np.ptp(traces, axis=(1, 2)) < FLAT
    return Effective(np.where(flat, float(total), size), np.where(np.isnan(size) | flat, np.nan, 2.0 * last))
