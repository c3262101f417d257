"""Refined learning coefficients: of a part of the weights, on other data, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.batches import BatchStream
from sltfast.clone import unwrap
from sltfast.data import COLUMNS, Source, as_source
from sltfast.errors import AllChainsDied
from sltfast.estimators.collection import estimate_of, stacked
from sltfast.estimators.llc import needed_for
from sltfast.losses import check_tokens
from sltfast.request import resolve
from sltfast.restricted import path_of, sample_restrictions
from sltfast.restriction import ParamMasks, Restriction
from sltfast.restriction.components import components
from sltfast.results.sampled_losses import InitLoss
from sltfast.sampler.config import SamplerConfig

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn


def refined_llc(
    model: nn.Module,
    datasets: Mapping[str, Any],
    weight_restrictions: Mapping[str, ParamMasks] | Sequence[str] | str | None = None,
    *,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    include_burnin: bool = False,
    init_loss: InitLoss = "paired",
    output_path: str | Path | None = None,
    **sampling: Any,
) -> xr.Dataset:
    """Estimate refined learning coefficients for every data set with every restriction of the weights.

    λ̂(w*; V, q') = nβ·(E[L'(v)] − L'(w*)),  v ~ p(v) ∝ exp(−nβ·L'(u*, v) − γ/2·|v − v*|²),

    where w = (u, v), only v ∈ V moves, and L' is the mean loss on data of q'. One data set (the training data) and
    several restrictions: weight-refined. Several data sets and the full model: data-refined. Both:
    weight-and-data-refined. w* need not be a minimum of L': a λ̂ below zero is reported as it is, and its verdict says
    so. All restrictions see the same batches of a data set and share its passes (``sltfast.sample_restrictions``).

    Args:
        model: see ``sltfast.sample``.
        datasets: ``{name: data set}``, each as ``sltfast.sample`` takes it; their λ̂ compare at the same nβ.
        weight_restrictions: as ``sltfast.sample_restrictions``; None: ``{"full": None}``, the whole model.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ.
        loss_fn: see ``sltfast.sample``.
        include_burnin: see ``sltfast.compute_llc``.
        init_loss: see ``sltfast.compute_llc``.
        output_path: ``runs/llm.zarr`` writes each cell to ``runs/llm_<dataset>_<restriction>.zarr``, a run of its own
            that ``sltfast.open`` reads; the same call resumes what was interrupted.
        **sampling: every other keyword of ``sltfast.sample`` but ``param_masks``.

    Returns:
        ``xr.Dataset`` with dimensions (dataset, wr): every variable of ``sltfast.compute_llc`` (``llc_mean``,
        ``llc_se``, ``llc_ci``, ``llc_per_chain``, ``rhat``, ``ess``, ``loss_trace``, …), ``verdict``, ``advice``,
        ``chains_alive`` and ``chains_diverged``. A cell without a living chain is "diverged" and NaN. attrs: the
        settings.

    Raises:
        TypeError: datasets is no mapping from names, or as ``sltfast.sample_restrictions``.
        ValueError: one of them is empty, two cells would be written to one file, or as ``sltfast.sample``; before the
            first step of any cell.
        AllChainsDied: no chain of any cell lived.

    Source: Wang et al. 2410.02984.
    """
    _check_names(datasets)
    restrictions = components(unwrap(model), "full" if weight_restrictions is None else weight_restrictions, full=False)
    if set(datasets) <= set(COLUMNS):
        raise TypeError(f"datasets has the columns of one data set, {sorted(datasets)}: give {{'train': data}}")
    keywords = {**needed_for(init_loss, sampling), "lr": lr, "n_beta": n_beta, "loss_fn": loss_fn}
    if "param_masks" in keywords:
        raise TypeError("param_masks belongs in weight_restrictions here: {name: param_masks}")
    paths = _paths(output_path, datasets, restrictions)
    for masks in restrictions.values():
        Restriction.of(model, masks)
    sources = {name: _source(model, name, data, keywords) for name, data in datasets.items()}
    estimates = []
    for name, (source, config) in sources.items():
        one = {**keywords, "batch_size": config.batch_size}
        trees = _sampled(model, source, restrictions, output_path=paths[name], **one)
        estimates += [estimate_of(tree, include_burnin=include_burnin, init_loss=init_loss) for tree in trees]
    if not any(bool(estimate["alive"].any()) for estimate in estimates):
        raise AllChainsDied(
            f"every chain of all {len(estimates)} cells diverged: lower lr, n_beta or localization", samples=None
        )
    return stacked(estimates, {"dataset": list(datasets), "wr": list(restrictions)})


def _check_names(datasets: Any) -> None:
    example = "{'train': data}"
    if not isinstance(datasets, Mapping) or not all(isinstance(name, str) for name in datasets):
        raise TypeError(f"datasets must be a mapping from names, such as {example}, got {type(datasets).__name__}")
    if not datasets:
        raise ValueError(f"datasets is empty: give at least one, such as {example}")


def _paths(
    output_path: str | Path | None, datasets: Mapping[str, Any], restrictions: Mapping[str, Any]
) -> dict[str, Path | None]:
    """Of each data set the path that ``sample_restrictions`` takes.

    Raises:
        ValueError: two cells would share a file.
    """
    paths = {name: path_of(output_path, name) for name in datasets}
    cells = [path_of(path, wr) for path in paths.values() for wr in restrictions]
    if output_path is not None and len(set(cells)) < len(cells):
        raise ValueError(
            f"two cells of the data sets {sorted(paths)} and the restrictions {sorted(restrictions)} would be written "
            "to one file: rename one"
        )
    return paths


def _source(model: nn.Module, name: str, data: Any, keywords: Mapping[str, Any]) -> tuple[Source, SamplerConfig]:
    """A data set that can be sampled, with the settings it is sampled with; errors name it."""
    config, request = resolve(data, keywords)
    try:
        source = as_source(data, buffer_size=request.buffer_size)
        BatchStream(source, config.batch_size, config.init_seed)
        if request.loss_fn is None:
            check_tokens(model, source.sample())
    except (TypeError, ValueError) as error:
        error.add_note(f"in data set {name!r}")
        raise
    return source, config


def _sampled(
    model: nn.Module, source: Source, restrictions: Mapping[str, ParamMasks], **keywords: Any
) -> list[xr.DataTree]:
    """Trees by restriction, also where no chain of this data set lived."""
    try:
        found: Any = sample_restrictions(model, source, None, restrictions, **keywords)
    except AllChainsDied as error:
        found = error.samples
    return list(found.values()) if isinstance(found, dict) else [found]
