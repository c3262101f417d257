"""Bytes of tensors that come to life while something runs: measured where memory is asked for, op by op."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PLAIN = (
    int,
    float,
    str,
    type(None),
    torch.dtype,
    torch.device,
)  # told apart at once, before abstract classes are asked


class LiveBytes(TorchDispatchMode):
    """Counts the storages that ops make, each once however many views it has, until the last of them is gone.

    What was there before it was entered (the caller's model and data, an engine's weights) does not count; nor does
    what an op needs within itself. It may be entered again and again; what it saw stays counted while it lives.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once since it was made, or since ``restart``.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first op in the mode imports torch's compiler: a second, and 75 MB

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def restart(self) -> None:
        """Let ``peak`` start over from what is alive."""
        self.peak = self.now

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an op and count what it made."""
        result = func(*args, **(kwargs or {}))
        given: set[int] | None = None
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            identity = storage._cdata
            if identity in self._alive:
                continue
            if given is None:
                given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
            if identity not in given:
                self._count(storage, identity)
        return result

    def _count(self, storage: Any, identity: int) -> None:
        size = storage.nbytes()

        def gone(_: Any) -> None:
            self.now -= size
            self._alive.pop(identity, None)

        self._alive[identity] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PLAIN):
        return []
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
