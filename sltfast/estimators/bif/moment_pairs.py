"""Pairs of sequences of a run that recorded their covariances by block of draws, and means over groups of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sltfast.estimators.bif.pairs import Pairs
from sltfast.estimators.bif.recorded import Keys, chosen_keys, living_chains
from sltfast.estimators.bif.selection import own_columns
from sltfast.estimators.blocks_of_draws import BlocksOfDraws
from sltfast.results.samples import root_of

if TYPE_CHECKING:
    import xarray as xr


def records_covariances(dataset: xr.Dataset) -> bool:
    """Whether the samples were taken with ``record='covariances'``."""
    return "moment_items_comoment" in dataset


def recorded_items(dataset: xr.Dataset, loss_keys: Keys) -> tuple[list[str], np.ndarray]:
    """The observables asked for, and which items of the record are theirs, one observable after another.

    Raises:
        ValueError: an observable that was not recorded.
    """
    prefix = "init_loss_"
    present = sorted(
        str(name)[len(prefix) :]
        for name, variable in dataset.data_vars.items()
        if str(name).startswith(prefix) and variable.dims[:1] == (f"batch_{str(name)[len(prefix) :]}",)
    )
    keys = chosen_keys(loss_keys, present)
    sizes = [dataset.sizes[f"batch_{key}"] for key in present]
    starts = dict(zip(present, np.cumsum([0, *sizes]).tolist(), strict=False))
    return keys, np.concatenate([starts[key] + np.arange(dataset.sizes[f"batch_{key}"]) for key in keys])


class Moments(NamedTuple):
    """Of the chains that lived, float64, about each block's own mean.

    Attributes:
        draws: [C, K] draws of each block.
        means: [C, K, N].
        comoments: [C, K, N, N] Σ_{t∈b} (ℓ_i − mean)(ℓ_j − mean).
        left_out: numbers of the other chains.
    """

    draws: Tensor
    means: Tensor
    comoments: Tensor
    left_out: tuple[int, ...]

    @property
    def total(self) -> int:
        """Draws of all chains."""
        return int(self.draws.sum())


def recorded_moments(samples: Any) -> Moments:
    """Read what was recorded; chains that died are left out, with a warning.

    Raises:
        AllChainsDied: no chain lived.
        ValueError: fewer than two draws are there.
    """
    dataset = root_of(samples)
    counts = np.asarray(dataset["moment_draws"].values)
    living, blocks = living_chains(dataset, np.isfinite(counts) & (counts > 0), samples, unit="blocks")
    draws, means, comoments = (
        torch.from_numpy(np.asarray(dataset[name].values)[living, :blocks])
        for name in ("moment_draws", "moment_items_mean", "moment_items_comoment")
    )
    left_out = tuple(chain for chain in range(len(counts)) if chain not in living)
    found = Moments(draws, means, comoments, left_out)
    if found.total < 2:
        raise ValueError(f"a covariance needs at least 2 draws, got {found.total}: raise num_draws")
    return found


class MomentPairs(Pairs):
    """Pairs of sequences from Σ_{t∈b}(ℓ_i − mean)(ℓ_j − mean) of each block; about the common mean that is

        P_b = Σ_{t∈b} (ℓ_i − mean_b,i)(ℓ_j − mean_b,j) + n_b (mean_b,i − mean_i)(mean_b,j − mean_j).

    Args:
        moments: of all items.
        items: numbers of the items in rows and in columns.
        normalize: correlations.
    """

    def __init__(self, moments: Moments, items: tuple[np.ndarray, np.ndarray], *, normalize: bool) -> None:
        draws, means, total = moments.draws, moments.means, moments.total
        self._inside = moments.comoments.flatten(0, 1)
        mean = (draws[..., None] * means).sum((0, 1)) / total
        self._offsets = ((means - mean) * draws.sqrt()[..., None]).flatten(0, 1)  # [B, N], √n_b (mean_b − mean)
        own = self._inside.diagonal(dim1=1, dim2=2) + self._offsets.square()
        m2 = own.sum(0)
        still = m2 < torch.finfo(torch.float64).tiny
        scale = torch.where(still, 0.0, m2.rsqrt()) if normalize else torch.full_like(m2, (total - 1) ** -0.5)
        self._scale, self._squares = scale, own * scale.square()
        of_chain = draws.sum(1)
        chain_means = (draws[..., None] * means).sum(1) / of_chain[:, None]
        self._levels = (chain_means - mean) * of_chain.sqrt()[:, None] * scale
        self._shares = (draws.flatten() / total).tolist()
        self.blocks = BlocksOfDraws(draws.shape[0], int(of_chain[0]), draws.shape[1])
        self._rows, self._columns = (torch.from_numpy(chosen) for chosen in items)
        self.shape = (len(items[0]), len(items[1]))
        self.own, self.symmetric = own_columns(*items), np.array_equal(*items)
        self.normalize, self.dtype, self.device = normalize, torch.float64, torch.device("cpu")

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Blocks added up."""
        out.zero_()
        for number in range(len(self._shares)):
            out.add_(self._block(number, rows, columns))
        if self.normalize:
            out.clamp_(-1.0, 1.0)
            itself = self._rows[rows, None] == self._columns[columns]
            out.copy_(torch.where(itself & (out > 0), 1.0, out))

    def deviations(self, rows: slice, columns: slice, values: Tensor) -> Iterator[Tensor]:
        """As of draws: a block's product is on record."""
        i, j = self._rows[rows], self._columns[columns]
        for number, share in enumerate(self._shares):
            tile = self._block(number, rows, columns)
            squares = self._squares[number]
            yield tile - (0.5 * values * (squares[i, None] + squares[j]) if self.normalize else share * values)

    def between(self, rows: slice, columns: slice) -> Tensor:
        """One product over chains."""
        return self._levels[:, self._rows[rows]].T @ self._levels[:, self._columns[columns]]

    def _block(self, number: int, rows: slice, columns: slice) -> Tensor:
        i, j = self._rows[rows], self._columns[columns]
        offsets = self._offsets[number]
        tile = self._inside[number][i[:, None], j] + offsets[i, None] * offsets[j]
        return tile * self._scale[i, None] * self._scale[j]


class GroupedMoments(Pairs):
    """Means over groups of `MomentPairs` of all items.

    Args:
        inner: all pairs.
        left: [N, G] whether an item is in each group of the rows.
        right: [N, H] likewise, of the columns.
        exclude_self: leave out the pairs of an item with itself.
    """

    def __init__(self, inner: MomentPairs, left: Tensor, right: Tensor, *, exclude_self: bool) -> None:
        self.inner, self.left, self.right = inner, left.to(inner.dtype), right.to(inner.dtype)
        self.shape, self.symmetric = (left.shape[1], right.shape[1]), torch.equal(left, right)
        self.own = torch.full((left.shape[1],), -1)
        self.blocks, self.normalize, self.dtype, self.device = inner.blocks, inner.normalize, inner.dtype, inner.device
        self._every = (slice(0, inner.shape[0]), slice(0, inner.shape[1]))
        self._all = torch.empty(inner.shape, dtype=inner.dtype)
        inner.fill(*self._every, self._all)
        self.absent = self._all.diagonal().isnan()
        self._counted = (~(self.absent[:, None] | self.absent)).to(inner.dtype)
        if exclude_self:
            self._counted.fill_diagonal_(0.0)

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Of the values."""
        out.copy_(self._mean(self._all, rows, columns))

    def deviations(self, rows: slice, columns: slice, values: Tensor) -> Iterator[Tensor]:
        """Of the deviations: a mean is linear."""
        for deviation in self.inner.deviations(*self._every, self._all):
            yield self._mean(deviation, rows, columns)

    def between(self, rows: slice, columns: slice) -> Tensor:
        """Of the chains' part."""
        return self._mean(self.inner.between(*self._every), rows, columns)

    def _mean(self, matrix: Tensor, rows: slice, columns: slice) -> Tensor:
        left, right = self.left[:, rows], self.right[:, columns]
        total = left.T @ (torch.where(self._counted > 0, matrix, 0.0) @ right)
        return total / (left.T @ (self._counted @ right))  # 0/0 is NaN: no such pair
