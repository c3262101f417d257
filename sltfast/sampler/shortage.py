"""Memory that ran out: how it shows, what of it can be given back, and what is said where nothing smaller is left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sltfast.errors import NotEnoughMemory

# what a failed allocation says that is no type of its own: torch's on a CPU, C++'s, and those of CUDA's libraries
WORDS = (
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED",
)
LESS = (
    "a smaller batch_size (gradient_accumulation_steps makes up for it), shorter rows, fewer weights (param_masks), "
    "save_token_losses=False, or a device with more memory free"
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a device or of the host."""
    if isinstance(error, NotEnoughMemory):
        return False  # said already, in the end
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def give_back(device: torch.device) -> None:
    """Let go of what nothing refers to any more, and give a device's cached blocks back to it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def no_room_for(what: str) -> Iterator[None]:
    """Memory that runs out within is told as one clear error: nothing smaller can be tried there.

    Raises:
        NotEnoughMemory: it did.
    """
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        message = f"out of memory before the first step, in {what} ({first_line(error)}): give {LESS}"
        raise NotEnoughMemory(message) from error
