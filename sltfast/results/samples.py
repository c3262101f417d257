"""What every estimate reads first of the samples it is given: their root, the sampler's settings, the chains to use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.errors import AllChainsDied

if TYPE_CHECKING:
    import xarray as xr


def root_of(samples: Any) -> xr.Dataset:
    """The root of a tree of samples, or the root data set itself.

    Raises:
        TypeError: no tree of samples.
    """
    root: Any = samples.dataset if hasattr(samples, "dataset") else samples
    if not hasattr(root, "data_vars"):
        raise TypeError(
            f"samples must be a tree from sltfast.sample, sltfast.open or devinterp, got {type(samples).__name__}"
        )
    return root


def sampler_of(root: xr.Dataset) -> dict[str, Any]:
    """The settings that the samples were taken with.

    Raises:
        ValueError: the root of no run.
    """
    if "metadata" not in root.attrs:
        raise ValueError("samples must be a tree from sltfast.sample, sltfast.open or devinterp: it has no metadata")
    sampler: dict[str, Any] = root.attrs["metadata"]["config"]["sampler"]
    return sampler


def sampler_of_one(root: xr.Dataset, otherwise: str) -> dict[str, Any]:
    """The settings of a run that has one setting.

    Args:
        root: of the run.
        otherwise: what follows, of a sweep, the words "the samples hold the 8 cells of a sweep".

    Raises:
        ValueError: the root of no run, or of a sweep.
    """
    sampler = sampler_of(root)
    if sampler.get("cells"):
        raise ValueError(f"the samples hold the {len(sampler['cells'])} cells of a sweep{otherwise}")
    return sampler


def plain_settings(root: xr.Dataset) -> dict[str, Any]:
    """The sampler's settings that are plain values, which an estimate takes over as attrs; {} for none of a run."""
    sampler: Mapping[str, Any] = root.attrs.get("metadata", {}).get("config", {}).get("sampler", {})
    return {key: value for key, value in sampler.items() if isinstance(value, str | int | float)}


def usable_chains(alive: np.ndarray, counts: np.ndarray, rows: int, *, completed: bool, samples: Any) -> np.ndarray:
    """Which chains an estimate is made of: whole ones, or of an interrupted run without any all that have begun.

    Args:
        alive: [chains] whether each lived as far as it went.
        counts: [chains] steps or draws that are recorded of each.
        rows: steps or draws of a whole chain.
        completed: whether the run came to its end.
        samples: what the error hands back.

    Returns:
        bool [chains], at least one; the least of their ``counts`` is what all have.

    Raises:
        AllChainsDied: no chain lived.
    """
    whole: np.ndarray = alive & (counts == rows)
    usable = whole if whole.any() or completed else alive & (counts > 0)
    if not usable.any():
        raise AllChainsDied("no chain lived: there is nothing to average (see death_step)", samples=samples)
    return usable
