"""Embeddings: rows of the lane's own table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sltfast.gradient_home import home_of
from sltfast.stacking.lanes import Habit
from sltfast.stacking.site import Site

ONE_BY_ONE = 32  # up to this many lanes, a row gather each is faster than one gather over two indices


def embedding(site: Site) -> Callable[..., Tensor]:
    """``nn.Embedding``; the row at ``padding_idx`` gets no gradient."""
    return _gather(site)


def own_embedding(site: Site) -> Callable[..., Any]:
    """A subclass with a forward of its own (scaled rows, positions from a mask): that forward, its gather folded."""
    gather = _gather(site)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Gathering(gather, site.module._parameters["weight"]):
            return site.forward(*args, **kwargs)

    return forward


def _gather(site: Site) -> Callable[[Tensor], Tensor]:
    module: Any = site.module
    lanes, habit = site.lanes, Habit(site.lanes)
    table = site.moving("weight")
    assert table is not None

    def forward(input: Tensor) -> Tensor:
        folded = habit.folded(input)
        ids = input.reshape(lanes.count, -1) if folded else input.reshape(1, -1).expand(lanes.count, -1)
        rows: Tensor = _Rows.apply(table.dense(), ids, module.padding_idx)
        if folded:
            return rows.view(*input.shape, -1)
        return lanes.spread(rows.view(lanes.count, *input.shape, -1))

    return forward


class _Gathering(TorchFunctionMode):
    """While it is on, ``F.embedding`` of the guarded table gathers from the lanes' tables."""

    def __init__(self, gather: Callable[[Tensor], Tensor], guard: Any) -> None:
        super().__init__()
        self.gather, self.guard = gather, guard

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace that one call."""
        if func is F.embedding and len(args) > 1 and args[1] is self.guard:
            return self.gather(args[0])
        return func(*args, **(kwargs or {}))


def is_plain(module: Any) -> bool:
    """Whether reading rows is all that the module does."""
    return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse


class _Rows(torch.autograd.Function):
    """Rows [L, N, d] of tables [L, V, d] at ids [L, N]; the tables may be strided views."""

    @staticmethod
    def forward(ctx: Any, tables: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        lanes, _, width = tables.shape
        if tables.device.type == "cpu" and lanes <= ONE_BY_ONE:
            rows = tables.new_empty(*ids.shape, width)
            for lane in range(lanes):
                torch.index_select(tables[lane], 0, ids[lane], out=rows[lane])
        else:
            rows = tables[torch.arange(lanes, device=ids.device).unsqueeze(1), ids]
        ctx.save_for_backward(ids)
        ctx.shape, ctx.padding, ctx.home = tables.shape, padding, home_of(tables)
        ctx.dtype = tables.dtype
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (ids,) = gradients, ctx.saved_tensors
        lanes, vocabulary, width = ctx.shape
        flat = (ids + vocabulary * torch.arange(lanes, device=ids.device).unsqueeze(1)).flatten()
        to_rows = gradient.reshape(-1, width)
        if gradient.device.type == "cpu":
            # adds row by row: a third of the time of embedding's own backward here
            room = ctx.home.with_zeros(flat) if ctx.home is not None and gradient.dtype == ctx.dtype else None
            zeros = gradient.new_zeros(ctx.shape) if room is None else room
            to_tables = zeros.view(-1, width).index_add_(0, flat, to_rows)
        else:
            to_tables = torch.ops.aten.embedding_dense_backward(to_rows, flat, lanes * vocabulary, -1, False)
        to_tables = to_tables.view(ctx.shape)
        if ctx.padding is not None:
            to_tables[:, ctx.padding] = 0
        return to_tables, None, None
