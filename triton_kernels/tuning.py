"""Which of a few block shapes a kernel takes: each is timed once for a kind of call, on scratch; the fastest is kept.

`triton.autotune` runs candidates on the operands of the call, and a step in place would be taken several times.
"""

import os
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
_REPEATS = 5
_fastest: dict[Hashable, int] = {}


def fastest(
    key: Hashable,
    candidates: Sequence[T],
    attempt: Callable[[T], object],
    device: torch.device,
    milliseconds: Callable[[Callable[[], object]], float] | None = None,
) -> T:
    """The candidate to launch with.

    The first one, untimed, where nothing can be timed (the interpreter, a CUDA graph being captured) or nothing should:
    with `torch.use_deterministic_algorithms`, since sums in another shape may end in another last bit.

    Args:
        key: what kind of call this is: sizes in powers of two, dtypes, device; no hyperparameter.
        candidates: block shapes, the safest first.
        attempt: launches with one of them, on scratch.
        device: where.
        milliseconds: times a launch; None: CUDA events, which makes the host wait, once a key.
    """
    if key not in _fastest:
        if milliseconds is None:
            if not _may_time(device):
                return candidates[0]
            milliseconds = _milliseconds
        times = [milliseconds(lambda candidate=candidate: attempt(candidate)) for candidate in candidates]
        _fastest[key] = times.index(min(times))
    return candidates[_fastest[key]]


def power(size: int) -> int:
    """The number of bits of a size: sizes within a power of two are tuned together."""
    return size.bit_length()


def _may_time(device: torch.device) -> bool:
    return (
        device.type == "cuda"
        and os.environ.get("TRITON_INTERPRET") != "1"
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )


def _milliseconds(launch: Callable[[], object]) -> float:
    """Of one launch, after a first that compiles."""
    launch()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(_REPEATS):
        launch()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / _REPEATS
