"""Whether what a run records has room at all, asked before anything is computed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sltfast.results.layout import ArraySpec
from sltfast.results.place import nearest
from sltfast.sampler.budget import free_bytes, readable
from sltfast.sampler.config import SamplerConfig

CHAIN_BYTES = 1 << 10  # of what is kept of every chain beside its weights, at least
COMPRESSED = 4  # losses of noise shrink by less than this on disk


def check_counts(config: SamplerConfig, paths: Sequence[Path | None]) -> None:
    """Refuse chains and steps whose losses alone, 8 bytes each, fill the memory (10¹² draws, a slip of the keyboard).

    Args:
        config: the run's.
        paths: of each restriction, where it is recorded; None: memory.

    Raises:
        ValueError: there is no room.
    """
    kept = sum(8 if path is not None else 16 for path in paths)  # ℓ(w*; b_t) is held whole, ℓ(w_t; b_t) in memory
    needed = config.num_chains * (kept * config.num_steps + CHAIN_BYTES)
    if needed > free_bytes(torch.device("cpu")):
        raise ValueError(
            f"{_of(config)} make {readable(needed)} of losses and states, and {_free()} of memory are free: give fewer "
            "chains, draws or steps"
        )


def check_records(config: SamplerConfig, specs: Sequence[ArraySpec], paths: Sequence[Path | None]) -> None:
    """Refuse a run whose arrays fit neither in memory nor, where it is written, on the disk.

    Args:
        config: the run's.
        specs: the arrays of each restriction.
        paths: as for ``check_counts``.

    Raises:
        ValueError: there is no room.
    """
    whole = sum(math.prod(spec.shape[1:] if spec.shared else spec.shape) * _item(spec) for spec in specs)
    needed = whole * sum(path is None for path in paths)
    if needed > free_bytes(torch.device("cpu")):
        largest = max(specs, key=lambda spec: math.prod(spec.shape) * _item(spec))
        raise ValueError(
            f"the results of {_of(config)} need {readable(needed)}, most of it {largest.name!r} of shape "
            f"{largest.shape}, and {_free()} of memory are free: give output_path, save_token_losses=False, "
            "record='moments', or fewer chains or draws"
        )
    new = [path for path in paths if path is not None and not path.exists()]
    written = sum(math.prod(spec.shape) * _item(spec) for spec in specs if not spec.shared and spec.dtype != "int64")
    disk = shutil.disk_usage(nearest(new[0])) if new else None
    if disk is not None and disk.total and written * len(new) > COMPRESSED * disk.free:
        raise ValueError(
            f"the results of {_of(config)} need about {readable(written * len(new))} at {new[0]}, where "
            f"{readable(disk.free)} are free: give save_token_losses=False, record='moments', or fewer chains or draws"
        )


def _of(config: SamplerConfig) -> str:
    return f"{config.num_chains:,} chains of {config.num_steps:,} steps"


def _free() -> str:
    return readable(free_bytes(torch.device("cpu")))


def _item(spec: ArraySpec) -> int:
    return np.dtype(spec.dtype).itemsize
