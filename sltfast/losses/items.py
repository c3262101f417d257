"""Losses of a batch, item by item, and their means: of the whole batch, or of each lane's rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LossFn = Callable[[nn.Module, Any], Any]
LaneWeights = Callable[[nn.Parameter], Tensor | None]
"""``lane_weights(parameter)``: its weights in every lane, [L, *shape], or None where the lanes share it."""


class ItemLosses(NamedTuple):
    """Losses of a batch: ``values`` [B, T] (T = 1 for one loss an item), ``weights`` [B, T] or None (all 1).

    L(batch) = Σ weights·values / Σ weights; a weight of 0 ignores the entry (padding). A batch that L lanes share holds
    L·B rows, lane-major: row l·B + b is row b of lane l.
    """

    values: Tensor
    weights: Tensor | None

    def mean(self, dtype: torch.dtype | None = None) -> Tensor:
        """The batch's mean loss, accumulated in ``dtype`` (default: float32, or float64 where values are)."""
        return self.lane_means(1, dtype)[0]

    def lane_means(self, lanes: int, dtype: torch.dtype | None = None) -> Tensor:
        """[L] mean loss of each lane's rows, accumulated as in ``mean``; 0 for a lane of nothing but padding.

        Raises:
            ValueError: the rows cannot be shared out evenly.
        """
        if dtype is None:
            dtype = torch.float64 if self.values.dtype == torch.float64 else torch.float32
        values = by_lane(self.values, lanes).to(dtype)
        if self.weights is None:
            return values.mean(1)
        weights = by_lane(self.weights, lanes).to(dtype)
        total = weights.sum(1)
        # a lane of nothing but padding has loss 0 and gradient 0
        return torch.where(weights != 0, weights * values, 0).sum(1) / torch.where(total == 0, 1, total)

    def detach(self) -> ItemLosses:
        """The same losses without their history."""
        return ItemLosses(self.values.detach(), None if self.weights is None else self.weights.detach())

    def recorded(self) -> Tensor:
        """[B, T] float32, detached; NaN where the weight is 0."""
        values = self.values.detach().float()
        return values if self.weights is None else values.masked_fill(self.weights == 0, torch.nan)


class Objective(NamedTuple):
    """What lanes descend: ``total`` [], κ·Σ_l L_l, differentiable (lanes share no moving weight, so each gets the
    gradient of its own mean); ``losses`` of all rows, detached.
    """

    total: Tensor
    losses: ItemLosses


def by_lane(rows: Tensor, lanes: int) -> Tensor:
    """[L·B, …] as [L, B·…].

    Raises:
        ValueError: the rows cannot be shared out evenly.
    """
    if lanes < 1 or len(rows) % lanes:
        raise ValueError(f"{len(rows)} rows cannot be shared by {lanes} lanes (give each lane the same batch)")
    return rows.reshape(lanes, -1)
