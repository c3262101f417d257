"""How a trace forgets: its autocorrelation, pooled over chains, and what that asks of the steps between draws."""

from __future__ import annotations

import numpy as np

FORGOTTEN = 0.05  # correlation of two draws that are called nearly independent


def autocorrelation(trace: np.ndarray, max_lag: int | None = None) -> np.ndarray:
    """ρ_t of a trace at lags t = 0, 1, …, max_lag, pooled over its chains.

        ρ_t = 1 − (W − mean_c s_c(t)) / V⁺,   V⁺ = (D − 1)/D·W + B/D

    s_c(t) is chain c's autocovariance (by FFT, divided by D at every lag), W the mean of the chains' variances and B/D
    the variance of their means, so that chains which disagree stay correlated at every lag.

    Args:
        trace: [chain, draw, …], finite, at least 2 draws.
        max_lag: the last lag, in draws, below D; None: D − 1. Beyond a few τ there is only noise.

    Returns:
        [max_lag + 1, …] float64; ρ_0 = 1. NaN for a trace that is constant or not finite.

    Raises:
        ValueError: another shape, or a lag that the trace does not have.

    Source: Vehtari et al. 1903.08008, eq. (10).
    """
    values = as_trace(trace)
    draws = values.shape[1]
    if draws < 2:
        raise ValueError(f"an autocorrelation needs at least 2 draws, got {draws} (raise num_draws)")
    last = draws - 1 if max_lag is None else max_lag
    if isinstance(last, bool) or int(last) != last or not 0 <= last < draws:
        raise ValueError(f"max_lag must be a whole number from 0 to {draws - 1} (draws − 1), got {max_lag!r}")
    rho = pooled(items_first(values))[:, : int(last) + 1]
    return np.ascontiguousarray(rho.T).reshape(int(last) + 1, *values.shape[2:])


def pooled(traces: np.ndarray) -> np.ndarray:
    """ρ_t [n, D] of n traces [n, C, D]; NaN where one is constant or not finite."""
    from arviz_stats.base import array_stats

    chains, draws = traces.shape[1:]
    covariance = array_stats.autocov(traces, axis=2)
    within = covariance[:, :, 0].mean(axis=1) * draws / (draws - 1)
    total = within * (draws - 1) / draws
    if chains > 1:
        total = total + traces.mean(axis=2).var(axis=1, ddof=1)
    flat = ~(np.ptp(traces, axis=(1, 2)) > 0)  # NaN counts as flat
    rho = 1 - (within[:, None] - covariance.mean(axis=1)) / np.where(flat, 1.0, total)[:, None]
    rho[:, 0] = 1.0
    rho[flat] = np.nan
    return rho


def as_trace(trace: np.ndarray) -> np.ndarray:
    """The trace as an array [chain, draw, …].

    Raises:
        ValueError: fewer than two dimensions, or none of something.
    """
    values = np.asarray(trace)
    if values.ndim < 2 or values.size == 0:
        raise ValueError(f"a trace must have shape [chain, draw, …] and hold something, got {values.shape}")
    return values


def items_first(values: np.ndarray) -> np.ndarray:
    """[chain, draw, …] as float64 [n, chain, draw], contiguous."""
    chains, draws = values.shape[:2]
    return np.ascontiguousarray(np.moveaxis(values.reshape(chains, draws, -1), 2, 0), dtype=np.float64)


def suggested_steps(tau: np.ndarray | float, steps_between: int = 1) -> np.ndarray:
    """``num_steps_bw_draws`` after which two draws are nearly independent: correlated by at most 0.05.

    A process that forgets exponentially and has integrated time τ (in draws that are k steps apart) keeps
    ρ = (τ − 1)/(τ + 1) from draw to draw, and 0.05 after k·ln 0.05 / ln ρ steps: about 1.5·k·τ. More draws of a
    chain are never worse than fewer; but each costs a pass over every observable, and a correlated one says little new.

    Args:
        tau: τ in draws, from ``trace_diagnostics``.
        steps_between: k >= 1, steps between the draws that τ counts.

    Returns:
        Float64 whole numbers of the shape of τ, never below k; NaN where τ is.

    Raises:
        ValueError: ``steps_between`` is no whole number >= 1.
    """
    if isinstance(steps_between, bool) or int(steps_between) != steps_between or steps_between < 1:
        raise ValueError(f"steps_between must be a whole number >= 1, got {steps_between!r}")
    times = np.asarray(tau, dtype=np.float64)
    kept = (times - 1) / (times + 1)
    remembers = kept > FORGOTTEN
    steps = np.log(FORGOTTEN) / np.log(np.where(remembers, kept, FORGOTTEN))
    return np.where(np.isnan(times), np.nan, np.ceil(steps_between * steps - 1e-9))
