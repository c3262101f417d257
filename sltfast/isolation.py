"""Private random states: what runs inside neither reads nor moves the caller's generators."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

_turn = threading.RLock()
_forked, _told = False, False


def _born() -> None:
    """In the child of a fork: whoever had the turn is a thread of the parent, and gives nothing back here."""
    global _turn, _forked
    _turn, _forked = threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_born)


@contextmanager
def alone() -> Iterator[None]:
    """One thread of the process at a time; others wait for their turn.

    The generators of python, numpy and torch and the filters of warnings belong to the process: two threads that set
    them, and put them back, would end with each other's. A thread may take its turn again within its turn.
    """
    turn = _turn  # a fork within puts another in its place
    with turn, _threads_that_live():
        yield


@contextmanager
def _threads_that_live() -> Iterator[None]:
    """One thread in the child of a fork: OpenMP's, which the parent may have started, are not there and not missed."""
    global _told
    threads = torch.get_num_threads()
    if not _forked or threads == 1:
        yield
        return
    if not _told:
        _told = True
        warnings.warn(
            f"this process is a fork, in which torch's {threads} threads may wait for ever for those of the parent: "
            "sltfast takes one; start processes with multiprocessing's 'spawn' to use more",
            UserWarning,
            stacklevel=2,
        )
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def isolated_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run with python, numpy and torch generators seeded by ``seed``; the caller's states come back after.

    The generators are the process's, so threads take turns.
    """
    with generators_kept([device] if device is not None and device.type == "cuda" else []):
        reseed(seed, device)
        yield


@contextmanager
def generators_kept(gpus: Sequence[torch.device | int]) -> Iterator[None]:
    """Put the states of python's, numpy's and torch's generators, and of these GPUs', back after the block."""
    with alone():
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            with torch.random.fork_rng(devices=gpus):
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
