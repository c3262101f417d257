"""devinterp's tree of a run, from the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sltfast.clone import structural_clone, unwrap
from sltfast.compat.fast_run.before import plain_losses
from sltfast.compat.fast_run.job import Job
from sltfast.isolation import reseed, surroundings
from sltfast.sampler.transition import METRICS

if TYPE_CHECKING:
    import xarray as xr

EXTRAS = ("loss", "init_loss_trace", "alive", "death_step")


def names_of(obs_ids: Sequence[str], *, metrics: bool) -> list[str]:
    """Variables at the root of devinterp's tree, in its order."""
    names = ["init_loss", "sampling_loss", "sampling_loss_micro", "sampling_input_ids_micro"]
    for name in obs_ids:
        names += [f"loss_{name}", f"input_ids_{name}"]
    return names + ([f"metrics_{name}" for name in METRICS] if metrics else [])


def as_devinterp(tree: xr.DataTree, job: Job, numel: int) -> xr.DataTree:
    """Devinterp's variables and attributes at the root; what the engine adds (which chains died, and when, and the
    losses paired with those at w*) in the group ``sltfast``.

    Args:
        tree: the engine's.
        job: whose.
        numel: coordinates that the masks name.
    """
    import xarray as xr

    root = tree.dataset
    metrics = job.config.save_metrics
    kept = [name for name in names_of(job.obs_ids, metrics=metrics) if name in root]
    attrs = {"metadata": root.attrs["metadata"], "completed": root.attrs["completed"]}
    if metrics:
        attrs["metrics_numel"] = numel
    if "sltfast" in root.attrs:
        attrs["sltfast"] = root.attrs["sltfast"]
    own = xr.Dataset({name: root[name].variable for name in kept}, attrs=attrs)
    extras = xr.Dataset({name: root[name].variable for name in EXTRAS if name in root})
    return xr.DataTree.from_dict({"/": own, "/sltfast": extras})


def living(samples: xr.DataTree) -> xr.Dataset:
    """The root of a tree, with which chains lived where that is on record beside it."""
    root = samples.to_dataset(inherit=False)
    extras = samples.children.get("sltfast")
    if extras is None or "alive" in root or "alive" not in extras.data_vars:
        return root
    return root.assign({name: extras[name].variable for name in ("alive", "death_step")})


def with_noisy_init_loss(tree: xr.DataTree, job: Job, path: Path | None) -> xr.DataTree:
    """The tree with ``init_loss`` where each chain starts under ``init_noise``, as devinterp has it.

    All weights are moved, whichever the chain moves, by the noise that torch's generator gives at the chain's seed.
    """
    losses = _noisy_init_losses(job)
    if path is not None:
        import zarr

        array: Any = zarr.open_group(str(path), mode="r+")["init_loss"]
        array[...] = losses
    root = tree.dataset.assign(init_loss=(("chain", "token_pos"), losses))
    tree.dataset = root
    return tree


def _noisy_init_losses(job: Job) -> np.ndarray:
    config, loss = job.config, job.loss_fn or plain_losses
    batches = config.gradient_accumulation_steps * config.num_init_loss_batches
    found = []
    with surroundings(config.init_seed, job.device), torch.no_grad():
        for chain in range(config.num_chains):
            clone = structural_clone(unwrap(job.model), job.device)
            reseed(config.init_seed + chain, job.device)
            _move(clone, float(config.init_noise or 0.0))
            found.append(torch.stack([loss(clone, rows).float() for rows in job.batches(chain, batches)]).mean((0, 1)))
    return torch.stack(found).cpu().numpy()


def _move(clone: nn.Module, deviation: float) -> None:
    for parameter in clone.parameters():
        parameter.data = parameter.data + torch.randn_like(parameter.data) * deviation
