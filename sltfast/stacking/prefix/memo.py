"""Activations worth keeping: what enters a block, for batches that come again."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Key = tuple[Hashable, ...]
Shapes = dict[str, tuple[Any, ...]]  # what modules returned, call by call
STEP = "step"


class MemoStatistics(NamedTuple):
    """What a memo did: forwards that skipped the frozen part and those that ran it, values kept and turned away for
    want of room, bytes held now and at most.
    """

    hits: int
    misses: int
    kept: int
    refused: int
    bytes: int
    peak_bytes: int


class Memo:
    """Tensors by key and name, within a byte budget.

    A key ("step", k, …) lives until a key of another step is kept: batches of a chain do not come back. Every other key
    (an observable's batch) stays for good, first come first kept: nothing is thrown out for a newcomer, so what fits is
    always hit. Room for the largest step seen is never given away.

    Args:
        budget: bytes held at most, >= 0.
        store_dtype: floating-point dtype that activations are kept in; None: their own. What is kept is rounded at
            once, so that a first and a later use of a key see the same numbers.
        device: where tensors are kept; None: where they are.

    Attributes:
        wanted: names worth keeping when they pass by: the inputs of every block at which lanes part in some pass.

    Raises:
        ValueError: a negative budget.
        TypeError: a store_dtype that is not floating-point.
    """

    def __init__(
        self, budget: int, store_dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        if budget < 0:
            raise ValueError(f"budget must be a number of bytes >= 0, got {budget} (0 keeps nothing)")
        if store_dtype is not None and not store_dtype.is_floating_point:
            raise TypeError(
                f"store_dtype must be a floating-point dtype or None, got {store_dtype} (torch.float32 or bfloat16)"
            )
        self.budget, self.store_dtype = budget, store_dtype
        self.device = None if device is None else torch.device(device)
        self.wanted: set[str] = set()
        self.hits = self.misses = self.kept = self.refused = 0
        self.bytes = self.peak_bytes = self.step_bytes = self.largest_step = 0
        self._entries: dict[Key, dict[Hashable, Any]] = {}
        self._step_entries: dict[Key, dict[Hashable, Any]] = {}
        self._step: Hashable = None
        self._shapes: dict[Key, Shapes] = {}
        self._same_shapes: dict[Any, Shapes] = {}

    def statistics(self) -> MemoStatistics:
        """Counts and bytes so far."""
        return MemoStatistics(self.hits, self.misses, self.kept, self.refused, self.bytes, self.peak_bytes)

    def has(self, key: Key, name: Hashable) -> bool:
        """Whether ``get`` or ``value`` would find it."""
        return name in self._held(key).get(key, {})

    def get(self, key: Key, name: str, like: tuple[torch.dtype, torch.device] | None = None) -> Tensor:
        """A fresh copy of a tensor, in dtype and on device ``like`` (None: as it is kept).

        Raises:
            KeyError: nothing was kept under this key and name (ask ``has``).
        """
        held: Tensor = self._held(key)[key][name]
        dtype, device = like or (held.dtype, held.device)
        moved = held.to(device, dtype, non_blocking=True)
        return moved.clone() if moved is held else moved

    def keep(self, key: Key, name: str, tensor: Tensor) -> Tensor:
        """Keep a copy where the budget allows; returns the tensor as later uses will see it."""
        dtype = self.store_dtype if self.store_dtype is not None and tensor.is_floating_point() else tensor.dtype
        if self.has(key, name) or not self._room(key, tensor.numel() * dtype.itemsize):
            return tensor
        stored = self._stored(tensor, dtype)
        self._held(key).setdefault(key, {})[name] = stored
        return tensor if dtype == tensor.dtype else stored.to(tensor.device, tensor.dtype)

    def value(self, key: Key, name: Hashable) -> Any:
        """A value as it was given.

        Raises:
            KeyError: nothing was kept under this key and name (ask ``has``).
        """
        return self._held(key)[key][name]

    def keep_value(self, key: Key, name: Hashable, value: Any) -> None:
        """Keep a value itself (tensors in nested tuples, lists, mappings and dataclasses), where the budget allows."""
        if not self.has(key, name) and self._room(key, _bytes(value)):
            self._held(key).setdefault(key, {})[name] = value

    def describe(self, key: Key, shapes: tuple[tuple[str, tuple[Any, ...]], ...]) -> None:
        """Remember what the modules below returned; equal descriptions are held once."""
        if key in self._held(key):
            self._shapes[key] = self._same_shapes.setdefault(shapes, dict(shapes))

    def described(self, key: Key) -> Shapes:
        """What ``describe`` was told for this key, by module; nothing where it was told nothing."""
        return self._shapes.get(key, {})

    def places(self) -> Iterator[tuple[Any, ...]]:
        """(key, *name) of every value kept by ``keep_value``."""
        for key, held in (*self._entries.items(), *self._step_entries.items()):
            yield from ((key, *name) for name in held if isinstance(name, tuple))

    def clear(self) -> None:
        """Forget everything but the counts."""
        self._entries, self._step_entries, self._shapes, self._same_shapes = {}, {}, {}, {}
        self.bytes = self.step_bytes = 0
        self._step = None

    def _held(self, key: Key) -> dict[Key, dict[Hashable, Any]]:
        return self._step_entries if key and key[0] == STEP else self._entries

    def _room(self, key: Key, size: int) -> bool:
        """Take room for so many bytes under a key, where there is."""
        is_step = bool(key) and key[0] == STEP
        if is_step and key[1] != self._step:
            self._forget_step()
            self._step = key[1]
        # a step's share is left free between steps, or the first data set to fill the memo would shut steps out
        reserve = 0 if is_step else max(0, self.largest_step - self.step_bytes)
        if self.bytes + size + reserve > self.budget:
            self.refused += 1
            return False
        self.kept += 1
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        if is_step:
            self.step_bytes += size
            self.largest_step = max(self.largest_step, self.step_bytes)
        return True

    def _forget_step(self) -> None:
        for key in self._step_entries:
            self._shapes.pop(key, None)
        self._step_entries = {}
        self.bytes -= self.step_bytes
        self.step_bytes = 0

    def _stored(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        # a copy always: the forward that goes on may write into the tensor it was given
        stored = torch.empty(
            tensor.shape,
            dtype=dtype,
            device=self.device or tensor.device,
            pin_memory=self.device is not None and self.device.type == "cpu" and tensor.device.type == "cuda",
        )
        return stored.copy_(tensor.detach())


class KeptValues(MutableMapping[Hashable, Any]):
    """Values of a memo under keys (key, *name): a mapping that may decline what it is given, for want of room."""

    def __init__(self, memo: Memo) -> None:
        self.memo = memo

    def __contains__(self, at: object) -> bool:
        return isinstance(at, tuple) and self.memo.has(at[0], at[1:])

    def __getitem__(self, at: Any) -> Any:
        return self.memo.value(at[0], at[1:])

    def __setitem__(self, at: Any, value: Any) -> None:
        self.memo.keep_value(at[0], at[1:], value)

    def __delitem__(self, at: Any) -> None:
        raise TypeError("a memo forgets a step as a whole, when the next one comes, and everything with clear()")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self.memo.places()

    def __len__(self) -> int:
        return sum(1 for _ in self.memo.places())


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes(item) for item in value.values())
    if isinstance(value, tuple | list):
        return sum(_bytes(item) for item in value)
    if is_dataclass(value):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    return 0
