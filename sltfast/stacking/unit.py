"""A module that is run whole, once for all lanes under vmap or lane after lane, with the lanes' weights in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sltfast.stacking.guard import GuardedWeight
from sltfast.stacking.lanes import Habit, Lanes
from sltfast.stacking.pieces import MovingWeight

Slot = tuple[dict[str, Any], str, int]  # a module's parameters, the name there, which of the unit's weights it holds


class Unit:
    """Runs a module's own forward on inputs [L·n, …] with weights [L, …].

    Inputs that do not carry the folded batch are the same for every lane. Outputs without rows of a batch are spread
    over the lane's rows.

    Args:
        name: the module's name, for messages.
        forward: the module's own forward.
        weights: the moving weights below it.
        slots: where they are read from.
        lanes: the lanes.

    Attributes:
        rung: "vmap", or "loop" where vmap failed.
        why: what vmap said when it failed.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        weights: Sequence[MovingWeight],
        slots: Sequence[Slot],
        lanes: Lanes,
    ) -> None:
        self.name, self.forward, self.lanes = name, forward, lanes
        self.rung, self.why = "vmap", ""
        self._weights, self._slots = weights, slots
        self._proven = False
        self._inputs, self._outputs = Habit(lanes), Habit(lanes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward, folded."""
        flat, spec = pytree.tree_flatten((args, kwargs))
        places = [index for index, value in enumerate(flat) if isinstance(value, Tensor)]
        folded = [self._inputs.folded(flat[index], index) for index in places]
        tensors = [
            self.lanes.split(flat[index]) if is_folded else flat[index]
            for index, is_folded in zip(places, folded, strict=True)
        ]
        shape: list[Any] = []

        def run(weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
            values = [*flat]
            for index, tensor in zip(places, tensors, strict=True):
                values[index] = tensor
            given, named = pytree.tree_unflatten(values, spec)
            result, result_spec = pytree.tree_flatten(self._with(weights, given, named))
            shape[:] = [result, result_spec]
            return tuple(value for value in result if isinstance(value, Tensor))

        dense = [weight.dense() for weight in self._weights]
        in_dims = [0 if is_folded else None for is_folded in folded]
        out = iter(self._run(run, dense, tensors, in_dims))
        result, result_spec = shape
        joined = [
            self._joined(next(out), index) if isinstance(value, Tensor) else value for index, value in enumerate(result)
        ]
        return pytree.tree_unflatten(joined, result_spec)

    def _with(self, weights: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        held = [parameters[key] for parameters, key, _ in self._slots]
        for parameters, key, index in self._slots:
            parameters[key] = weights[index]
        try:
            return self.forward(*args, **kwargs)
        finally:
            for (parameters, key, _), guard in zip(self._slots, held, strict=True):
                parameters[key] = guard

    def _run(self, run: Any, dense: list[Tensor], tensors: list[Tensor], in_dims: list[int | None]) -> Any:
        if self.rung == "vmap":
            folded = torch.vmap(run, in_dims=(0, in_dims), randomness="different")
            if self._proven:
                return folded(dense, tensors)
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                    out = folded(dense, tensors)
                self._proven = True
                return out
            except GuardedWeight:
                raise
            except Exception as error:
                self.rung, self.why = "loop", f"{type(error).__name__}: {error}".splitlines()[0]
        lanes = [weight.unbind() for weight in dense]
        inputs = [tensor if dim is None else tensor.unbind() for tensor, dim in zip(tensors, in_dims, strict=True)]
        results = []
        for lane in range(self.lanes.count):
            own = [x if dim is None else x[lane] for x, dim in zip(inputs, in_dims, strict=True)]
            results.append(run([weight[lane] for weight in lanes], own))
        return [torch.stack(parts) for parts in zip(*results, strict=True)]

    def _joined(self, out: Tensor, place: int) -> Tensor:
        """[L, n, …] as rows [L·n, …]."""
        rows = out.flatten(0, 1) if out.ndim > 1 else out
        if out.ndim > 1 and self._outputs.folded(rows, place):
            return rows
        return self.lanes.spread(out)
