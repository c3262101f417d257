"""Susceptibilities: how the losses of items answer to a change of the data, component by component."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from sltfast.compat.devinterp.slt.lm_loss import LossFn
from sltfast.compat.devinterp.slt.observables import to_obs_id
from sltfast.compat.devinterp.slt.sampling import ObservableSpec, sample
from sltfast.compat.devinterp.slt.weight_restrictions import ParamMasks
from sltfast.compat.fast_run.job import Job
from sltfast.compat.fast_run.records import living
from sltfast.compat.fast_run.sampling import exactly, in_memory, sampled_restrictions
from sltfast.estimators.susceptibility import compute_susceptibilities as native_susceptibilities

if TYPE_CHECKING:
    import xarray as xr


def susceptibilities(
    model: nn.Module,
    dataset: Any,
    observables: dict[str, ObservableSpec],
    weight_restrictions: dict[str, ParamMasks | None],
    *,
    sampling_task: str,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    include_sampling_task: bool = False,
    **kwargs: Any,
) -> xr.DataTree:
    """Sample every restriction, in passes that they share, and compute susceptibilities.

    Args:
        model: as ``sample``.
        dataset: likewise.
        observables: probes, and the sampling task.
        weight_restrictions: masks by name, among them "full" (None: the whole model).
        sampling_task: the observable that stands for the sampling data.
        lr: step size ε.
        n_beta: inverse temperature nβ.
        loss_fn: as ``sample``.
        include_sampling_task: the sampling task's own items too.
        **kwargs: every other keyword of ``sample``; ``output_path`` "runs/a.zarr" writes each restriction to
            "runs/a_<name>.zarr". Without it only moments are kept, in memory that does not grow with draws.

    Returns:
        See ``compute_susceptibilities``.

    Raises:
        ValueError: no "full", a sampling task that is no observable, or nothing beside it.

    Source: Baker et al. 2504.18274, App. C.4; devinterp 2.0.1.
    """
    if "full" not in weight_restrictions:
        raise ValueError("weight_restrictions must include a 'full' key: add 'full': None, the whole model")
    if sampling_task not in observables:
        raise ValueError(
            f"sampling_task '{sampling_task}' not found in observables: it must be one of {[*observables]}"
        )
    if not include_sampling_task and len(observables) < 2:
        raise ValueError(
            "Need at least one observable besides sampling_task: add one, or give include_sampling_task=True"
        )
    path = kwargs.pop("output_path", None)
    bound = inspect.signature(sample).bind(model, dataset, observables, lr=lr, n_beta=n_beta, loss_fn=loss_fn, **kwargs)
    bound.apply_defaults()
    keywords = bound.arguments
    job = Job.of(keywords)
    wanted = {name: (masks, _path_of(path, name)) for name, masks in weight_restrictions.items()}
    if path is not None or exactly(job, keywords, *weight_restrictions.values()):
        trees = sampled_restrictions(job, keywords, wanted)
    else:
        trees = in_memory(job, weight_restrictions, record="moments", sampling_task=sampling_task, token_losses=False)
    return compute_susceptibilities(trees, sampling_task, include_sampling_task=include_sampling_task)


def _path_of(path: str | Path | None, name: str) -> Path | None:
    if path is None:
        return None
    whole = Path(path)
    return whole.parent / f"{whole.stem}_{name}{whole.suffix}"


def compute_susceptibilities(
    wr_map: dict[str, xr.DataTree],
    sampling_task: str,
    observable_names: list[str] | None = None,
    include_sampling_task: bool = False,
) -> xr.DataTree:
    """Susceptibility of every restriction to every token of the observables.

    χ = E_r[φ·L] − E_r[φ·ℓ] − E_r[φ]·(E_full[L] − E_full[ℓ]),  φ = L − init_loss, L the sampling task's mean loss at a
    draw, ℓ the token's, r the restricted run. "full" itself is left out, as in devinterp 2.0.1.

    Args:
        wr_map: trees of ``sample`` (or devinterp's) by restriction, among them "full".
        sampling_task: the observable that L is the mean of.
        observable_names: which observables; None: all but the sampling task.
        include_sampling_task: it too, where ``observable_names`` is None.

    Returns:
        ``/susceptibilities``: ``sus`` float32 (sus_flat, wr), in nats², with coordinates ``wr``, and of each row
        ``dataset_id``, ``batch`` and ``target_position`` (from 1); ``/context``: ``input_ids`` (ctx_flat) with
        ``dataset_id``, ``batch``, ``position``. attrs of both: ``dataset_id_to_name``, sorted.

    Raises:
        KeyError: no "full".
        ValueError: no observable, or no restriction, is left.
        AssertionError: token ids that differ between restrictions.
        AllChainsDied: no chain of the full run lived.

    Source: Baker et al. 2504.18274, App. C.4; devinterp 2.0.1.
    """
    import xarray as xr

    roots = {name: living(tree) for name, tree in wr_map.items()}
    task = to_obs_id(sampling_task)
    recorded = _observables(roots["full"])
    if observable_names is None:
        names = [name for name in recorded if include_sampling_task or name != task]
    else:
        names = [to_obs_id(name) for name in observable_names]
    if not names:
        raise ValueError(
            f"No probe observables to compute susceptibilities for: there are {recorded}, the sampling task is "
            f"{task!r}; add one, or give include_sampling_task=True"
        )
    restricted = [name for name in roots if name != "full"]
    if not restricted:
        raise ValueError("wr_map holds nothing but 'full', which is not part of the result: add a restriction")
    names = sorted(dict.fromkeys(names))
    _check_same_ids(roots, restricted, names)
    found = native_susceptibilities(
        {name: xr.DataTree(root) for name, root in roots.items()},
        task,
        names,
        init_loss="init_batches",
        progress=False,
    )
    sus = found["susceptibilities"].to_dataset()["sus"].sel(wr=restricted).values.astype(np.float32)
    ids = {name: _ids(roots[restricted[0]], name) for name in names}
    shapes = {name: (len(rows), rows.shape[1] - 1) for name, rows in ids.items()}
    attrs = {"dataset_id_to_name": names}
    answers = xr.Dataset(
        {"sus": (("sus_flat", "wr"), sus)},
        coords=_flat(shapes, "sus_flat", "target_position", 1).merge(xr.Coordinates({"wr": restricted})),
        attrs=attrs,
    )
    widths = {name: rows.shape for name, rows in ids.items()}
    tokens = np.concatenate([rows.ravel() for rows in ids.values()])
    context = xr.Dataset(
        {"input_ids": ("ctx_flat", tokens)}, coords=_flat(widths, "ctx_flat", "position", 0), attrs=attrs
    )
    return xr.DataTree.from_dict({"/susceptibilities": answers, "/context": context})


def _observables(root: xr.Dataset) -> list[str]:
    """Identifiers of the observables with losses or, where only those were kept, moments."""
    marks = ("loss_", "moment_mean_")
    return [str(name)[len(mark) :] for name in root.data_vars for mark in marks if str(name).startswith(mark)]


def _ids(root: xr.Dataset, name: str) -> np.ndarray:
    """[rows, tokens]; trees of old have the same once for every draw."""
    values: np.ndarray = root[f"input_ids_{name}"].values
    return values.reshape(-1, *values.shape[-2:])[0]


def _check_same_ids(roots: dict[str, xr.Dataset], restricted: list[str], names: list[str]) -> None:
    for other in restricted[1:]:
        for name in names:
            if not np.array_equal(_ids(roots[restricted[0]], name), _ids(roots[other], name)):
                raise AssertionError(
                    f"input_ids for {name} differ between {restricted[0]} and {other}: sample all restrictions with "
                    "the same observables and obs_seed"
                )


def _flat(shapes: Mapping[str, tuple[int, ...]], dim: str, position: str, first: int) -> xr.Coordinates:
    """Coordinates of items laid end to end, row by row."""
    import xarray as xr

    columns: dict[str, list[np.ndarray]] = {"dataset_id": [], "batch": [], position: []}
    for number, (rows, width) in enumerate(shapes.values()):
        columns["dataset_id"].append(np.full(rows * width, number))
        columns["batch"].append(np.repeat(np.arange(rows), width))
        columns[position].append(np.tile(np.arange(first, first + width), rows))
    return xr.Coordinates({name: (dim, np.concatenate(parts)) for name, parts in columns.items()}, indexes={})
