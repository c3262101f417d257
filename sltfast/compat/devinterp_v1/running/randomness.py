"""Seeds of chains, and the caller's generators as they were before a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sltfast.isolation import alone

Seed = int | Sequence[int] | None


def chain_seeds(seed: Seed, num_chains: int) -> list[int | None]:
    """The seed of each chain: of ``np.random.SeedSequence(seed)``, or as listed; None where no seed is given.

    Raises:
        ValueError: a list of another length.
        TypeError: neither a whole number nor a list.
    """
    if seed is None:
        return [None] * num_chains
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        return [int(word) for word in np.random.SeedSequence(int(seed)).generate_state(num_chains)]
    if isinstance(seed, bool | str | bytes) or not hasattr(seed, "__len__"):
        raise TypeError(f"seed must be None, a whole number or a list of one for each chain, got {seed!r}")
    if len(seed) != num_chains:
        raise ValueError(f"Length of seed list must match number of chains: got {len(seed)} for {num_chains} chains")
    return [int(one) for one in seed]


@contextmanager
def callers_randomness(device: torch.device, *, restore: bool, loader: Any = None) -> Iterator[None]:
    """Put torch's generators, and those of the loader, back as they were.

    A run without a seed takes its randomness from torch's global generator, as any torch function does, and moves it:
    called twice it gives two answers.

    Args:
        device: whose generator is kept beside the CPU's.
        restore: False leaves torch's global generators where the run left them.
        loader: a DataLoader, whose own generators are put back whatever ``restore`` says.
    """
    with alone():
        own = [(generator, generator.get_state()) for generator in generators_of(loader)]
        before = torch.get_rng_state()
        gpu = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
        try:
            yield
        finally:
            for generator, state in own:
                generator.set_state(state)
            if restore:
                torch.set_rng_state(before)
                if gpu:
                    torch.cuda.set_rng_state_all(gpu)


def generators_of(loader: Any) -> list[torch.Generator]:
    """The generators that a loader and its samplers hold themselves, each once."""
    holders = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    holders.append(getattr(holders[-1], "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())
