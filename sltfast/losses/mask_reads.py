"""What transformers reads off a batch to build attention masks, answered without waiting for the device.

For every forward it asks two things of values: whether the positions are those of several documents packed into one row
(never: they are the model's own, 0 … T−1, where no attention mask is given), and whether a mask masks nothing, in which
case it could be left out. Each answer stops the host until the device has caught up. On a GPU the second is taken to be
no, which is what transformers itself says under a stream's capture: the mask is formed and the same tokens are masked.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

MODULE = "transformers.masking_utils"
HOST = "cpu"  # reading a value there waits for nothing
_here = threading.local()  # other threads' forwards ask for themselves
_lock = threading.Lock()
_replaced: dict[str, Callable[..., Any]] = {}
_users = 0


@contextmanager
def masks_unread() -> Iterator[None]:
    """Forwards inside, of this thread, wait for no mask; their positions are the model's own or come with a mask."""
    masking: Any = sys.modules.get(MODULE)
    if masking is None:
        yield
        return
    _enter(masking)
    _here.depth = _depth() + 1
    try:
        yield
    finally:
        _here.depth -= 1
        _leave(masking)


def _depth() -> int:
    depth: int = getattr(_here, "depth", 0)
    return depth


def _enter(masking: Any) -> None:
    global _users
    with _lock:
        _users += 1
        if _users > 1:
            return
        for name, around in (("find_packed_sequence_indices", _packed), ("is_tracing", _tracing)):
            own = getattr(masking, name, None)
            if own is not None:
                _replaced[name] = own
                setattr(masking, name, around(own))


def _leave(masking: Any) -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for name, own in _replaced.items():
                setattr(masking, name, own)
            _replaced.clear()


def _packed(own: Callable[..., Any]) -> Callable[..., Any]:
    def find_packed_sequence_indices(*args: Any, **kwargs: Any) -> Any:
        return None if _depth() else own(*args, **kwargs)

    return find_packed_sequence_indices


def _tracing(own: Callable[..., Any]) -> Callable[..., Any]:
    def is_tracing(tensor: Any = None) -> Any:
        far = isinstance(tensor, Tensor) and tensor.device.type != HOST
        return True if far and _depth() else own(tensor)

    return is_tracing
