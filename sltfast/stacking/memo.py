"""Activations worth keeping: what enters a block, for batches that come again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Key = tuple[Hashable, ...]
STEP = "step"


class MemoStatistics(NamedTuple):
    """What a memo did: forwards that skipped the frozen part and those that ran it, tensors kept and turned away for
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
        store_dtype: floating-point dtype that tensors are kept in; None: their own. What is kept is rounded at once, so
            that a first and a later use of a key see the same numbers.
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
        self._entries: dict[Key, dict[str, Tensor]] = {}
        self._step_entries: dict[Key, dict[str, Tensor]] = {}
        self._step: Hashable = None
        self._shapes: dict[Key, dict[str, tuple[Any, ...]]] = {}
        self._same_shapes: dict[Any, dict[str, tuple[Any, ...]]] = {}

    def statistics(self) -> MemoStatistics:
        """Counts and bytes so far."""
        return MemoStatistics(self.hits, self.misses, self.kept, self.refused, self.bytes, self.peak_bytes)

    def has(self, key: Key, name: str) -> bool:
        """Whether ``get`` would find it."""
        return name in self._held(key).get(key, {})

    def get(self, key: Key, name: str, like: tuple[torch.dtype, torch.device] | None = None) -> Tensor:
        """A fresh copy of what was kept, in dtype and on device ``like`` (None: as it is kept).

        Raises:
            KeyError: nothing was kept under this key and name (ask ``has``).
        """
        held = self._held(key)[key][name]
        dtype, device = like or (held.dtype, held.device)
        moved = held.to(device, dtype, non_blocking=True)
        return moved.clone() if moved is held else moved

    def keep(self, key: Key, name: str, tensor: Tensor) -> Tensor:
        """Keep a copy where the budget allows; returns the tensor as later uses will see it."""
        is_step = bool(key) and key[0] == STEP
        if is_step and key[1] != self._step:
            self._forget_step()
            self._step = key[1]
        held = self._held(key)
        if name in held.get(key, {}):
            return tensor
        dtype = self.store_dtype if self.store_dtype is not None and tensor.is_floating_point() else tensor.dtype
        size = tensor.numel() * dtype.itemsize
        # a step's share is left free between steps, or the first data set to fill the memo would shut steps out
        reserve = 0 if is_step else max(0, self.largest_step - self.step_bytes)
        if self.bytes + size + reserve > self.budget:
            self.refused += 1
            return tensor
        stored = self._stored(tensor, dtype)
        held.setdefault(key, {})[name] = stored
        self.kept += 1
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        if is_step:
            self.step_bytes += size
            self.largest_step = max(self.largest_step, self.step_bytes)
        return tensor if dtype == tensor.dtype else stored.to(tensor.device, tensor.dtype)

    def describe(self, key: Key, shapes: tuple[tuple[str, tuple[Any, ...]], ...]) -> None:
        """Remember what the modules below returned; equal descriptions are held once."""
        if key in self._held(key):
            self._shapes[key] = self._same_shapes.setdefault(shapes, dict(shapes))

    def described(self, key: Key) -> dict[str, tuple[Any, ...]]:
        """What ``describe`` was told for this key, by module; nothing where it was told nothing."""
        return self._shapes.get(key, {})

    def clear(self) -> None:
        """Forget everything but the counts."""
        self._entries, self._step_entries, self._shapes, self._same_shapes = {}, {}, {}, {}
        self.bytes = self.step_bytes = 0
        self._step = None

    def _held(self, key: Key) -> dict[Key, dict[str, Tensor]]:
        return self._step_entries if key and key[0] == STEP else self._entries

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
