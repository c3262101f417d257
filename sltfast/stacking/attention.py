"""Attention inside a unit: vmap has no rule for the CPU's fused kernel, but lanes fold into its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_Scaling = tuple[float, bool, float | None, bool]  # dropout_p, is_causal, scale, enable_gqa


class FoldedAttention(TorchFunctionMode):
    """While it is on, ``scaled_dot_product_attention`` under vmap is one call for all lanes.

    Attributes:
        used: whether it was called.
    """

    used = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace that one function."""
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            self.used = True
            return _attend(*args, **given)
        return func(*args, **given)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    attended: Tensor = _Attention.apply(query, key, value, attn_mask, (dropout_p, is_causal, scale, enable_gqa))
    return attended


class _Attention(torch.autograd.Function):
    """softmax(q kᵀ / √d) v; what vmap is to do with it is said here."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: _Scaling) -> Tensor:
        return _plain(query, key, value, mask, scaling)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        query, key, value, mask, ctx.scaling = inputs
        ctx.save_for_backward(query, key, value, mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        query, key, value, mask = ctx.saved_tensors
        with torch.enable_grad():
            query, key, value = (part.detach().requires_grad_() for part in (query, key, value))
            output = _plain(query, key, value, mask, ctx.scaling)
        return (*torch.autograd.grad(output, (query, key, value), gradients), None, None)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: _Scaling
    ) -> Any:
        """[L, B, H, T, d] as [L·B, H, T, d]."""
        lanes = info.batch_size

        def ahead(part: Tensor, dim: int | None) -> Tensor:
            return part.expand(lanes, *part.shape) if dim is None else part.movedim(dim, 0)

        query, key, value = (ahead(part, dim) for part, dim in zip((query, key, value), in_dims[:3], strict=True))
        if query.ndim == 3:  # [L, T, d]: the lanes are the batch already
            return _plain(query, key, value, None if mask is None else ahead(mask, in_dims[3]), scaling), 0
        if mask is not None:
            mask = ahead(mask, in_dims[3])
            mask = mask.view(lanes, *(1,) * (query.ndim - mask.ndim), *mask.shape[1:])
            mask = mask.expand(lanes, query.shape[1], *mask.shape[2:]).flatten(0, 1)
        output = _plain(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), mask, scaling)
        return output.unflatten(0, (lanes, -1)), 0


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: _Scaling) -> Tensor:
    dropout, causal, scale, grouped = scaling
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale=scale, enable_gqa=grouped)
