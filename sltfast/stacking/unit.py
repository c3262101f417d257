"""A module that is run whole, once for all lanes under vmap or lane after lane, with the lanes' weights in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sltfast.stacking.attention import FoldedAttention
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
        self.__wrapped__ = forward  # its signature is the module's own
        self.rung, self.why = "vmap", ""
        self._weights, self._slots = weights, slots
        self._proven = False
        self._manner: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._inputs, self._outputs = Habit(lanes), Habit(lanes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward, folded."""
        flat, spec = pytree.tree_flatten((args, kwargs)) if kwargs or not _all_tensors(args) else (list(args), None)
        places = [index for index, value in enumerate(flat) if isinstance(value, Tensor)]
        folded = [self._inputs.folded(flat[index], index) for index in places]
        tensors = [
            self.lanes.split(flat[index]) if is_folded else flat[index]
            for index, is_folded in zip(places, folded, strict=True)
        ]
        moving = len(self._weights)
        shape: list[Any] = []

        def run(*lane: Tensor) -> tuple[Tensor, ...]:
            for index, tensor in zip(places, lane[moving:], strict=True):
                flat[index] = tensor
            given, named = (flat, {}) if spec is None else pytree.tree_unflatten(flat, spec)
            output = self._with(lane[:moving], given, named)
            result, result_spec = ([output], None) if isinstance(output, Tensor) else pytree.tree_flatten(output)
            shape[:] = [result, result_spec]
            return tuple(value for value in result if isinstance(value, Tensor))

        dims = (0,) * moving + tuple(0 if is_folded else None for is_folded in folded)
        out = iter(self._run(run, [*(weight.dense() for weight in self._weights), *tensors], dims))
        result, result_spec = shape
        joined = [
            self._joined(next(out), index) if isinstance(value, Tensor) else value for index, value in enumerate(result)
        ]
        return joined[0] if result_spec is None else pytree.tree_unflatten(joined, result_spec)

    def _with(self, weights: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        held = [parameters[key] for parameters, key, _ in self._slots]
        for parameters, key, index in self._slots:
            parameters[key] = weights[index]
        try:
            return self.forward(*args, **kwargs)
        finally:
            for (parameters, key, _), guard in zip(self._slots, held, strict=True):
                parameters[key] = guard

    def _run(self, run: Any, tensors: list[Tensor], dims: tuple[int | None, ...]) -> Any:
        """Every lane, as tensors [L, …]."""
        if self.rung == "vmap":
            folded = torch.vmap(run, in_dims=dims, randomness="different")
            if self._proven:
                with self._manner():
                    return folded(*tensors)
            try:
                return self._first(folded, tensors)
            except GuardedWeight:
                raise
            except Exception as error:
                self.rung, self.why = "loop", f"{type(error).__name__}: {error}".splitlines()[0]
        parts = [x.unbind() if dim == 0 else (x,) * self.lanes.count for x, dim in zip(tensors, dims, strict=True)]
        results = [run(*lane) for lane in zip(*parts, strict=True)]
        return [torch.stack(lanes) for lanes in zip(*results, strict=True)]

    def _first(self, folded: Any, tensors: list[Tensor]) -> Any:
        """Under vmap for the first time: which ways round its missing rules are needed."""
        self._manner = FoldedAttention
        with FoldedAttention() as attention, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            out = folded(*tensors)
        slow = any("performance drop" in str(warning.message) for warning in seen)
        self._manner = _quiet if slow else FoldedAttention if attention.used else nullcontext
        self._proven = True
        return out

    def _joined(self, out: Tensor, place: int) -> Tensor:
        """[L, n, …] as rows [L·n, …]."""
        if self.lanes.count == 1:
            return out.squeeze(0)
        rows = out.flatten(0, 1) if out.ndim > 1 else out
        if out.ndim > 1 and self._outputs.folded(rows, place):
            return rows
        return self.lanes.spread(out)


def _all_tensors(values: Sequence[Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Folded attention, and no word of what is slower than it could be: an op without a rule loops over lanes."""
    with warnings.catch_warnings(), FoldedAttention():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield
