"""From a resolved call to devinterp's trees: the engine's where it keeps the contract, else the exact loop's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sltfast.compat.defects import warn_once
from sltfast.compat.exactness import wants_exact
from sltfast.compat.fast_run.job import Job
from sltfast.compat.fast_run.masks import ParamMasks, selected
from sltfast.compat.fast_run.records import as_devinterp, with_noisy_init_loss
from sltfast.compat.fast_run.stored import AnotherRun, stored_run
from sltfast.errors import ChainDiverged, OutputMismatch

if TYPE_CHECKING:
    import xarray as xr

LARGE = 1000  # sequences of a run, from which devinterp warns that nothing is kept


def exactly(job: Job, keywords: Mapping[str, Any], *masks: ParamMasks | None) -> bool:
    """Whether a call goes through the exact loop: it is asked to, or nothing else keeps the contract."""
    if wants_exact(keywords["exact"]):
        return True
    row = job.only_exact(*masks)
    if row:
        warn_once(row, stacklevel=5)
    return bool(row)


def sampled(keywords: Mapping[str, Any]) -> xr.DataTree:
    """The tree of one call of ``sample``, given all of its arguments."""
    masks, path = keywords["param_masks"], keywords["output_path"]
    job = Job.of(keywords)
    return sampled_restrictions(job, keywords, {"": (masks, None if path is None else Path(path))})[""]


def sampled_restrictions(
    job: Job, keywords: Mapping[str, Any], wanted: Mapping[str, tuple[ParamMasks | None, Path | None]]
) -> dict[str, xr.DataTree]:
    """Devinterp's trees of several restrictions by name; those of the engine share their passes.

    Args:
        job: the call.
        keywords: its arguments; ``param_masks`` and ``output_path`` of them are those of ``wanted``.
        wanted: masks and path of each restriction.
    """
    there = {name: None if path is None else stored_run(path, job.config) for name, (_, path) in wanted.items()}
    found = {name: tree for name, tree in there.items() if tree is not None and "sltfast" not in tree.attrs}
    if found:
        warn_once("stale cache", stacklevel=5)
    left = {name: one for name, one in wanted.items() if name not in found}
    warn_unkept(job, any(path is None for _, path in left.values()))
    if left and exactly(job, keywords, *(masks for masks, _ in left.values())):
        return {name: found[name] if name in found else _exact(keywords, *wanted[name]) for name in wanted}
    trees = _fast(job, left) if left else {}
    return {name: found[name] if name in found else trees[name] for name in wanted}


def in_memory(job: Job, wanted: Mapping[str, ParamMasks | None], **recording: Any) -> dict[str, xr.DataTree]:
    """The engine's own trees of a call that returns an estimate only.

    Args:
        job: the call.
        wanted: masks by name.
        **recording: as ``Job.run``: what the estimate needs.
    """
    warn_unkept(job, unkept=True)
    warn_low_precision(job)
    trees = job.run({name: (masks, None) for name, masks in wanted.items()}, **recording)
    for name, tree in trees.items():
        say_who_died(tree.dataset, name)
        if job.config.init_noise:
            trees[name] = with_noisy_init_loss(tree, job, None)
    return trees


def _fast(job: Job, wanted: Mapping[str, tuple[ParamMasks | None, Path | None]]) -> dict[str, xr.DataTree]:
    warn_low_precision(job)
    try:
        trees = job.run(wanted)
    except OutputMismatch as error:
        raise AnotherRun(f"{error}. Delete and retry, or give another output_path") from error
    results = {}
    for name, tree in trees.items():
        masks, path = wanted[name]
        result = as_devinterp(tree, job, selected(job.model, masks))
        if job.config.init_noise:
            result = with_noisy_init_loss(result, job, path)
        say_who_died(result["sltfast"].to_dataset(), name)
        results[name] = result
    return results


def _exact(keywords: Mapping[str, Any], masks: ParamMasks | None, path: Path | None) -> xr.DataTree:
    run = import_module("sltfast.compat.exact_run").run
    given = {name: value for name, value in keywords.items() if name != "exact"}
    try:
        tree: xr.DataTree = run(**{**given, "param_masks": masks, "output_path": path})
    except OutputMismatch as error:
        raise AnotherRun(f"{error}. Delete and retry, or give another output_path") from error
    return tree


def warn_unkept(job: Job, unkept: bool) -> None:
    """Devinterp's warning of a large run without a path: it is lost when the process ends."""
    config = job.config
    sequences = config.num_chains * config.num_sgld_steps * config.batch_size
    if unkept and sequences > LARGE:
        warnings.warn(
            f"Sampling without output_path set: {sequences} sequences' losses are held in memory and lost when the "
            "process exits; give output_path to keep them, and to take up an interrupted run",
            UserWarning,
            stacklevel=5,
        )


def warn_low_precision(job: Job) -> None:
    """Say that weights in half precision are moved in float32."""
    if any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in job.model.parameters()):
        warn_once("half-precision weights", stacklevel=6)


def say_who_died(extras: xr.Dataset, name: str = "") -> None:
    """Devinterp's warning of each chain that failed."""
    for chain in np.flatnonzero(~extras["alive"].values).tolist():
        step = int(extras["death_step"].values[chain])
        whose = f" of {name!r}" if name else ""
        warnings.warn(
            f"Chain failed: Chain {chain}{whose} failed: Loss is NaN or Inf at step {step}", ChainDiverged, stacklevel=6
        )
