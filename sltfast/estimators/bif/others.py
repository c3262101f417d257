"""Means over pairs of different variables: a group's influence on itself without each member's own variance."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sltfast.estimators.bif.groups import GroupPairs, Groups
from sltfast.estimators.bif.pairs import Pairs


class OtherPairs(Pairs):
    """`GroupPairs` of the same variables on both sides, without the pairs of a variable with itself.

        mean_{i∈g, j∈h, i≠j} = (|g||h|·mean − Σ_{i∈g∩h} v_i)/(|g||h| − |g∩h|),

    where v_i is the variance, or 1 (a correlation with itself, which no draw moves); NaN where there is no such pair.
    """

    def __init__(self, inner: GroupPairs) -> None:
        self.inner = inner
        self.shape, self.own, self.symmetric = inner.shape, inner.own, inner.symmetric
        self.blocks, self.normalize, self.dtype, self.device = inner.blocks, inner.normalize, inner.dtype, inner.device
        variables = len(inner.members.left)
        numbers = [self._numbers(groups, variables) for groups in inner.groups]
        self.both = torch.nonzero((numbers[0] >= 0) & (numbers[1] >= 0))[:, 0]
        self.where = (numbers[0][self.both], numbers[1][self.both])

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """The inner mean without the diagonal."""
        self.inner.fill(rows, columns, out)
        squares = self.inner.members.left.squares.sum(0)[self.both]
        self._without(rows, columns, out, squares)

    def deviations(self, rows: slice, columns: slice, values: Tensor) -> Iterator[Tensor]:
        """The inner ones without the diagonal's, which are Σ_{t∈b} z_i² − (n_b/n)·Cov, or 0."""
        inner = torch.empty_like(values)
        self.inner.fill(rows, columns, inner)
        every = self.inner.members.left.squares[:, self.both]
        for number, deviation in enumerate(self.inner.deviations(rows, columns, inner)):
            own = every[number] - self.blocks.shares[number] * every.sum(0)
            self._without(rows, columns, deviation, torch.zeros_like(own) if self.normalize else own)
            yield deviation

    def between(self, rows: slice, columns: slice) -> Tensor:
        """The inner part without the diagonal's."""
        tile = self.inner.between(rows, columns)
        self._without(rows, columns, tile, self.inner.members.left.levels.square().sum(0)[self.both])
        return tile

    def _without(self, rows: slice, columns: slice, tile: Tensor, own: Tensor) -> None:
        at, to = self.where
        inside = (at >= rows.start) & (at < rows.stop) & (to >= columns.start) & (to < columns.stop)
        place = (at[inside] - rows.start, to[inside] - columns.start)
        total, count = torch.zeros_like(tile), torch.zeros_like(tile)
        total.index_put_(place, own[inside].to(tile.dtype), accumulate=True)
        count.index_put_(place, torch.ones_like(own[inside], dtype=tile.dtype), accumulate=True)
        sizes = self.inner.groups[0].sizes[rows, None] * self.inner.groups[1].sizes[columns].to(tile.dtype)
        tile.mul_(sizes).sub_(total).div_(sizes - count)
        tile.masked_fill_(sizes == count, torch.nan)

    @staticmethod
    def _numbers(groups: Groups, variables: int) -> Tensor:
        numbers = torch.full((variables,), -1, device=groups.members.device)
        _, which = groups.span(slice(0, len(groups)))
        numbers[groups.members] = which
        return numbers
