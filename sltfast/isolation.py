"""Private random states: what runs inside neither reads nor moves the caller's generators."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_turn = threading.RLock()


def _first_in_line() -> None:
    """In the child of a fork: whoever had the turn is a thread of the parent, and gives nothing back here."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_first_in_line)


@contextmanager
def alone() -> Iterator[None]:
    """One thread of the process at a time; others wait for their turn.

    The generators of python, numpy and torch and the filters of warnings belong to the process: two threads that set
    them, and put them back, would end with each other's. A thread may take its turn again within its turn.
    """
    turn = _turn  # a fork within puts another in its place
    with turn:
        yield


@contextmanager
def isolated_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run with python, numpy and torch generators seeded by ``seed``; the caller's states come back after.

    The generators are the process's, so threads take turns.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with alone():
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            with torch.random.fork_rng(devices=devices):
                reseed(seed, device)
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed the generators that a model's forward may draw from, inside ``isolated_rng`` only."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def surroundings(seed: int, device: torch.device) -> Iterator[None]:
    """Gradients on and random states private."""
    with torch.inference_mode(False), torch.enable_grad(), isolated_rng(seed, device):
        yield
