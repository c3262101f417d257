"""Means of covariances over groups of variables: linear in the losses, so that no pair of variables is formed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sltfast.estimators.bif.pairs import DrawPairs, Pairs, product
from sltfast.estimators.bif.side import Side

GROUPS_AT_ONCE = 64  # whose members are gathered at a time


@dataclass(frozen=True)
class Groups:
    """Variables in groups, as columns sorted by group; those without weight are in none.

    Attributes:
        members: columns of the variables, group after group.
        starts: [G + 1] where each group begins among them.
    """

    members: Tensor
    starts: list[int]

    @classmethod
    def of(cls, numbers: Tensor, count: int, side: Side) -> Groups:
        """From the group number of each variable, −1 for none; a variable that is NaN is in none.

        Args:
            numbers: int64 [N].
            count: G.
            side: whose variables they are.
        """
        numbers = torch.where(side.z.isnan().all(0), -1, numbers.to(side.z.device))
        order = torch.argsort(numbers, stable=True)
        sizes = torch.bincount(numbers[numbers >= 0], minlength=count)
        members = order[len(order) - int(sizes.sum()) :]
        return cls(members, [0, *torch.cumsum(sizes, 0).tolist()])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Tensor:
        """[G] variables in each, at least 1 so that it can be divided by."""
        return torch.tensor(self.starts, device=self.members.device).diff().clamp(min=1)

    def span(self, groups: slice) -> tuple[Tensor, Tensor]:
        """Members of some groups, and which of those groups (counted from the first) each is in."""
        bounds = self.starts[groups.start : groups.stop + 1]
        members = self.members[bounds[0] : bounds[-1]]
        counts = torch.tensor(bounds, device=members.device).diff()
        return members, torch.repeat_interleave(torch.arange(len(counts), device=members.device), counts)

    def mean_of(self, side: Side) -> Side:
        """Group means as variables of their own: Z̄ = mean of z over members; NaN for a group without."""
        total = torch.zeros(side.z.shape[0], len(self), dtype=side.z.dtype, device=side.z.device)
        for first in range(0, len(self), GROUPS_AT_ONCE):
            groups = slice(first, min(first + GROUPS_AT_ONCE, len(self)))
            members, which = self.span(groups)
            total[:, groups].index_add_(1, which, side.z[:, members])
        total /= self.sizes
        total[:, torch.tensor(self.starts, device=total.device).diff() == 0] = torch.nan
        return Side(total, side.blocks, normalize=False)


class GroupPairs(Pairs):
    """Mean of Cov or Corr over all pairs of two groups: the product of the groups' mean draws."""

    def __init__(
        self,
        left: Side,
        right: Side,
        left_groups: Groups,
        right_groups: Groups,
        own: Tensor,
        *,
        symmetric: bool,
    ) -> None:
        self.members = DrawPairs(left, right, own, symmetric=symmetric)
        self.groups = (left_groups, right_groups)
        means = left_groups.mean_of(left)
        self.means = DrawPairs(means, means if symmetric else right_groups.mean_of(right), own, symmetric=symmetric)
        self.shape, self.blocks = self.means.shape, left.blocks
        self.own, self.symmetric, self.normalize = own, symmetric, left.normalize
        self.dtype, self.device = self.means.dtype, self.means.device

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """A product of group means."""
        self.means.fill(rows, columns, out)

    def between(self, rows: slice, columns: slice) -> Tensor:
        """A product of group means."""
        return self.means.between(rows, columns)

    def deviations(self, rows: slice, columns: slice, values: Tensor) -> Iterator[Tensor]:
        """Of a mean of covariances: as of one. Of a mean of correlations, from the members' squares as well:

            D_b[g, h] = Σ_{t∈b} Z̄_g Z̄_h − ½ mean_{i∈g} s_b,i·c_i,h − ½ mean_{j∈h} s_b,j·c_j,g

        with c_i,h = Σ_t z_i Z̄_h and s_b,i = Σ_{t∈b} z_i².
        """
        if not self.normalize:
            yield from self.means.deviations(rows, columns, values)
            return
        left, which_left = self.groups[0].span(rows)
        right, which_right = self.groups[1].span(columns)
        z_left, z_right = self.members.left.z[:, left], self.members.right.z[:, right]
        of_left, of_right = self.means.left.z[:, rows], self.means.right.z[:, columns]
        to_right = product(
            z_left, of_right, torch.empty(len(left), of_right.shape[1], dtype=self.dtype, device=self.device)
        )
        to_left = product(
            z_right, of_left, torch.empty(len(right), of_left.shape[1], dtype=self.dtype, device=self.device)
        )
        sizes_left, sizes_right = self.groups[0].sizes[rows], self.groups[1].sizes[columns]
        tile = torch.empty_like(values)
        for number, draws in enumerate(self.blocks.rows):
            product(of_left[draws], of_right[draws], tile)
            squares = self.members.left.squares[number, left, None] * to_right
            tile -= 0.5 * torch.zeros_like(values).index_add_(0, which_left, squares) / sizes_left[:, None]
            squares = (self.members.right.squares[number, right, None] * to_left).T
            tile -= 0.5 * torch.zeros_like(values).index_add_(1, which_right, squares) / sizes_right
            yield tile
