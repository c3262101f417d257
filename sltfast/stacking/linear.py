"""Linear maps with weights of their own in every lane: y_l = x_l W_l + b_l."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sltfast.gradient_home import home_of
from sltfast.stacking.lanes import Habit
from sltfast.stacking.pieces import MovingWeight
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

    frozen = at(site.frozen("weight") if weight is None else weight.frozen)
    spots = None if weight is None or weight.is_whole else _spots(weight, frozen.shape, transposed)

    def product(x: Tensor) -> Tensor:
        """[L, N, in] to [L, N, out]."""
        offset = frozen_bias if bias is None else bias.dense().unsqueeze(1)
        if weight is not None and spots is None:
            return _Product.apply(x, weight.dense(), offset, transposed)
        if weight is None or spots is None:
            y = x @ frozen
        else:
            places = [Spot(slice(*piece.span), *spot) for piece, spot in zip(weight.pieces, spots, strict=True)]
            y = _SlicedProduct.apply(x, frozen, places, *map(at, weight.leaves()))
        return y if offset is None else y + offset

    def forward(input: Tensor) -> Tensor:
        if habit.folded(input):
            y = product(input.reshape(lanes.count, -1, input.shape[-1]))
            return y.view(*input.shape[:-1], y.shape[-1])
        flat = input.reshape(1, -1, input.shape[-1]).expand(lanes.count, -1, -1)
        y = product(flat)
        return lanes.spread(y.view(lanes.count, *input.shape[:-1], y.shape[-1]))

    return forward


def _spots(
    weight: MovingWeight, shape: Sequence[int], transposed: bool
) -> list[tuple[slice | None, slice | None]] | None:
    """Inputs and outputs of every piece (None for all of them), or None where a piece spans neither."""
    spots: list[tuple[slice | None, slice | None]] = []
    for piece in weight.pieces:
        ends = (piece.segment.columns, piece.segment.rows)
        inputs, outputs = ends if transposed else ends[::-1]
        spot = (
            None if inputs == (0, shape[0]) else slice(*inputs),
            None if outputs == (0, shape[1]) else slice(*outputs),
        )
        if None not in spot:
            return None
        spots.append(spot)
    return spots


class Spot(NamedTuple):
    """Where a piece lies in y = x W: its lanes, and its inputs or its outputs (None for all of them)."""

    lanes: slice
    inputs: slice | None
    outputs: slice | None

    def of_outputs(self, y: Tensor) -> Tensor:
        """The part of [L, N, out] that the piece writes."""
        y = y[self.lanes]
        return y if self.outputs is None else y[..., self.outputs]

    def of_inputs(self, x: Tensor) -> Tensor:
        """The part of [L, N, in] that the piece reads."""
        x = x[self.lanes]
        return x if self.inputs is None else x[..., self.inputs]


class _Product(torch.autograd.Function):
    """y_l = x_l W_l + b_l, with the gradient of W formed in W's own layout: a leaf takes it without a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: Tensor | None, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.home = home_of(weight)
        ctx.transposed, ctx.offset = transposed, None if offset is None else offset.shape
        matrix = weight.mT if transposed else weight
        return torch.bmm(x, matrix) if offset is None else torch.baddbmm(offset, x, matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        to_x = to_weight = to_offset = None
        if ctx.needs_input_grad[0]:
            to_x = torch.bmm(gradient, weight if ctx.transposed else weight.mT)
        if ctx.needs_input_grad[1]:
            operands = (gradient.mT, x) if ctx.transposed else (x.mT, gradient)
            fits = ctx.home is not None and gradient.dtype == x.dtype == weight.dtype
            room = ctx.home.room() if fits else None
            to_weight = torch.bmm(*operands) if room is None else torch.bmm(*operands, out=room)
            del room  # held by nobody else, the leaf takes it without a copy
        if ctx.needs_input_grad[2]:
            to_offset = gradient.sum(1, keepdim=True).sum_to_size(ctx.offset)
        return to_x, to_weight, to_offset, None


class _SlicedProduct(torch.autograd.Function):
    """y_l = x_l W_l with W_l = w* except for pieces that span all inputs or all outputs.

    The product with w* is shared by all lanes. A piece of all inputs then replaces its outputs, y[o] = x W_l; one of
    all outputs has its inputs left out of the shared product (x[i] = 0) and adds x[i] W_l.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Tensor, spots: list[Spot], *leaves: Tensor) -> Tensor:
        y = _without(x, [spot.of_inputs for spot in spots if spot.inputs is not None]) @ frozen
        for spot, leaf in zip(spots, leaves, strict=True):
            target = spot.of_outputs(y)
            if spot.inputs is None:
                target.copy_(torch.bmm(x[spot.lanes], leaf))
            else:
                target.baddbmm_(spot.of_inputs(x).to(y.dtype), leaf.to(y.dtype))  # autocast leaves this one alone
        ctx.spots = spots
        ctx.save_for_backward(x, frozen, *leaves)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        x, frozen, *leaves = ctx.saved_tensors
        needed, to_x = ctx.needs_input_grad, None
        if needed[0]:
            to_x = _without(gradient, [spot.of_outputs for spot in ctx.spots if spot.inputs is None]) @ frozen.mT
        parts: list[Tensor | None] = []
        for index, (spot, leaf) in enumerate(zip(ctx.spots, leaves, strict=True)):
            inner = spot.of_outputs(gradient)
            if to_x is not None and spot.inputs is None:
                to_x[spot.lanes].baddbmm_(inner.to(to_x.dtype), leaf.mT.to(to_x.dtype))
            elif to_x is not None:
                spot.of_inputs(to_x).copy_(torch.bmm(inner, leaf.mT))
            # formed in the layout of the leaf, so that its gradient is contiguous
            inputs = spot.of_inputs(x)
            if not needed[3 + index]:
                parts.append(None)
            elif leaf.stride(-1) == 1:
                parts.append(torch.bmm(inputs.mT, inner))
            else:
                parts.append(torch.bmm(inner.mT, inputs).mT)
        return to_x, None, None, *parts


def _without(x: Tensor, parts: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """A copy with zeros in the parts; the tensor itself where there are none."""
    if parts:
        x = x.clone(memory_format=torch.contiguous_format)
        for part in parts:
            part(x).zero_()
    return x


def is_linear(module: nn.Module) -> bool:
    """Whether the weight is a plain matrix (a quantised or sparse one is not)."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point()
