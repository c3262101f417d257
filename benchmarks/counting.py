"""Counts what a run dispatches: launches, host synchronisations, bytes. Exact, so they hold on any machine.

On the CPU an op is what would be a kernel launch on a GPU, views and empty allocations aside, and reading a tensor's
value is what would stop the host.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SYNCS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim")
NO_LAUNCH = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "lift_fresh", "_unsafe_view", "set_")
HOST_READS = (Tensor.cpu, Tensor.numpy, Tensor.tolist)
Counts = Counter[str]


class _Ops(TorchDispatchMode):
    def __init__(self, counts: Counts, updating: list[bool]) -> None:
        super().__init__()
        self.counts, self.updating = counts, updating

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        if name in SYNCS:
            self.counts["host syncs"] += 1
        elif not (func.is_view or name in NO_LAUNCH):
            where = "update" if self.updating[0] else "model"
            self.counts[f"{where} launches"] += 1
            self.counts[f"{where} bytes"] += _bytes(func, args, kwargs, result)
        return result


def _bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Read and written: all tensors given, once more those written in place, and those made."""
    given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    total, known = 0, set()
    for argument in func._schema.arguments:
        tensors = [leaf for leaf in tree_leaves(given.get(argument.name)) if isinstance(leaf, Tensor)]
        written = argument.alias_info is not None and argument.alias_info.is_write
        total += sum(tensor.nbytes for tensor in tensors) * (2 if written else 1)
        known |= {id(tensor) for tensor in tensors}
    made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and id(leaf) not in known]
    return total + sum(tensor.nbytes for tensor in made)


class _HostReads(TorchFunctionMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in HOST_READS:
            self.counts["copies to the host"] += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted(owner: type, update: str) -> Iterator[Counts]:
    """Count what runs inside; what runs inside the method `update` of `owner` counts as the update."""
    counts: Counts = Counter()
    updating = [False]
    method: Callable[..., Any] = getattr(owner, update)

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        updating[0] = True
        try:
            return method(self, *args, **kwargs)
        finally:
            updating[0] = False

    with mock.patch.object(owner, update, step), _HostReads(counts), _Ops(counts, updating):
        yield counts


def a_step(run: Callable[[int], Any], owner: type, update: str, steps: tuple[int, int] = (4, 12)) -> dict[str, float]:
    """Counts of one step: what a longer run adds to a shorter one, by the steps that it has more.

    Args:
        run: called with a number of steps.
        owner: class of the method that is the update.
        update: its name.
        steps: of the two runs.
    """
    runs = []
    for count in steps:
        with counted(owner, update) as counts:
            run(count)
        runs.append(counts)
    short, long = runs
    return {key: (long[key] - short[key]) / (steps[1] - steps[0]) for key in {*long, *short}}
