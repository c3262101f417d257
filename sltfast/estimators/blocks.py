"""Moments of φ and of losses by chain and block of draws, from traces or from recorded moments: what χ is made of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sltfast.errors import AllChainsDied, ChainDiverged
from sltfast.observables import observable_id
from sltfast.results.samples import root_of

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
PhiLevel = Literal["paired", "init_batches"]
READ_BYTES = 256 << 20  # of a trace at a time
CHUNK_BYTES = 512 << 10  # of it in float64: what stays in a core's cache


@dataclass(frozen=True)
class Blocks:
    """Moments of φ_t = L(w_t) − φ₀ and y_t = ℓ(w_t) − y₀ in each of K blocks of each of C living chains.

    Attributes:
        chains: [C] their numbers in the run.
        num_chains: of the run, the dead ones included.
        draws: [C, K] draws of each block, 0 where it was not recorded.
        phi: [C, K] mean of φ.
        phi_m2: [C, K] Σ (φ − mean)².
        mean: [C, K, …] mean of y, NaN for an item without weight (padding).
        m2: [C, K, …] Σ (y − mean)².
        comoment: [C, K, …] Σ (φ − mean)(y − mean).
        phi_level: φ₀: L(w*) on the sampling task ("paired"), or the mean of ``init_loss`` ("init_batches").
        level: [...] y₀: ℓ(w*) where the run recorded it, else the trace's own mean.
        method: how φ₀ was had.
    """

    chains: NDArray[np.int64]
    num_chains: int
    draws: Array
    phi: Array
    phi_m2: Array
    mean: Array
    m2: Array
    comoment: Array
    phi_level: float
    level: Array
    method: PhiLevel

    @property
    def weights(self) -> Array:
        """[C, K] the part of all draws that a block holds."""
        return self.draws / self.draws.sum()


class BlockReader:
    """Reads blocks of a run; what all its observables share, φ and the living chains, is read once.

    Args:
        samples: a tree of ``sltfast.sample`` or ``sltfast.open``, or devinterp's; or its root.
        task: the observable whose mean loss is φ.
        num_blocks: K for traces (of fewer draws: as many as those); moments have their own.

    Attributes:
        left_out: numbers of the chains that died.
        unfinished: what an interrupted run has of its draws, in words; "" for a complete one.
        observables: identifiers of those with losses or moments, sorted.

    Raises:
        TypeError: no tree of samples.
        ValueError: no losses of the task, moments against another task's φ, or num_blocks < 1.
        AllChainsDied: no chain lived.
    """

    def __init__(self, samples: Any, task: str, num_blocks: int = 8) -> None:
        if isinstance(num_blocks, bool) or not isinstance(num_blocks, int) or num_blocks < 1:
            raise ValueError(f"num_blocks must be a whole number >= 1, got {num_blocks!r}")
        self.root = root_of(samples)
        self.task = observable_id(task)
        self.moments = "moment_draws" in self.root
        prefix = "moment_mean_" if self.moments else "loss_"
        names = (str(name) for name in self.root.data_vars)
        self.observables = sorted(name[len(prefix) :] for name in names if name.startswith(prefix))
        self._check(self.task)
        own = self.root.attrs.get("sltfast", {}).get("sampling_task")
        if self.moments and own != self.task:
            raise ValueError(
                f"the samples hold moments with φ of sampling_task {own!r}, not of {self.task!r}: sample again with "
                f"sampling_task={task!r}, or with record='traces'"
            )
        self.trace = self._mean_trace(self.task)
        self.num_chains, self.num_draws = self.trace.shape
        self.chains, self.left_out = self._living(samples)
        self.phi_level, self.method = self._phi_level()
        self.num_blocks = self.root.sizes["block"] if self.moments else min(num_blocks, self.num_draws)
        starts = [-(-block * self.num_draws // self.num_blocks) for block in range(self.num_blocks + 1)]
        self.edges = list(pairwise(starts))  # draw d belongs to block d·K // D
        seen = ~np.isnan(self.trace[self.chains])
        members = np.arange(self.num_draws) * self.num_blocks // self.num_draws == np.arange(self.num_blocks)[:, None]
        if self.moments:
            self.draws = np.nan_to_num(self.root["moment_draws"].values[self.chains])
            seen &= (self.draws > 0) @ members
        else:
            self.draws = seen @ members.T.astype(float)
        if not self.draws.any():
            raise ValueError("no draw was recorded: let the run go on (the same call with its output_path)")
        there, whole = int(self.draws.sum()), len(self.chains) * self.num_draws
        self.unfinished = f"{there} of {whole} draws of an interrupted run" if there < whole else ""
        self._seen, self._members = seen, members.astype(float)
        self.phi, self._apart = self._by_block(self.trace)
        self.phi_m2 = np.square(self._apart) @ self._members.T
        self.phi -= np.where(self.draws > 0, self.phi_level, 0.0)

    def shape(self, observable: str) -> tuple[int, ...]:
        """(B, T): rows and positions of an observable."""
        name = observable_id(observable)
        self._check(name)
        return tuple(self.root[f"moment_mean_{name}" if self.moments else f"loss_{name}"].shape[2:])

    def items(self, observable: str) -> Blocks:
        """Moments of every item's loss: [C, K, B, T]."""
        name = observable_id(observable)
        self._check(name)
        return self._recorded(name) if self.moments else self._from_traces(name)

    def means(self, observable: str) -> Blocks:
        """Moments of the observable's mean loss, over the same draws: [C, K]."""
        name = observable_id(observable)
        self._check(name)
        mean, apart = self._by_block(self.trace if name == self.task else self._mean_trace(name))
        m2, comoment = np.square(apart) @ self._members.T, (self._apart * apart) @ self._members.T
        return self._blocks(mean, m2, comoment, self._value(f"init_mean_loss_{name}"), ())

    def _check(self, name: str) -> None:
        if name not in self.observables:
            raise ValueError(
                f"the samples hold neither losses nor moments of the observable {name!r}: there are "
                f"{self.observables or 'none (sample with observables={name: data set})'}"
            )

    def _value(self, name: str) -> Array | None:
        return np.asarray(self.root[name].values, np.float64) if name in self.root else None

    def _mean_trace(self, name: str) -> Array:
        """[chains, draws] the mean loss; of devinterp's trees the mean of all recorded items."""
        recorded = self._value(f"mean_loss_{name}")
        if recorded is not None:
            return recorded
        variable = self._trace_variable(name)
        means = np.empty(variable.shape[:2])
        for chain in range(len(means)):
            for start, stop, losses in _pieces(variable, chain, [(d, d + 1) for d in range(variable.shape[1])]):
                present = ~np.isnan(losses)
                counts = present.sum(1)
                sums = np.where(present, losses, 0).sum(1, dtype=np.float64)
                means[chain, start:stop] = np.where(counts > 0, sums, np.nan) / np.maximum(counts, 1)
        return means

    def _trace_variable(self, name: str) -> Any:
        variable = self.root[f"loss_{name}"].variable
        if variable.ndim != 4 or variable.dims[:2] != ("chain", "draw"):
            raise ValueError(f"loss_{name} must have dimensions (chain, draw, batch, position), it has {variable.dims}")
        return variable

    def _living(self, samples: Any) -> tuple[NDArray[np.int64], tuple[int, ...]]:
        """Chains that lived; in a tree that does not say so, those that were finite to the end."""
        if "alive" in self.root:
            alive = np.array(self.root["alive"].values, dtype=bool)
        else:
            alive = np.array(np.isfinite(self.trace).all(axis=1))
        if not alive.any():
            raise AllChainsDied("no chain lived: there is nothing to average (see death_step)", samples=samples)
        return np.flatnonzero(alive), tuple(np.flatnonzero(~alive).tolist())

    def _phi_level(self) -> tuple[float, PhiLevel]:
        paired = self._value(f"init_mean_loss_{self.task}")
        if paired is not None:
            return float(paired), "paired"
        level = init_batches_level(self.root)
        if level is None:
            raise ValueError("the samples hold no loss at w* (init_loss): sample with num_init_loss_batches > 0")
        return level, "init_batches"

    def _by_block(self, trace: Array) -> tuple[Array, Array]:
        """[C, K] means of a trace over the recorded draws of each block, and its deviations from them, [C, D]."""
        values = np.where(self._seen, trace[self.chains], 0.0)
        means = values @ self._members.T / np.maximum(self.draws, 1)
        return means, np.where(self._seen, values - means @ self._members, 0.0)

    def _from_traces(self, name: str) -> Blocks:
        variable = self._trace_variable(name)
        items = int(np.prod(variable.shape[2:]))
        mean, m2, comoment = (np.zeros((len(self.chains), self.num_blocks, items)) for _ in range(3))
        for i, chain in enumerate(self.chains):
            for start, _, losses in _pieces(variable, int(chain), self.edges):
                for k, (first, last) in enumerate(self.edges):
                    if start <= first < start + len(losses) and self.draws[i, k]:
                        seen = self._seen[i, first:last]
                        rows, phi = losses[first - start : last - start][seen], self._apart[i, first:last][seen]
                        _accumulate(rows, phi, mean[i, k], m2[i, k], comoment[i, k])
        return self._blocks(mean, m2, comoment, self._value(f"init_loss_{name}"), variable.shape[2:])

    def _blocks(self, mean: Array, m2: Array, comoment: Array, level: Array | None, shape: tuple[int, ...]) -> Blocks:
        """Moments of raw losses as those of y, about ``level``, or about their own mean where there is none."""
        mean, m2, comoment = (values.reshape(*self.draws.shape, *shape) for values in (mean, m2, comoment))
        if level is None:
            level = np.asarray(np.tensordot(self.draws / self.draws.sum(), mean, axes=([0, 1], [0, 1])))
        mean = mean - level
        mean[self.draws == 0] = np.where(np.isnan(level), np.nan, 0.0)
        return self._with_phi(mean, m2, comoment, level)

    def _recorded(self, name: str) -> Blocks:
        level = self._value(f"init_loss_{name}")
        assert level is not None  # a run of moments records it

        def of(what: str) -> Array:
            values = np.array(self.root[f"moment_{what}_{name}"].values[self.chains], np.float64)
            values[self.draws == 0] = np.where(np.isnan(level), np.nan, 0.0)
            return values

        return self._with_phi(of("mean"), of("m2"), of("comoment"), level)

    def _with_phi(self, mean: Array, m2: Array, comoment: Array, level: Array) -> Blocks:
        return Blocks(
            chains=self.chains,
            num_chains=self.num_chains,
            draws=self.draws,
            phi=self.phi,
            phi_m2=self.phi_m2,
            mean=mean,
            m2=m2,
            comoment=comoment,
            phi_level=self.phi_level,
            level=level,
            method=self.method,
        )


def block_moments(samples: xr.DataTree, observable: str, task: str, num_blocks: int = 8) -> Blocks:
    """Moments of φ and of an observable's losses in blocks of consecutive draws; draw d is in block d·K // D.

    φ_t = L(w_t) − L(w*), the excess mean loss on the sampling task, y_t = ℓ(w_t) − ℓ(w*), for each item of the
    observable. Chains that died are left out, with a warning. No more than a chunk of a trace is held in float64.

    Args:
        samples: of ``sltfast.sample``, with ``record="moments"`` or "traces", or devinterp's, which have no losses at
            w* of observables: y is then centred by its own mean, and φ by the mean of ``init_loss``.
        observable: whose items y are.
        task: the sampling task, an observable too.
        num_blocks: K where there are traces; recorded moments have their own.

    Returns:
        ``Blocks``, [C, K, batch, position] for the C chains that lived.

    Raises:
        TypeError: samples are no tree.
        ValueError: an observable that was not recorded, moments against another task, nothing recorded, or num_blocks
            < 1.
        AllChainsDied: no chain lived.

    Source: Chan, Golub & LeVeque (1983) for moments by block; Baker et al. 2504.18274 for φ.
    """
    reader = BlockReader(samples, task, num_blocks)
    if reader.left_out:
        warnings.warn(
            f"chains {list(reader.left_out)} of {reader.num_chains} died and are left out", ChainDiverged, stacklevel=2
        )
    if reader.unfinished:
        warnings.warn(f"only {reader.unfinished} are used", UserWarning, stacklevel=2)
    return reader.items(observable)


def init_batches_level(root: Any) -> float | None:
    """L(w*) as devinterp has it, the mean loss of the initial batches; None where they were not recorded."""
    for name in ("init_loss_mean", "init_loss"):
        if name in root:
            return float(np.nanmean(np.asarray(root[name].values, np.float64)))
    return None


def _accumulate(losses: np.ndarray, phi: Array, mean: Array, m2: Array, comoment: Array) -> None:
    """Moments of the losses [draws, items] of a block beside φ's deviations [draws], a chunk in float64 at a time."""
    width = max(1, CHUNK_BYTES // (8 * len(losses)))
    for at in range(0, losses.shape[1], width):
        items = slice(at, at + width)
        values = losses[:, items].astype(np.float64)
        mean[items] = values.mean(axis=0)
        with np.errstate(invalid="ignore"):  # an infinite loss has no deviation: its moments are NaN
            values -= mean[items]
        m2[items] = np.einsum("ti,ti->i", values, values)
        comoment[items] = phi @ values


def _pieces(variable: Any, chain: int, edges: list[tuple[int, int]]) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first draw, end, losses [draws, items]) of one chain, as many whole ``edges`` at a time as bytes allow."""
    per_draw = 4 * int(np.prod(variable.shape[2:]))
    start = edges[0][0]
    for index, (_, stop) in enumerate(edges):
        following = edges[index + 1][1] if index + 1 < len(edges) else None
        if following is None or (following - start) * per_draw > READ_BYTES:
            yield start, stop, np.asarray(variable[chain, start:stop].values).reshape(stop - start, -1)
            start = stop
