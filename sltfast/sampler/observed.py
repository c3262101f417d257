"""Losses of an observable at the weights of some lanes, and their weighted means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sltfast.losses import ItemLosses


class Observed(NamedTuple):
    """Losses of an observable of R rows in L lanes.

    Attributes:
        values: [L, R, T] float32, or float64 where the model computes in it; NaN where the weight is 0 (padding).
        weights: [L, R, T], or None (all 1).
    """

    values: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, batches: Sequence[ItemLosses], lanes: int) -> Observed:
        """The batches of an observable, [L·B, T] each, one after another."""
        weighted = any(losses.weights is not None for losses in batches)
        values, weights = [], []
        for losses in batches:
            own = losses.values.detach()
            own = (own if own.dtype == torch.float64 else own.float()).unflatten(0, (lanes, -1))
            if weighted:
                counts = torch.ones_like(own) if losses.weights is None else losses.weights.detach().reshape(own.shape)
                weights.append(counts)
                own = own.masked_fill(counts == 0, torch.nan)
            values.append(own)
        return cls(_joined(values), _joined(weights) if weighted else None)

    def mean(self) -> Tensor:
        """[L] float64: L = Σ weights·values / Σ weights over all rows; NaN where nothing counts."""
        return self._mean((1, 2), self.weights)

    def row_means(self) -> Tensor:
        """[L, R] float64: of each row the mean over the positions that count, as of recorded traces."""
        return self._mean((2,), None if self.weights is None else self.weights != 0)

    def _mean(self, dims: tuple[int, ...], weights: Tensor | None) -> Tensor:
        if weights is None:
            return self.values.mean(dims, dtype=torch.float64)
        weights = weights.double()
        return torch.where(weights != 0, weights * self.values, 0).sum(dims) / weights.sum(dims)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
