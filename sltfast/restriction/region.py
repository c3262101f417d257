"""The coordinates of one parameter that move: a few rectangles of its plane, or a mask where they are no such thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

MOST_RECTANGLES = 64
Interval = tuple[int, int]


def plane_of(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of a parameter seen as a matrix [shape[0], rest]; vectors have one column, scalars are 1 × 1."""
    rows = shape[0] if len(shape) else 1
    columns = 1
    for size in shape[1:]:
        columns *= size
    return rows, columns


@dataclass(frozen=True, order=True)
class Rectangle:
    """Rows r0 <= r < r1 and columns c0 <= c < c1 of a plane."""

    rows: Interval
    columns: Interval

    @property
    def numel(self) -> int:
        """Coordinates inside."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])


@dataclass(frozen=True)
class Region:
    """A set of coordinates of a plane [R, C].

    The form is canonical: rectangles that are disjoint, each as high as equal rows reach and as wide as a run of
    columns; the same set is the same region, however it was asked for.

    Attributes:
        plane: (R, C).
        rectangles: at most ``MOST_RECTANGLES``, by row and column; empty where a mask says it.
        mask: flat bool [R·C] on the CPU, where so few rectangles do not tell it; else None.
    """

    plane: tuple[int, int]
    rectangles: tuple[Rectangle, ...]
    mask: Tensor | None = None

    @classmethod
    def whole(cls, plane: tuple[int, int]) -> Region:
        """All of the plane."""
        return cls.of_rectangles(plane, [Rectangle((0, plane[0]), (0, plane[1]))])

    @classmethod
    def of_rectangles(cls, plane: tuple[int, int], rectangles: Iterable[Rectangle]) -> Region:
        """The union of rectangles, which may overlap."""
        asked = [r for r in rectangles if r.numel > 0]
        cuts = sorted({edge for r in asked for edge in r.rows})
        bands: list[tuple[Interval, list[Interval]]] = []
        for top, bottom in pairwise(cuts):
            runs = _merged(r.columns for r in asked if r.rows[0] <= top and bottom <= r.rows[1])
            if bands and bands[-1][0][1] == top and bands[-1][1] == runs:
                bands[-1] = ((bands[-1][0][0], bottom), runs)
            else:
                bands.append(((top, bottom), runs))
        disjoint = tuple(Rectangle(rows, columns) for rows, runs in bands for columns in runs)
        if len(disjoint) > MOST_RECTANGLES:
            return cls(plane, (), _painted(plane, disjoint))
        return cls(plane, disjoint)

    @classmethod
    def of_mask(cls, plane: tuple[int, int], mask: Tensor) -> Region:
        """The coordinates where a bool mask of R·C elements is True."""
        grid = mask.reshape(plane)
        if not bool(grid.any()):
            return cls(plane, ())
        differs = (grid[1:] != grid[:-1]).any(1).nonzero().flatten()
        starts = [0, *(differs + 1).tolist()]
        rectangles: list[Rectangle] = []
        if len(starts) <= 2 * MOST_RECTANGLES + 1:  # between two bands that move lies at most one that does not
            ends = [*starts[1:], plane[0]]
            for top, bottom in zip(starts, ends, strict=True):
                rectangles += [Rectangle((top, bottom), columns) for columns in _runs(grid[top])]
                if len(rectangles) > MOST_RECTANGLES:
                    break
            else:
                return cls(plane, tuple(rectangles))
        return cls(plane, (), grid.reshape(-1).clone())

    @property
    def numel(self) -> int:
        """Coordinates that move."""
        return sum(r.numel for r in self.rectangles) if self.mask is None else int(self.mask.sum())

    @property
    def is_whole(self) -> bool:
        """Whether all of the plane moves."""
        return self.mask is None and self.numel == self.plane[0] * self.plane[1]

    def dense(self) -> Tensor:
        """Flat bool [R·C]: where it moves."""
        return _painted(self.plane, self.rectangles) if self.mask is None else self.mask

    def union(self, other: Region) -> Region:
        """What moves in either of two regions of the same plane."""
        if self.mask is None and other.mask is None:
            return Region.of_rectangles(self.plane, [*self.rectangles, *other.rectangles])
        return Region.of_mask(self.plane, self.dense() | other.dense())


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Disjoint sorted intervals, touching ones joined."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _runs(row: Tensor) -> list[Interval]:
    """Runs of True in a row, at most one more than ``MOST_RECTANGLES``."""
    step = torch.diff(
        row.to(torch.int8), prepend=torch.zeros(1, dtype=torch.int8), append=torch.zeros(1, dtype=torch.int8)
    )
    starts = (step == 1).nonzero().flatten()[: MOST_RECTANGLES + 1].tolist()
    ends = (step == -1).nonzero().flatten()[: MOST_RECTANGLES + 1].tolist()
    return list(zip(starts, ends, strict=True))


def _painted(plane: tuple[int, int], rectangles: Iterable[Rectangle]) -> Tensor:
    grid = torch.zeros(plane, dtype=torch.bool, device="cpu")
    for r in rectangles:
        grid[r.rows[0] : r.rows[1], r.columns[0] : r.columns[1]] = True
    return grid.reshape(-1)
