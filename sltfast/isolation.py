"""Private random states: what runs inside neither reads nor moves the caller's generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run with python, numpy and torch generators seeded by ``seed``; the caller's states come back after."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device is not None and device.type == "cuda" else []
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
