"""Influences as rows of passages: the matrix where there is one, and the nearest neighbours of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

SIDES = ("batch_1", "batch_2")


class Neighbour(NamedTuple):
    """A passage, its influence and the standard error (NaN where it is not known)."""

    item: int
    value: float
    se: float


@dataclass(frozen=True)
class Influence:
    """Influences between passages.

    Attributes:
        rows: which passage each row is, a number into ``input_ids``.
        columns: which passage each column is; empty where only neighbours were kept.
        value: [rows, columns], or None where only neighbours were kept.
        se: its standard errors, if there are any.
        found: [rows] the neighbours of each row that were kept; empty lists where there is a matrix.
        averaged: whether ``value`` is a mean over pairs of tokens.
    """

    rows: list[int]
    columns: list[int]
    value: np.ndarray | None
    se: np.ndarray | None
    found: list[list[Neighbour]]
    averaged: bool

    def nearest(self, row: int, count: int) -> tuple[list[Neighbour], list[Neighbour]]:
        """The largest positive and the largest negative of a row, largest size first, the passage itself left out."""
        others = [one for one in self._candidates(row) if one.item != self.rows[row] and np.isfinite(one.value)]
        ascending = sorted(others, key=lambda one: one.value)
        above = [one for one in reversed(ascending[-count:]) if one.value > 0]
        return above, [one for one in ascending[:count] if one.value < 0]

    def _candidates(self, row: int) -> list[Neighbour]:
        if self.value is None:
            return self.found[row]
        errors = np.full(len(self.columns), np.nan) if self.se is None else self.se[row]
        return [Neighbour(*one) for one in zip(self.columns, self.value[row].tolist(), errors.tolist(), strict=True)]


def influence_of(root: xr.Dataset) -> Influence:
    """Read what ``sltfast.compute_bif`` returns, or devinterp's.

    Influences of tokens become means over the pairs of tokens; kept neighbours of tokens become neighbours of their
    passage, each passage once, by its largest.
    """
    influences = root["influences"]
    rows = _numbers(root, "batch_1")
    if "neighbour" in influences.dims:
        return Influence(rows, [], None, None, _kept(root), averaged=False)
    over = [dim for dim in influences.dims if dim not in SIDES]
    value, se = (None if one is None else _mean(one, over) for one in (influences, root.get("influences_se")))
    return Influence(rows, _numbers(root, "batch_2"), value, se, [[] for _ in rows], averaged=bool(over))


def _numbers(root: xr.Dataset, side: str) -> list[int]:
    return [int(item) for item in root[side].values]


def _mean(values: xr.DataArray, over: list[object]) -> np.ndarray:
    found: np.ndarray = values.transpose(*SIDES, ...).mean(over).values.astype(np.float64)
    return found


def _kept(root: xr.Dataset) -> list[list[Neighbour]]:
    shape = (root.sizes["batch_1"], -1)
    values = root["influences"].values.reshape(shape)
    errors = root["influences_se"].values.reshape(shape) if "influences_se" in root else np.full(values.shape, np.nan)
    items = root["neighbour_batch"].values.reshape(shape)
    rows = []
    for each in zip(items.tolist(), values.tolist(), errors.tolist(), strict=True):
        largest: dict[int, Neighbour] = {}
        for one in sorted((Neighbour(*found) for found in zip(*each, strict=True)), key=lambda one: -abs(one.value)):
            if one.item >= 0:
                largest.setdefault(one.item, one)
        rows.append(list(largest.values()))
    return rows
