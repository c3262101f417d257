"""How the layers' functions use their parameters: one rule a torch function, with the factors that its use leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sltfast.per_sample.captures import Captures, Rule
from sltfast.per_sample.uses import Outer, Rows, Whole


def _rows(captures: Captures, x: Tensor) -> bool:
    """Whether the first dimension counts items, or items × positions."""
    return x.ndim >= 2 and len(x) >= captures.batch and len(x) % captures.batch == 0


def _by_item(captures: Captures, x: Tensor, width: int | None = None) -> Tensor:
    """[B, T, width]."""
    return x.reshape(captures.batch, -1, width or x.shape[-1])


def linear(captures: Captures, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """X Wᵀ + b."""
    if not captures.tracks(weight, bias) or weight.ndim != 2 or not _rows(captures, input):
        return NotImplemented
    output = func(input, captures.held(weight), captures.held(bias))
    return captures.watch(
        output,
        [
            (weight, lambda d: Outer(_by_item(captures, d), _by_item(captures, input).to(d.dtype))),
            (bias, lambda d: Whole(_by_item(captures, d).sum(1))),
        ],
    )


def matmul(captures: Captures, func: Any, input: Tensor, other: Tensor) -> Any:
    """X W, or X w with a vector."""
    known = captures.tracks(other) and id(input) not in captures.names and other.ndim in (1, 2)
    if not known or not _rows(captures, input):
        return NotImplemented
    width = other.shape[1] if other.ndim == 2 else 1
    output = func(input, captures.held(other))
    return captures.watch(
        output, [(other, lambda d: Outer(_by_item(captures, input).to(d.dtype), _by_item(captures, d, width)))]
    )


def addmm(
    captures: Captures, func: Any, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Any:
    """X W + b, the Conv1D of GPT-2."""
    known = captures.tracks(input, mat2) and id(mat1) not in captures.names and beta == alpha == 1
    if not known or not _rows(captures, mat1) or (id(input) in captures.names and input.ndim != 1):
        return NotImplemented
    output = func(captures.held(input), mat1, captures.held(mat2))
    return captures.watch(
        output,
        [
            (mat2, lambda d: Outer(_by_item(captures, mat1).to(d.dtype), _by_item(captures, d))),
            (input, lambda d: Whole(_by_item(captures, d).sum(1))),
        ],
    )


def embedding(
    captures: Captures,
    func: Any,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of W; one row of positions for all items becomes a row of each where it meets them."""
    if not captures.tracks(weight) or scale_grad_by_freq or input.ndim == 0:
        return NotImplemented
    options = (padding_idx, max_norm, norm_type, False, False)
    shared = len(input) != captures.batch and (input.ndim == 1 or len(input) == 1)
    if not shared and len(input) % captures.batch:
        return NotImplemented
    indices = input.expand(captures.batch, *input.shape) if shared else input
    ids = indices.reshape(captures.batch, -1)

    def factor(d: Tensor) -> Rows:
        values = d.reshape(*ids.shape, -1)
        if padding_idx is not None:
            values = values.masked_fill((ids == padding_idx % len(weight))[..., None], 0)
        return Rows(ids.long(), values, len(weight))

    output = captures.watch(func(indices, captures.held(weight), *options), [(weight, factor)])
    if not shared:
        return output
    value = func(input, weight, *options)
    captures.derived[id(value)] = (value, output)
    return value


def layer_norm(
    captures: Captures,
    func: Any,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """n(x)·w + b with n(x) of mean 0 and variance 1."""
    if not captures.tracks(weight, bias) or not _rows(captures, input):
        return NotImplemented
    output = func(input, normalized_shape, captures.held(weight), captures.held(bias), eps)
    width = torch.Size(normalized_shape).numel()

    def gain(d: Tensor) -> Whole:
        normal = F.layer_norm(input, normalized_shape, None, None, eps)
        return Whole((_by_item(captures, d, width) * _by_item(captures, normal, width)).sum(1))

    return captures.watch(output, [(weight, gain), (bias, lambda d: Whole(_by_item(captures, d, width).sum(1)))])


def rms_norm(
    captures: Captures,
    func: Any,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    """n(x)·w with n(x) of mean square 1."""
    if not captures.tracks(weight) or not _rows(captures, input):
        return NotImplemented
    output = func(input, normalized_shape, captures.held(weight), eps)
    width = torch.Size(normalized_shape).numel()

    def gain(d: Tensor) -> Whole:
        normal = F.rms_norm(input, normalized_shape, None, eps)
        return Whole((_by_item(captures, d, width) * _by_item(captures, normal, width)).sum(1))

    return captures.watch(output, [(weight, gain)])


def _per_channel(d: Tensor) -> Tensor:
    return d.flatten(2).sum(2) if d.ndim > 2 else d


def group_norm(
    captures: Captures,
    func: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """n(x)·w + b by channel, n(x) normalised within groups of channels."""
    if not captures.tracks(weight, bias) or len(input) != captures.batch:
        return NotImplemented
    output = func(input, num_groups, captures.held(weight), captures.held(bias), eps)

    def gain(d: Tensor) -> Whole:
        return Whole(_per_channel(d * F.group_norm(input, num_groups, None, None, eps)))

    return captures.watch(output, [(weight, gain), (bias, lambda d: Whole(_per_channel(d)))])


def batch_norm(
    captures: Captures,
    func: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """n(x)·w + b by channel, n(x) by the running statistics."""
    if training:
        raise ValueError(
            "a batch norm normalises by the statistics of the batch, so its items have no gradients of their own: give "
            "it running statistics (track_running_stats=True; the model is run in eval mode), or use GroupNorm"
        )
    if not captures.tracks(weight, bias) or len(input) != captures.batch:
        return NotImplemented
    output = func(input, running_mean, running_var, captures.held(weight), captures.held(bias), False, momentum, eps)

    def gain(d: Tensor) -> Whole:
        normal = F.batch_norm(input, running_mean, running_var, None, None, False, momentum, eps)
        return Whole(_per_channel(d * normal))

    return captures.watch(output, [(weight, gain), (bias, lambda d: Whole(_per_channel(d)))])


RULES: dict[Any, Rule] = {
    F.linear: linear,
    torch.matmul: matmul,
    torch.mm: matmul,
    torch.Tensor.matmul: matmul,
    torch.Tensor.mm: matmul,
    torch.Tensor.__matmul__: matmul,
    torch.addmm: addmm,
    torch.Tensor.addmm: addmm,
    F.embedding: embedding,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.batch_norm: batch_norm,
}
