"""Batches on their way to a device: through pinned memory, on a stream of their own, one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sltfast.data import leaves, map_leaves


class Copies(Protocol):
    """How batches reach a device; an event is whatever ``start`` returns with the tensors."""

    def buffer(self, like: Tensor) -> Tensor:
        """Memory of the host that copies can start from."""

    def start(self, hosts: list[Tensor]) -> tuple[list[Tensor], Any]:
        """Start copying; the tensors to be on the device, and the event of their arrival."""

    def order(self, tensors: list[Tensor], event: Any) -> None:
        """Let what is computed from now on come after the copy."""

    def finished(self, event: Any) -> None:
        """Wait until the copy no longer reads the host's memory."""


class PinnedCopies:
    """Copies of pinned memory on a side stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def buffer(self, like: Tensor) -> Tensor:
        """Pinned, of the same shape and dtype."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def start(self, hosts: list[Tensor]) -> tuple[list[Tensor], torch.cuda.Event]:
        """On the side stream."""
        arrived = torch.cuda.Event()
        with torch.cuda.stream(self.stream):
            tensors = [host.to(self.device, non_blocking=True) for host in hosts]
            arrived.record(self.stream)
        return tensors, arrived

    def order(self, tensors: list[Tensor], event: torch.cuda.Event) -> None:
        """The stream that computes waits, not the host; its use keeps the memory from the next copy."""
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(computing)

    def finished(self, event: torch.cuda.Event) -> None:
        """A copy of two steps ago: over long since."""
        event.synchronize()


class _Staged(NamedTuple):
    """A batch under way."""

    data: Any
    tensors: list[Tensor]
    event: Any


class Feed:
    """Batches by number. Any order is right: a batch is a function of its number, and staging only makes it early.

    Args:
        fetch: batch k on the host (tensors that are on the device already stay as they are).
        copies: to the device; None: batches are used where they are fetched.
        slots: pinned buffers a tensor, >= twice the batches of a step.
    """

    def __init__(self, fetch: Callable[[int], Any], copies: Copies | None, slots: int = 2) -> None:
        self.fetch, self.copies, self.slots = fetch, copies, slots
        self._staged: dict[int, _Staged] = {}
        self._buffers: dict[int, tuple[list[Tensor], Any]] = {}

    def batch(self, k: int) -> Any:
        """Batch k, ready for what is computed next."""
        if self.copies is None:
            return self.fetch(k)
        staged = self._staged.pop(k, None) or self._stage(k, self.copies)
        self.copies.order(staged.tensors, staged.event)
        return staged.data

    def prepare(self, numbers: Iterable[int]) -> None:
        """Start the next step's batches, while the device is busy with this one's."""
        if self.copies is not None:
            self._staged = {k: self._staged.get(k) or self._stage(k, self.copies) for k in numbers}

    def _stage(self, k: int, copies: Copies) -> _Staged:
        data = self.fetch(k)
        parts = [part for part in leaves(data) if part.device.type == "cpu"]
        hosts = self._filled(k % self.slots, parts, copies)
        tensors, event = copies.start(hosts)
        self._buffers[k % self.slots] = (hosts, event)
        there = iter(tensors)
        on_device = map_leaves(lambda part: next(there) if part.device.type == "cpu" else part, data)
        return _Staged(on_device, tensors, event)

    def _filled(self, slot: int, parts: list[Tensor], copies: Copies) -> list[Tensor]:
        buffers, event = self._buffers.get(slot, ([], None))
        if event is not None:
            copies.finished(event)
        kept = [(buffer.shape, buffer.dtype) for buffer in buffers]
        if kept != [(part.shape, part.dtype) for part in parts]:
            buffers = [copies.buffer(part) for part in parts]
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part)
        return buffers
