"""The first call of a stack's model: once with another number of rows, so that what carries the batch is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sltfast.stacking.lanes import Lanes

FEWEST = 2  # rows a lane: with one row, a size of L and one of L·B look alike


def with_other_rows(lanes: Lanes, args: Any, kwargs: Any) -> tuple[Any, Any, int] | None:
    """A call's arguments with B' rows a lane, where no other size of them is a multiple of L·B'.

    A tensor [T, …] that all rows share looks folded when T happens to be a multiple of L·B. At B' it does not, and what
    each module then notes about its inputs (``Habit``) holds for every later call.

    Args:
        lanes: the lanes, with B of the call as it is.
        args: positional arguments of the model's forward.
        kwargs: named ones.

    Returns:
        args, kwargs and B', or None where no argument carries a folded batch of several lanes.
    """
    flat, spec = pytree.tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, Tensor) and value.ndim]
    folded = lanes.count * lanes.batch
    if lanes.count == 1 or not any(len(tensor) == folded for tensor in tensors):
        return None
    sizes = {size for tensor in tensors for size in tensor.shape[len(tensor) == folded :] if size > 1}
    rows = FEWEST
    while any(size % (lanes.count * rows) == 0 for size in sizes):
        rows += 1
    chosen = torch.arange(rows) % lanes.batch

    def other(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != folded:
            return value
        return lanes.split(value).index_select(1, chosen.to(value.device)).flatten(0, 1)

    given, named = pytree.tree_unflatten([other(value) for value in flat], spec)
    return given, named, rows
