"""Convolutions over one and two dimensions: patches of the input against gradients of the output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sltfast.per_sample.captures import Captures, Rule
from sltfast.per_sample.uses import Outer, Patches, Whole

Pair = tuple[int, int]


def _pair(value: Any, dimensions: int, neutral: int) -> Pair:
    """(vertical, horizontal) of a stride, padding or dilation; a 1-dimensional convolution is one row high."""
    numbers = (value,) * dimensions if isinstance(value, int) else tuple(value) * (dimensions // len(value))
    return (neutral, numbers[0]) if dimensions == 1 else (numbers[0], numbers[1])


def _padded(x: Tensor, padding: Any, dimensions: int, size: Pair, dilation: Pair) -> Tensor:
    if padding == "valid":
        return x
    if padding == "same":
        total = [step * (extent - 1) for step, extent in zip(dilation, size, strict=True)]
        before = [amount // 2 for amount in total]
    else:
        before = list(_pair(padding, dimensions, 0))
        total = [2 * amount for amount in before]
    return F.pad(x, (before[1], total[1] - before[1], before[0], total[0] - before[0]))


def convolution(
    captures: Captures,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Σ over a patch of W·x, + b; ∇W = Σ_t D[t]ᵀ·patch[t], group by group."""
    dimensions = weight.ndim - 2
    if not captures.tracks(weight, bias) or input.ndim != weight.ndim or len(input) != captures.batch:
        return NotImplemented
    output = func(input, captures.held(weight), captures.held(bias), stride, padding, dilation, groups)

    size: Pair = (1, weight.shape[2]) if dimensions == 1 else (weight.shape[2], weight.shape[3])
    steps = _pair(dilation, dimensions, 1)

    def factor(d: Tensor) -> Patches:
        positions = d[0, 0].numel()

        def make(items: slice) -> Outer:
            x = input[items].to(d.dtype)
            image = _padded(x[:, :, None] if dimensions == 1 else x, padding, dimensions, size, steps)
            patches = F.unfold(image, size, dilation=steps, stride=_pair(stride, dimensions, 1))
            count = len(x) * groups
            left = d[items].reshape(count, d.shape[1] // groups, positions).mT  # [b·groups, T, out/groups]
            right = patches.reshape(count, -1, positions).mT  # [b·groups, T, in/groups·k]
            return Outer(left, right, groups)

        return Patches(make, captures.batch, positions * (weight[0].numel() * groups + d.shape[1]))

    return captures.watch(output, [(weight, factor), (bias, lambda d: Whole(d.flatten(2).sum(2)))])


CONVOLUTIONS: dict[Any, Rule] = {torch.conv1d: convolution, torch.conv2d: convolution}
