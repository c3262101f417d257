"""Linear maps with weights of their own in every lane: y_l = x_l W_l + b_l."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.stacking.lanes import Habit
from sltfast.stacking.site import Site


def linear(site: Site) -> Callable[..., Tensor]:
    """``nn.Linear``: weight [out, in]."""
    return _product(site, transposed=True)


def conv1d(site: Site) -> Callable[..., Tensor]:
    """Hugging Face ``Conv1D``: weight [in, out]."""
    return _product(site, transposed=False)


def _product(site: Site, transposed: bool) -> Callable[..., Tensor]:
    weight, bias, lanes = site.moving("weight"), site.moving("bias"), site.lanes
    frozen_bias = site.frozen("bias")
    habit = Habit(lanes)

    def at(matrix: Tensor) -> Tensor:
        return matrix.mT if transposed else matrix

    frozen = at(site.frozen("weight")) if weight is None else None
    slices: list[tuple[slice, slice]] = []
    if weight is not None and not weight.is_whole:
        still = weight.frozen.clone()
        for piece in weight.pieces:
            rows, columns = slice(*piece.segment.rows), slice(*piece.segment.columns)
            still[rows, columns] = 0
            slices.append((columns, rows) if transposed else (rows, columns))
        frozen = at(still)

    def per_lane(x: Tensor) -> Tensor:
        """[L, N, in] to [L, N, out]."""
        offset = frozen_bias
        if bias is not None:
            offset = bias.dense().unsqueeze(1)
        if frozen is None:
            assert weight is not None
            matrix = at(weight.dense())
            return torch.bmm(x, matrix) if offset is None else torch.baddbmm(offset, x, matrix)
        if slices:
            assert weight is not None
            y: Tensor = _SlicedProduct.apply(x, frozen, slices, *(at(piece.leaf) for piece in weight.pieces))
        else:
            y = x @ frozen
        return y if offset is None else y + offset

    def forward(input: Tensor) -> Tensor:
        if habit.folded(input):
            width = input.shape[-1]
            y = per_lane(input.reshape(lanes.count, -1, width))
            return y.view(*input.shape[:-1], y.shape[-1])
        flat = input.reshape(1, -1, input.shape[-1]).expand(lanes.count, -1, -1)
        y = per_lane(flat)
        return lanes.spread(y.view(lanes.count, *input.shape[:-1], y.shape[-1]))

    return forward


class _SlicedProduct(torch.autograd.Function):
    """y = x W with W = w* outside the slices and the lane's own weights inside them.

    w* is given with zeros in the slices, so the product with it is shared by all lanes and each slice adds its part:
    y[:, :, o] += x[:, :, i] W_l[i, o]. Gradients reach x and the slices alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Tensor, slices: list[tuple[slice, slice]], *leaves: Tensor) -> Tensor:
        y = x @ frozen
        for (inputs, outputs), leaf in zip(slices, leaves, strict=True):
            y[..., outputs].baddbmm_(x[..., inputs], leaf)
        ctx.slices = slices
        ctx.save_for_backward(x, frozen, *leaves)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        x, frozen, *leaves = ctx.saved_tensors
        needed = ctx.needs_input_grad
        to_x = gradient @ frozen.mT if needed[0] else None
        parts: list[Tensor | None] = []
        for index, ((inputs, outputs), leaf) in enumerate(zip(ctx.slices, leaves, strict=True)):
            inner = gradient[..., outputs]
            if to_x is not None:
                to_x[..., inputs].baddbmm_(inner, leaf.mT)
            # formed in the layout of the weight, so that the leaf's gradient is contiguous
            parts.append(torch.bmm(inner.mT, x[..., inputs]).mT if needed[3 + index] else None)
        return to_x, None, None, *parts


def is_linear(module: nn.Module) -> bool:
    """Whether the weight is a plain matrix (a quantised or sparse one is not)."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point()
