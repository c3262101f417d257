"""Parameters that scale or shift activations coordinate by coordinate, or stand beside them: gains of RMS norms in
every spelling, LayerScale, learned positions, class tokens.

Each item gets the parameter once over, a leaf [B, *shape] without storage: its gradient is the item's own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sltfast.per_sample.captures import Captures, Rule

UNARY = ("float", "double", "half", "bfloat16", "to", "type_as", "contiguous", "clone", "neg", "exp", "sigmoid", "tanh")
BINARY = ("add", "sub", "mul", "div", "true_divide")


def _twin(captures: Captures, value: Any) -> Tensor | None:
    """The per-item twin of a parameter, or of what was made of it."""
    if id(value) in captures.derived:
        return captures.derived[id(value)][1]
    return captures.expanded(value) if id(value) in captures.names else None


def _aligned(twin: Tensor, activation: Tensor) -> Tensor | None:
    """The twin [B, *shape] with ones after B, so that it broadcasts as the parameter would; None where it cannot."""
    batch, *shape = twin.shape
    if activation.ndim < 1 or len(activation) != batch:
        return None
    if len(shape) == activation.ndim and shape[0] == 1:
        shape = shape[1:]
    if len(shape) >= activation.ndim or math.prod(shape) > math.prod(activation.shape[1:]):
        return None
    return twin.reshape(batch, *[1] * (activation.ndim - 1 - len(shape)), *shape)


def elementwise(captures: Captures, func: Any, *args: Any, **kwargs: Any) -> Any:
    """A function that acts coordinate by coordinate, of a parameter alone or of it and an activation."""
    known = [k for k, value in enumerate(args) if id(value) in captures.names or id(value) in captures.derived]
    if len(known) != 1 or any(isinstance(value, Tensor) for value in kwargs.values()):
        return NotImplemented
    place = known[0]
    parameter = args[place]
    if id(parameter) in captures.names and not captures.tracks(parameter):
        return NotImplemented
    others = [k for k, value in enumerate(args) if isinstance(value, Tensor) and value.ndim and k != place]
    if func in _TYPE_OF and place != 0:
        return NotImplemented
    twin = _twin(captures, parameter)
    if twin is None:
        return NotImplemented
    if not others or func in _TYPE_OF:
        value = func(*args, **kwargs)
        arguments = list(args)
        arguments[place] = twin
        if value is not parameter:
            captures.derived[id(value)] = (value, func(*arguments, **kwargs))
        return value
    aligned = _aligned(twin, args[others[0]]) if len(others) == 1 else None
    if aligned is None:
        return NotImplemented
    arguments = list(args)
    arguments[place] = aligned
    return func(*arguments, **kwargs)


def expand(captures: Captures, func: Any, input: Tensor, *sizes: Any) -> Any:
    """A token of parameters [1, …] given to every item: each gets its own."""
    wanted = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    known = captures.tracks(input) and len(wanted) == input.ndim > 1
    if not known or len(input) != 1 or wanted[0] != captures.batch:
        return NotImplemented
    return func(captures.expanded(input).squeeze(1), *sizes)


def _functions() -> dict[Any, Rule]:
    found: dict[Any, Rule] = {}
    for name in (*UNARY, *BINARY):
        for home in (torch, torch.Tensor):
            function = getattr(home, name, None)
            if function is not None:
                found[function] = elementwise
    for name in BINARY:
        in_place = getattr(torch.Tensor, f"{name}_", None)
        if in_place is not None:
            found[in_place] = elementwise
    for function in (torch.rsub, torch.Tensor.__rsub__, torch.Tensor.__rdiv__):
        found[function] = elementwise
    found[torch.Tensor.expand] = expand
    return found


ELEMENTWISE = _functions()
_TYPE_OF = {torch.Tensor.to, torch.Tensor.type_as}  # their tensor argument lends its dtype and nothing else
