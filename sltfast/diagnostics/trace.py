"""R̂, effective draws, autocorrelation time and errors of thousands of traces at once."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sltfast.diagnostics.autocorrelation import as_trace, items_first, suggested_steps
from sltfast.diagnostics.effective_draws import FEWEST_DRAWS, effective_draws
from sltfast.isolation import alone

if TYPE_CHECKING:
    import xarray as xr

CHUNK = 1 << 19  # values at a time: bounds the float64 temporaries to some tens of megabytes
TAIL = 0.05  # the quantiles of tail-ESS are this and 1 less this, as ArviZ's


class TraceDiagnostics(NamedTuple):
    """Of traces [chain, draw, …], each field of their trailing shape, float64.

    mean: over chains and draws.  sd: standard deviation over them (ddof 1).
    rhat: rank-normalised split R̂ (NaN for one chain, or for chains that are copies of each other).
    ess, ess_bulk, ess_tail: effective draws of the mean, of the ranks, and of the 5 % and 95 % quantiles (the fewer).
    mcse: sd/√ess.  between: standard deviation of the chains' means over √chains (NaN for one chain).
    se: the larger of the two.
    tau: integrated autocorrelation time in draws, chains × draws / ess (what chains disagree by counts as memory).
    tau_se: its standard error τ·√(2(2M + 1)/N), N the number of draws (Madras & Sokal 1988).
    window: M, the lag in draws at which the autocorrelations were cut.
    """

    mean: np.ndarray
    sd: np.ndarray
    rhat: np.ndarray
    ess: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    mcse: np.ndarray
    between: np.ndarray
    se: np.ndarray
    tau: np.ndarray
    tau_se: np.ndarray
    window: np.ndarray

    @property
    def signal_to_noise(self) -> np.ndarray:
        """|mean|/se: how many standard errors the mean is from 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(self.mean) / self.se

    def suggested_steps(self, steps_between: int = 1) -> np.ndarray:
        """``num_steps_bw_draws`` for nearly independent draws; see ``sltfast.diagnostics.suggested_steps``."""
        return suggested_steps(self.tau, steps_between)

    def to_dataset(self, dims: tuple[str, ...] = (), coords: dict[str, Any] | None = None) -> xr.Dataset:
        """The fields as variables over ``dims``, the names of the trailing dimensions."""
        import xarray as xr

        return xr.Dataset({name: (dims, value) for name, value in self._asdict().items()}, coords=coords)


def trace_diagnostics(trace: np.ndarray, *, ranks: bool = True) -> TraceDiagnostics:
    """R̂, ESS, τ and standard errors of a trace, or of one for each token, all at once.

    Args:
        trace: [chain, draw, …] of any float type; chains that died left out. An item that is not finite everywhere
            (padding) gives NaN throughout; a constant one has standard error 0 and no R̂ and τ.
        ranks: False leaves out what needs ranks or quantiles, R̂, bulk and tail ESS (NaN), and takes a tenth of the
            time.

    Returns:
        ``TraceDiagnostics``. Below 4 draws all but the mean is NaN.

    Raises:
        ValueError: fewer than two dimensions, or no chain, draw or item.

    Source: Vehtari et al. 1903.08008.
    """
    values = as_trace(trace)
    chains, draws, shape = *values.shape[:2], values.shape[2:]
    flat = values.reshape(chains, draws, -1)
    size = max(1, CHUNK // (chains * draws))
    parts = [_of_items(items_first(flat[:, :, i : i + size]), ranks=ranks) for i in range(0, flat.shape[2], size)]
    return TraceDiagnostics(*(np.concatenate(columns).reshape(shape) for columns in zip(*parts, strict=True)))


def _of_items(traces: np.ndarray, *, ranks: bool) -> TraceDiagnostics:
    """The same of [n, C, D] float64."""
    count, chains, draws = traces.shape
    nothing = np.full(count, np.nan)
    mean = traces.mean(axis=(1, 2))
    finite = np.isfinite(mean) & np.isfinite(traces).all(axis=(1, 2))
    if draws < FEWEST_DRAWS:
        return TraceDiagnostics(np.where(finite, mean, np.nan), *(nothing,) * (len(TraceDiagnostics._fields) - 1))
    if not finite.all():
        found = [np.full(count, np.nan) for _ in TraceDiagnostics._fields]
        if finite.any():
            for whole, part in zip(found, _of_items(traces[finite], ranks=ranks), strict=True):
                whole[finite] = part
        return TraceDiagnostics(*found)
    sd = traces.std(axis=(1, 2), ddof=1)
    split = _split(traces)
    ess, window = effective_draws(split)
    constant = np.isnan(window)
    mcse = sd / np.sqrt(ess)
    between = traces.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(chains) if chains > 1 else nothing
    total = split.shape[1] * split.shape[2]
    tau = np.where(constant, np.nan, total / ess)
    rhat = bulk = tail = nothing
    if ranks:
        scores = _normal_scores(split)
        bulk, tail = effective_draws(scores).size, _tail(traces)
        if chains > 1:
            folded = np.abs(split - np.median(split, axis=(1, 2), keepdims=True))
            copies = ~np.ptp(traces, axis=1).any(axis=1)
            rhat = np.where(copies | constant, np.nan, np.maximum(_rhat(scores), _rhat(_normal_scores(folded))))
    return TraceDiagnostics(
        mean=mean,
        sd=sd,
        rhat=rhat,
        ess=ess,
        ess_bulk=bulk,
        ess_tail=tail,
        mcse=mcse,
        between=between,
        se=np.fmax(mcse, between),
        tau=tau,
        tau_se=tau * np.sqrt(2 * (2 * window + 1) / total),
        window=window,
    )


def _split(traces: np.ndarray) -> np.ndarray:
    """Each chain as its two halves, the middle draw of an odd number left out: [n, 2C, D // 2]."""
    half = traces.shape[2] // 2
    return np.concatenate([traces[:, :, :half], traces[:, :, -half:]], axis=1)


def _normal_scores(traces: np.ndarray) -> np.ndarray:
    """Ranks over an item's chains and draws, as quantiles of a standard normal (Blom's offset)."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    count, total = traces.shape[0], traces[0].size
    ranks = rankdata(traces.reshape(count, total), axis=1)
    scores: np.ndarray = ndtri((ranks - 3 / 8) / (total - 3 / 4 + 1)).reshape(traces.shape)
    return scores


def _tail(traces: np.ndarray) -> np.ndarray:
    sizes = []
    for probability in (TAIL, 1 - TAIL):
        level = np.quantile(traces, probability, axis=(1, 2), keepdims=True)
        sizes.append(effective_draws(_split((traces <= level).astype(np.float64))).size)
    return np.minimum(*sizes)


def _rhat(traces: np.ndarray) -> np.ndarray:
    """√((B/W + D − 1)/D) of [n, C, D]."""
    draws = traces.shape[2]
    between = draws * traces.mean(axis=2).var(axis=1, ddof=1)
    within = traces.var(axis=2, ddof=1).mean(axis=1)
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a constant trace divides 0 by 0 and has R̂ NaN
        rhat: np.ndarray = np.sqrt((between / within + draws - 1) / draws)
    return rhat
