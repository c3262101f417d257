"""The losses that a tree holds of its observables: chains that lived, items side by side, padding as NaN."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sltfast.errors import ChainDiverged
from sltfast.observables import observable_id
from sltfast.results.samples import root_of, usable_chains

if TYPE_CHECKING:
    import xarray as xr

Keys = Literal["all"] | Sequence[str]


class Recorded(NamedTuple):
    """Losses at every draw of the chains that lived.

    Attributes:
        losses: [C·D, N, T], chain after chain; float32 as recorded. NaN where an item has no position (weight 0).
        chains: C; each has the same number of draws.
        observables: [N] the name of the observable that an item belongs to.
        left_out: numbers of the chains that died, or were not finished.
    """

    losses: Tensor
    chains: int
    observables: np.ndarray
    left_out: tuple[int, ...]


def loss_keys_of(dataset: xr.Dataset, loss_keys: Keys) -> list[str]:
    """The observables asked for; "all": every one, sorted, as devinterp sorts them.

    Raises:
        ValueError: there are none, or one that was not recorded.
    """
    present = sorted(str(name)[len("loss_") :] for name in dataset.data_vars if str(name).startswith("loss_"))
    if not present:
        raise ValueError(
            "the samples hold no losses of observables (variables loss_<name>): sample with observables={name: data "
            f"set}}, and record='traces' or 'covariances'; there are {sorted(map(str, dataset.data_vars))}"
        )
    return chosen_keys(loss_keys, present)


def chosen_keys(loss_keys: Keys, present: Sequence[str]) -> list[str]:
    """Those of the observables that are asked for, by identifier; they may be named as the caller named them.

    Raises:
        ValueError: none of them, the same one twice, or something else.
    """
    if isinstance(loss_keys, str) and loss_keys == "all":
        return list(present)
    keys = identifiers(loss_keys)
    if not keys or not set(keys) <= set(present) or len(set(keys)) < len(keys):
        raise ValueError(f"loss_keys must be 'all' or a list of different names of {list(present)}, got {loss_keys!r}")
    return keys


def identifiers(names: Any) -> list[str]:
    """What the observables of a list are called in the samples; [] where it is no list of names."""
    listed = isinstance(names, Iterable) and not isinstance(names, str)
    found = list(names) if listed else []
    return [observable_id(name) for name in found] if all(isinstance(name, str) for name in found) else []


def recorded_losses(samples: Any, keys: Sequence[str]) -> Recorded:
    """Read the losses of observables; chains that died are left out, with a warning.

    Raises:
        AllChainsDied: no chain lived.
        ValueError: fewer than two draws are there.
    """
    dataset = root_of(samples)
    arrays = [_array(dataset, key) for key in keys]
    living, draws = living_chains(dataset, _recorded_draws(dataset, arrays), samples, unit="draws")
    if len(living) * draws < 2:
        raise ValueError(f"a covariance needs at least 2 draws, got {len(living) * draws}: raise num_draws")
    chains = arrays[0].shape[0]
    width = max(array.shape[3] for array in arrays)
    if len(arrays) == 1 and len(living) == chains and draws == arrays[0].shape[1]:
        losses = np.ascontiguousarray(arrays[0])
        if not losses.flags.writeable:  # torch shares memory with what it may write to
            losses = losses.copy()
    else:
        wide = np.result_type(*arrays)
        losses = np.full((len(living), draws, sum(a.shape[2] for a in arrays), width), np.nan, dtype=wide)
        at = 0
        for array in arrays:
            losses[:, :, at : at + array.shape[2], : array.shape[3]] = array[living, :draws]
            at += array.shape[2]
    names = [key for key, array in zip(keys, arrays, strict=True) for _ in range(array.shape[2])]
    values = torch.from_numpy(losses.reshape(len(living) * draws, -1, width))
    left_out = tuple(chain for chain in range(chains) if chain not in living)
    return Recorded(values, len(living), np.array(names, dtype=object), left_out)


def token_ids_of(dataset: xr.Dataset, keys: Sequence[str]) -> np.ndarray | None:
    """[N, tokens] of the observables, None where one has none; −1 behind the end of a shorter one."""
    if any(f"input_ids_{key}" not in dataset for key in keys):
        return None
    ids = [np.asarray(dataset[f"input_ids_{key}"].values) for key in keys]
    ids = [rows.reshape(-1, *rows.shape[-2:])[0] for rows in ids]  # the same at every draw, where it has draws
    width = max(rows.shape[1] for rows in ids)
    return np.concatenate([np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in ids])


def rows_of(dataset: xr.Dataset, keys: Sequence[str]) -> np.ndarray | None:
    """[N] which row of its observable's data set each item is, None where that was not recorded."""
    if any(f"rows_{key}" not in dataset for key in keys):
        return None
    return np.concatenate([np.asarray(dataset[f"rows_{key}"].values) for key in keys])


def _array(dataset: xr.Dataset, key: str) -> np.ndarray:
    variable = dataset[f"loss_{key}"]
    if variable.ndim != 4 or variable.dims[:2] != ("chain", "draw"):
        raise ValueError(f"loss_{key} must have dimensions (chain, draw, batch, position), it has {variable.dims}")
    values = np.asarray(variable.values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def living_chains(dataset: xr.Dataset, recorded: np.ndarray, samples: Any, *, unit: str) -> tuple[list[int], int]:
    """Chains to read and how many rows of each: whole chains, or of an interrupted run what all have.

    Args:
        dataset: the root of the tree.
        recorded: [C, rows] which rows are there.
        samples: what an error hands back.
        unit: of a row, for messages.

    Raises:
        AllChainsDied: no chain lived.
        ValueError: the run was interrupted before there was anything.
    """
    chains, rows = recorded.shape
    completed = dataset.attrs.get("completed", 1) == 1
    counts = np.where(recorded.all(axis=1), rows, recorded.argmin(axis=1))
    alive = np.asarray(dataset["alive"].values).astype(bool) if "alive" in dataset else np.ones(chains, dtype=bool)
    if not completed and alive.any() and not (alive & (counts > 0)).any():
        raise ValueError(f"no {unit} were recorded yet: let the run go on (the same call with its output_path)")
    living = np.flatnonzero(usable_chains(alive, counts, rows, completed=completed, samples=samples)).tolist()
    whole = int(counts[living].min()) == rows
    if len(living) < chains or not whole:
        reason = "died" if completed else "died or are not finished"
        say = f"{chains - len(living)} of {chains} chains {reason} and are left out of every mean"
        if not whole:
            say = f"the run was interrupted: {counts[living].min()} of {rows} {unit} of {len(living)} chains are used"
        warnings.warn(say, ChainDiverged if completed else UserWarning, stacklevel=4)
    return living, int(counts[living].min())


def _recorded_draws(dataset: xr.Dataset, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """[C, D] which draws are there; that every draw of a complete run is needs no look at its losses."""
    shapes = {array.shape[:2] for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"observables must have the same chains and draws, got {sorted(shapes)}")
    if dataset.attrs.get("completed", 1) == 1 and "alive" in dataset:
        return np.ones(arrays[0].shape[:2], dtype=bool)
    return ~np.isnan(arrays[0]).all(axis=(2, 3))
