"""What one use of a parameter leaves of every item's gradient: its factors, never the gradient itself.

An item's gradient of a parameter is the sum over the parameter's uses, so |g_i|² has a cross term for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sltfast.ops import grouped_gradient_inner, grouped_gradient_products

ROOM = 1 << 25
"""Bytes for what must be made of several items side by side; one item's at least."""


@dataclass(frozen=True)
class Outer:
    """g_i = Σ_t left[i, t]ᵀ right[i, t]: Linear, Conv1D, convolutions (t: positions; ``groups`` blocks a gradient)."""

    left: Tensor  # [B·groups, T, p]
    right: Tensor  # [B·groups, T, q]
    groups: int = 1

    def __len__(self) -> int:
        return len(self.left) // self.groups

    def some(self, items: slice) -> Outer:
        """The use by some of the items."""
        part = slice(items.start * self.groups, items.stop * self.groups)
        return Outer(self.left[part], self.right[part], self.groups)

    def form(self) -> Tensor:
        """g_i, [B, groups·p·q]."""
        return (self.left.mT @ self.right).reshape(len(self), -1)

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

    def some(self, items: slice) -> Rows:
        """The use by some of the items."""
        return Rows(self.ids[items], self.values[items], self.height)

    def form(self) -> Tensor:
        """g_i, [B, height·d]."""
        formed = self.values.new_zeros(len(self), self.height, self.values.shape[-1])
        return formed.scatter_add_(1, self.ids[..., None].expand_as(self.values), self.values).flatten(1)

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

    def some(self, items: slice) -> Whole:
        """The use by some of the items."""
        return Whole(self.values[items])

    def form(self) -> Tensor:
        """g_i, [B, numel]."""
        return self.values

    def along(self, direction: Tensor) -> Tensor:
        """⟨g_i, v⟩ [B] for v flat."""
        return self.values @ direction


@dataclass(frozen=True)
class Patches:
    """A use that is ``Outer`` with a larger right factor than is worth holding: made for a few items at a time."""

    make: Callable[[slice], Outer]
    count: int  # B
    numbers: int  # in the factors of one item

    def __len__(self) -> int:
        return self.count

    def some(self, items: slice) -> Outer:
        """The use by some of the items."""
        return self.make(items)

    def along(self, direction: Tensor) -> Tensor:
        """⟨g_i, v⟩ [B] for v flat."""
        return torch.cat([self.make(items).along(direction) for items in _slices(len(self), self.numbers)])


Held = Outer | Rows | Whole
Use = Held | Patches


def squared_norms(uses: Sequence[Use], shape: torch.Size, mask: Tensor | None) -> Tensor:
    """|Σ_a g_i^(a)|² [B] of one parameter, over the coordinates where ``mask`` (flat) is True, or over all."""
    numbers = max((use.numbers for use in uses if isinstance(use, Patches)), default=0)
    if numbers:
        slices = _slices(len(uses[0]), numbers)
        return torch.cat([squared_norms([use.some(items) for use in uses], shape, mask) for items in slices])
    held = [use for use in uses if not isinstance(use, Patches)]
    block = None if mask is None else _block(mask, shape)
    if not _of_one_kind(held) or (mask is not None and (block is None or _grouped(held))):
        return _formed(held, shape, mask)
    if mask is not None and block is not None:
        held = [_restricted(use, *block, mask) for use in held]
    total = sum(inner(use, use) for use in held)
    cross = [inner(a, b) for k, a in enumerate(held) for b in held[k + 1 :]]
    return torch.as_tensor(total + 2 * sum(cross))


def _of_one_kind(uses: Sequence[Held]) -> bool:
    """Whether every two of the uses have an inner product without forming a gradient."""
    whole = [isinstance(use, Whole) for use in uses]
    groups = {use.groups if isinstance(use, Outer) else 1 for use in uses}
    return all(whole) or (not any(whole) and len(groups) == 1)


def _grouped(uses: Sequence[Held]) -> bool:
    return any(isinstance(use, Outer) and use.groups > 1 for use in uses)


def inner(a: Held, b: Held) -> Tensor:
    """⟨g_i^(a), g_i^(b)⟩ [B] of two uses of one kind."""
    if isinstance(a, Whole) and isinstance(b, Whole):
        return (a.values * b.values).sum(1)
    if isinstance(a, Outer) and isinstance(b, Outer):
        return grouped_gradient_products(a.left, a.right, b.left, b.right).reshape(-1, a.groups).sum(1)
    if isinstance(a, Rows) and isinstance(b, Rows):
        return _rows_with_rows(a, b)
    if isinstance(a, Outer) and isinstance(b, Rows):
        return inner(b, a)
    if isinstance(a, Rows) and isinstance(b, Outer):
        slices = _slices(len(a), 2 * b.left.shape[1] * a.ids.shape[1])
        return torch.cat([_rows_with_outer(a.some(items), b.some(items)) for items in slices])
    raise TypeError(f"{type(a).__name__} and {type(b).__name__} are not of one kind: form the gradients")


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


def _restricted(use: Held, rows: Tensor, columns: Tensor, mask: Tensor) -> Held:
    if isinstance(use, Outer):
        return Outer(use.left[..., rows], use.right[..., columns])
    if isinstance(use, Rows):
        values = use.values[..., columns] * rows[use.ids][..., None]
        return Rows(torch.cumsum(rows, 0).sub(1).clamp(min=0)[use.ids], values, int(rows.sum()))
    return Whole(use.values[:, mask])


def _slices(count: int, numbers: int) -> Iterator[slice]:
    """Slices of ``count`` items of so many numbers each, as large as the room for them."""
    step = max(1, ROOM // (8 * max(1, numbers)))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _formed(uses: Sequence[Held], shape: torch.Size, mask: Tensor | None) -> Tensor:
    """The items' gradients formed, a few at a time."""
    parts = []
    for items in _slices(len(uses[0]), shape.numel()):
        gradient = torch.as_tensor(sum(use.some(items).form() for use in uses))
        parts.append((gradient if mask is None else gradient[:, mask]).square().sum(1))
    return torch.cat(parts)
