"""What one use of a parameter leaves of every item's gradient: its factors, never the gradient itself.

An item's gradient of a parameter is the sum over the parameter's uses, so |g_i|² has a cross term for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sltfast.ops import grouped_gradient_inner, grouped_gradient_products

FORMED_BYTES = 1 << 25
"""Gradients formed side by side, where they must be, take no more than this (but one item's at least)."""


@dataclass(frozen=True)
class Outer:
    """g_i = Σ_t left[i, t]ᵀ right[i, t]: Linear, Conv1D, convolutions (t: positions; ``groups`` blocks a gradient)."""

    left: Tensor  # [B·groups, T, p]
    right: Tensor  # [B·groups, T, q]
    groups: int = 1

    def __len__(self) -> int:
        return len(self.left) // self.groups

    def form(self, items: slice) -> Tensor:
        """[b, groups·p·q]."""
        part = slice(items.start * self.groups, items.stop * self.groups)
        return (self.left[part].mT @ self.right[part]).reshape(items.stop - items.start, -1)

    def along(self, direction: Tensor) -> Tensor:
        """⟨g_i, v⟩ [B] for v flat."""
        blocks = direction.reshape(self.groups, self.left.shape[-1], self.right.shape[-1])
        parts = [
            grouped_gradient_inner(self.left[g :: self.groups], self.right[g :: self.groups], blocks[g])
            for g in range(self.groups)
        ]
        return torch.as_tensor(sum(parts))


@dataclass(frozen=True)
class Rows:
    """g_i has values[i, t] added to row ids[i, t], and zeros elsewhere: Embedding."""

    ids: Tensor  # int64 [B, T]
    values: Tensor  # [B, T, d]
    height: int  # rows of the parameter

    def __len__(self) -> int:
        return len(self.ids)

    def form(self, items: slice) -> Tensor:
        """[b, height·d]."""
        ids, values = self.ids[items], self.values[items]
        formed = values.new_zeros(len(ids), self.height, values.shape[-1])
        return formed.scatter_add_(1, ids[..., None].expand_as(values), values).flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """⟨g_i, v⟩ [B] for v flat."""
        table = direction.reshape(self.height, -1)
        return (table[self.ids] * self.values).sum((1, 2))


@dataclass(frozen=True)
class Whole:
    """g_i itself, where it is no larger than the layer's own output: biases, gains of norms, elementwise weights."""

    values: Tensor  # [B, numel]

    def __len__(self) -> int:
        return len(self.values)

    def form(self, items: slice) -> Tensor:
        """[b, numel]."""
        return self.values[items]

    def along(self, direction: Tensor) -> Tensor:
        """⟨g_i, v⟩ [B] for v flat."""
        return self.values @ direction


Use = Outer | Rows | Whole


def squared_norms(uses: Sequence[Use], shape: torch.Size, mask: Tensor | None) -> Tensor:
    """|Σ_a g_i^(a)|² [B] of one parameter, over the coordinates where ``mask`` (flat) is True, or over all."""
    if mask is not None:
        block = _block(mask, shape)
        if block is None or any(isinstance(use, Outer) and use.groups > 1 for use in uses):
            return _formed(uses, lambda g: g[:, mask].square().sum(1))
        uses = [_restricted(use, *block, mask) for use in uses]
    if len({(type(use), getattr(use, "groups", 1)) for use in uses} - {(Rows, 1)}) > 1:
        return _formed(uses, lambda g: g.square().sum(1))
    total = sum(inner(use, use) for use in uses)
    cross = [inner(a, b) for k, a in enumerate(uses) for b in uses[k + 1 :]]
    return torch.as_tensor(total + 2 * sum(cross))


def inner(a: Use, b: Use) -> Tensor:
    """⟨g_i^(a), g_i^(b)⟩ [B]."""
    if isinstance(a, Outer) and isinstance(b, Outer) and a.groups == b.groups:
        return grouped_gradient_products(a.left, a.right, b.left, b.right).reshape(-1, a.groups).sum(1)
    if isinstance(a, Rows) and isinstance(b, Rows):
        return _rows_with_rows(a, b)
    if isinstance(a, Rows) and isinstance(b, Outer):
        return _rows_with_outer(a, b)
    if isinstance(a, Outer) and isinstance(b, Rows):
        return _rows_with_outer(b, a)
    both = [torch.cat([use.form(items) for items in _slices(use, 1)]) for use in (a, b)]
    return (both[0] * both[1]).sum(1)


def _rows_with_rows(a: Rows, b: Rows) -> Tensor:
    """Σ over the rows that an item touches, at most T of them: linear in T, where [T, T] matches would be quadratic."""
    items = torch.arange(len(a), device=a.ids.device)[:, None] * a.height
    keys = [(items + use.ids).flatten() for use in ((a,) if a is b else (a, b))]
    touched, index = torch.unique(torch.cat(keys), return_inverse=True)
    width = a.values.shape[-1]
    sums = [
        use.values.new_zeros(len(touched), width).index_add_(0, where, use.values.reshape(-1, width))
        for use, where in zip((a, b), index.split([len(key) for key in keys]), strict=False)
    ]
    products = (sums[0] * sums[-1]).sum(1)
    return products.new_zeros(len(a)).index_add_(0, touched // a.height, products)


def _rows_with_outer(rows: Rows, outer: Outer) -> Tensor:
    """Σ_{t,t'} left[t', id_t]·⟨right[t'], values[t]⟩: the unembedding's gradient is read at the item's own tokens."""
    columns = rows.ids[:, None, :].expand(-1, outer.left.shape[1], -1)
    return (outer.left.gather(2, columns) * (outer.right @ rows.values.mT)).sum((1, 2))


def _block(mask: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor] | None:
    """Rows and columns (bool) whose product the mask is, for a parameter seen as [first, rest]; else None."""
    table = mask.reshape(shape[0] if shape else 1, -1)
    rows, columns = table.any(1), table.any(0)
    return (rows, columns) if int(rows.sum()) * int(columns.sum()) == int(mask.sum()) else None


def _restricted(use: Use, rows: Tensor, columns: Tensor, mask: Tensor) -> Use:
    if isinstance(use, Outer):
        return Outer(use.left[..., rows], use.right[..., columns])
    if isinstance(use, Rows):
        values = use.values[..., columns] * rows[use.ids][..., None]
        return Rows(torch.cumsum(rows, 0).sub(1).clamp(min=0)[use.ids], values, int(rows.sum()))
    return Whole(use.values[:, mask])


def _slices(use: Use, numel: int) -> Iterator[slice]:
    step = max(1, FORMED_BYTES // (8 * max(1, numel)))
    for start in range(0, len(use), step):
        yield slice(start, min(start + step, len(use)))


def _formed(uses: Sequence[Use], reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """``reduce`` of the items' gradients, formed a few at a time."""
    numel = uses[0].form(slice(0, 1)).numel()
    parts = [reduce(torch.as_tensor(sum(use.form(items) for use in uses))) for items in _slices(uses[0], numel)]
    return torch.cat(parts)
