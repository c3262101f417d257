"""What a model does beside its matrix products: attention, norms, activations, additions, alone and at a run's shapes.

The ops are collected from one forward and backward pass over the rows of all chains together and run again, each on the
numbers it was given, outside of any sampler. Views cost nothing and are left out, and so is the loss of a language
model, which a fused one need not form in these steps. What is left of a round are the update, the loss, and whatever a
sampler spends on top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.floors import OPERANDS

NAME = "floor: other ops"
FREE = {"detach", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_local_scalar_dense"}


class OtherOps(TorchDispatchMode):
    """Keeps one call of every op and shape that runs inside it, and counts them, while ``keeping``."""

    def __init__(self) -> None:
        super().__init__()
        self.keeping = True
        self._calls: dict[Any, tuple[Callable[[], object], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if self.keeping and not _is_free(func):
            key = (func, _described(args), _described(sorted(named.items())))
            call, count = self._calls.get(key, (lambda: func(*args, **named), 0))
            self._calls[key] = call, count + 1
        return func(*args, **named)

    @property
    def names(self) -> dict[str, int]:
        """How often each op ran."""
        counts: dict[str, int] = {}
        for (func, *_), (_, count) in self._calls.items():
            name = func._schema.name.removeprefix("aten::")
            counts[name] = counts.get(name, 0) + count
        return counts

    @torch.no_grad()
    def again(self) -> None:
        """Run all that was kept."""
        for call, count in self._calls.values():
            for _ in range(count):
                call()


def _is_free(func: Any) -> bool:
    """Whether an op is a product, which has a floor of its own, or moves no numbers."""
    name = func._schema.name.removeprefix("aten::")
    view = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
    return name in OPERANDS or name in FREE or view


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.stride()
    if isinstance(value, list | tuple):
        return tuple(_described(one) for one in value)
    return repr(value)


def other_ops_of(run: Callable[[], Tensor]) -> OtherOps:
    """Of a forward pass, to a tensor whose sum is taken, and of its backward pass.

    Args:
        run: a forward over the rows of all chains; a model's weights are in it once, where chains have their own.
    """
    ops = OtherOps()
    with ops:
        result = run()
        ops.keeping = False
        gradient = torch.ones_like(result)
        ops.keeping = True
        result.backward(gradient)
    return ops


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """What a language model gives to its unembedding: [B, T, d]."""
    hidden: Tensor = model.base_model(ids)[0]
    return hidden
