"""The tree that a run returns, the store on disk behind it, and how an interrupted one is read or taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sltfast.errors import OutputMismatch
from sltfast.results.differences import differences, refusal
from sltfast.results.durable import SPECS, discard, is_ours
from sltfast.results.intact import check_intact
from sltfast.results.journal import read_journal
from sltfast.results.layout import ArraySpec
from sltfast.results.place import readable_path
from sltfast.results.replacing import described
from sltfast.results.store import MemoryStore, sidecar

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn


def tree_from_memory(store: MemoryStore, attrs: Mapping[str, Any], *, completed: bool) -> xr.DataTree:
    """The recorded arrays as a tree."""
    import xarray as xr

    views = store.views()
    variables = {name: (store.specs[name].dims, values) for name, values in views.items()}
    return with_arviz_groups(xr.Dataset(variables, attrs={**attrs, "completed": int(completed)}))


def with_arviz_groups(dataset: xr.Dataset) -> xr.DataTree:
    """Add the groups that ArviZ reads: ``posterior`` (excess loss at each draw) and ``sample_stats`` (diverging)."""
    import xarray as xr

    nodes = {"/": dataset}
    if {"loss", "init_loss_trace"} <= set(dataset.data_vars):
        sampler = dataset.attrs["metadata"]["config"]["sampler"]
        at = slice(sampler["num_burnin_steps"], None, sampler["num_steps_bw_draws"])
        excess = (dataset["loss"] - dataset["init_loss_trace"]).isel(step=at).rename(step="draw")
        steps = np.arange(dataset.sizes["step"])[at]
        death = dataset["death_step"].values[:, None]
        diverging = (death >= 0) & (steps[None, :] >= death)
        nodes["/posterior"] = xr.Dataset({"excess_loss": excess})
        nodes["/sample_stats"] = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    return xr.DataTree.from_dict(nodes)


def open_run(path: str | Path) -> xr.DataTree:
    """Read a run from disk, complete or interrupted.

    A complete run is opened lazily. Of an interrupted one the finished chunks and the rows still in its journal are
    read into memory; what was not recorded is NaN.

    Args:
        path: the ``output_path`` of ``sltfast.sample``.

    Returns:
        The tree that ``sltfast.sample`` returns; ``attrs["completed"]`` is 0 for an interrupted run.

    Raises:
        FileNotFoundError: nothing is there.
        OutputMismatch: what is there is no run, or one that lost some of its files.
    """
    import xarray as xr

    path = readable_path(path, "path").expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no run at {path}")
    try:
        dataset = xr.open_dataset(path, engine="zarr", consolidated=False)
    except Exception as error:
        raise OutputMismatch(f"{path} is not a run that can be read ({type(error).__name__}: {error})") from error
    if "metadata" not in dataset.attrs:
        raise OutputMismatch(f"{path} is a zarr store, but not of a sampling run: it has no metadata attribute")
    if not _names_sampler(dataset.attrs):
        raise OutputMismatch(f"{path} is damaged: its metadata do not say how it was sampled (config, sampler)")
    check_intact(path, dataset.attrs)
    side = sidecar(path)
    if side.exists() and dataset.attrs.get("completed") != 1:
        try:
            dataset = dataset.load()
        except RuntimeError as error:  # of a codec
            raise OutputMismatch(
                f"a chunk of {path} is damaged ({error}); remove the run, or give overwrite=True and sample again"
            ) from error
        specs = _read_specs(side)
        for journal in sorted(side.glob("chain-*.journal")):
            for record in read_journal(journal, specs):
                chains, rows = record.values.shape[:2]
                at = (slice(record.chain, record.chain + chains), slice(record.row, record.row + rows))
                dataset[specs[record.array].name].values[at] = record.values
    return with_arviz_groups(dataset)


def _read_specs(side: Path) -> list[ArraySpec]:
    try:
        rows = json.loads((side / SPECS).read_text())
        return [ArraySpec(name, tuple(dims), tuple(shape), *rest) for name, dims, shape, *rest in rows]
    except (ValueError, TypeError) as error:
        raise OutputMismatch(
            f"{side / SPECS} is damaged ({error}): what the run has beside it cannot be read; remove {side}, or give "
            "overwrite=True and sample again"
        ) from error


def _names_sampler(attrs: Mapping[str, Any]) -> bool:
    """Whether attributes hold the settings of a sampler, as those of every run do."""
    found: Any = attrs
    for key in ("metadata", "config", "sampler"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(found, Mapping)


class Existing(NamedTuple):
    """What stands at ``output_path``: "" (nothing that counts), "complete" or "interrupted", and the plan that it was
    run by; ``replaced`` describes a run that is to be deleted, "" where there is none.
    """

    state: str
    plan: dict[str, Any]
    replaced: str = ""


def existing_run(
    path: Path, attrs: Mapping[str, Any], model: nn.Module | None = None, *, overwrite: bool = False
) -> Existing:
    """What stands at ``output_path``, if it is the same run as ``attrs`` describes.

    Args:
        path: where the run goes.
        attrs: root attributes of the run that is asked for.
        model: of that run, to name the tensors in which another one differs.
        overwrite: a run that stands there is to be replaced, whichever it is.

    Raises:
        OutputMismatch: another run, or something that is no run (which ``overwrite`` does not replace either).
    """
    side = sidecar(path)
    if side.exists() and not is_ours(side):
        raise OutputMismatch(f"{side}, where the run would keep its journal, holds something else: give another path")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return Existing("", {})
    stored = _run_attrs(path)
    if overwrite:
        return Existing("", {}, described(path, stored))
    found = differences(stored, attrs, model)
    if found:
        raise OutputMismatch(refusal(path, found, stored))
    state = "interrupted" if (side / SPECS).exists() else ""
    if stored.get("completed") == 1:
        state = "complete"
        discard(side)  # of a call that was stopped while it tidied up
    plan: Any = stored["sltfast"]
    return Existing(state, dict(plan.get("plan", {})) if state else {})


def _run_attrs(path: Path) -> dict[str, Any]:
    """Root attributes of a run of ours; whatever else stands at the path is refused."""
    import zarr

    try:
        stored = dict(zarr.open_group(str(path), mode="r").attrs)
    except Exception as error:
        raise OutputMismatch(
            f"output_path {path} exists and is no sampling run ({type(error).__name__}): give another path, or "
            "remove it"
        ) from error
    own = stored.get("sltfast")
    if not isinstance(own, dict) or not _names_sampler(stored):
        raise OutputMismatch(
            f"output_path {path} holds data that sltfast did not write: give another path, or remove it"
        )
    return stored
