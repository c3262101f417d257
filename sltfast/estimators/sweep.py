"""The learning coefficient over a grid of hyperparameters, sampled as one stack of chains, and the cell to take."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from sltfast.chains import Wanted, run_chains
from sltfast.errors import AllChainsDied, ChainDiverged
from sltfast.estimators.collection import estimate_of, stacked
from sltfast.estimators.llc import needed_for
from sltfast.estimators.recommendation import recommend
from sltfast.grid import Grid, Values
from sltfast.isolation import alone
from sltfast.losses import LossFn
from sltfast.observables import ObservableSpec
from sltfast.request import resolve
from sltfast.results.sampled_losses import InitLoss
from sltfast.results.samples import root_of, sampler_of

if TYPE_CHECKING:
    import xarray as xr


def sweep(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None = None,
    *,
    lr: Values,
    n_beta: Values,
    localization: Values = 0.0,
    llc_weight_decay: Values = 0.0,
    noise_level: Values = 1.0,
    bounding_box_size: Values | None = None,
    loss_fn: LossFn | None = None,
    num_chains: int = 4,
    include_burnin: bool = False,
    init_loss: InitLoss = "paired",
    **sampling: Any,
) -> xr.Dataset:
    """Estimate the local learning coefficient at every point of a grid of hyperparameters, and recommend one.

    All chains of all cells go through the model together (``engine``, ``chains_per_pass`` and ``memory_budget`` of
    ``sltfast.sample`` say otherwise). Chain k of a cell has the noise and the batches of chain k of a call of
    ``sltfast.llc`` with the cell's settings, so that each cell equals that call up to rounding.

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        observables: as in ``sltfast.llc``, not evaluated: an LLC needs none.
        lr: step sizes ε > 0, a number or a sequence.
        n_beta: inverse temperatures nβ >= 0.
        localization: precisions γ >= 0 of the Gaussian around w*.
        llc_weight_decay: precisions λ >= 0 of a Gaussian around 0; a dimension where it is a sequence, as the next two.
        noise_level: σ >= 0; cells where it is not 1 sample no posterior and are not recommended.
        bounding_box_size: half-widths of a box around w*, None for no box.
        loss_fn: see ``sltfast.sample``.
        num_chains: chains of each cell.
        include_burnin: see ``sltfast.compute_llc``.
        init_loss: see ``sltfast.compute_llc``.
        **sampling: every other keyword of ``sltfast.sample``. With ``output_path`` the whole sweep is one run: the
            same call resumes it, ``sltfast.open`` reads it, and ``sltfast.compute_sweep`` estimates from it.

    Returns:
        See ``sltfast.compute_sweep``.

    Raises:
        ValueError, TypeError: an empty sequence, a value that stands twice or is not allowed, or as
            ``sltfast.sample``; before the first step.
        OutputMismatch: ``output_path`` holds another run.
        AllChainsDied: no chain of any cell is left; a cell whose chains die is reported as diverged.
    """
    if observables is not None and not isinstance(observables, Mapping):
        raise TypeError(f"observables must be a mapping from name to data set, got {type(observables).__name__}")
    grid, fixed = Grid.of(
        {
            "lr": lr,
            "n_beta": n_beta,
            "localization": localization,
            "llc_weight_decay": llc_weight_decay,
            "noise_level": noise_level,
            "bounding_box_size": bounding_box_size,
        }
    )
    wanted = {"": Wanted(sampling.pop("param_masks", None), sampling.pop("output_path", None))}
    keywords = {**needed_for(init_loss, sampling), **grid.cells[0], **fixed, "num_chains": num_chains}
    config, request = resolve(dataset, {**keywords, "loss_fn": loss_fn})
    config = replace(config, cells=grid.cells, num_chains=config.num_chains * len(grid.cells))
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ChainDiverged)  # what a sweep is there to find out; told once, below
        samples = run_chains(model, dataset, None, wanted, config, request)[""]
    result = compute_sweep(samples, include_burnin=include_burnin, init_loss=init_loss)
    cells = int((result["chains_diverged"] > 0).sum())
    if cells:
        warnings.warn(
            f"{int(result['chains_diverged'].sum())} chains in {cells} of {result['llc_mean'].size} cells met NaN or "
            "infinity and were stopped: those cells are marked as diverged",
            ChainDiverged,
            stacklevel=2,
        )
    return result


def compute_sweep(samples: xr.DataTree, *, include_burnin: bool = False, init_loss: InitLoss = "paired") -> xr.Dataset:
    """The local learning coefficient of every cell of a sweep, and the cell to take.

    Recommended is, of the cells whose chains converged (nβ > 0 and σ = 1), one on a plateau of λ̂ in the step size: λ̂
    agrees within two standard errors of the difference with the next smaller ε or, where that did not converge or is
    not there, with the next larger one. The posterior does not depend on ε, so a λ̂ that changes with it shows the bias
    of the step, or chains that do not mix. Of the cells on a plateau it is the one with the most effective draws (all
    cells make as many steps). Where no cell has a neighbour in ε that converged, nothing can be compared, and the
    effective draws alone decide; where every comparison fails, none is recommended. nβ and γ are part of the question:
    λ̂ may well depend on them.

    Args:
        samples: what ``sltfast.sweep`` wrote to its ``output_path``, read by ``sltfast.open``.
        include_burnin: see ``compute_llc``.
        init_loss: see ``compute_llc``.

    Returns:
        ``xr.Dataset`` with dimensions lr, n_beta, localization and those of the other settings that were given as
        sequences, all ascending: every variable of ``compute_llc`` (``llc_mean``, ``llc_se``, ``llc_mcse``,
        ``llc_per_chain``, ``rhat``, ``ess``, ``drift``, ``loss_trace``, …), ``verdict``, ``advice``, ``chains_alive``,
        ``chains_diverged`` and ``recommended`` (True in one cell or none). A cell without a living chain is "diverged"
        and NaN. attrs: ``recommended``, the cell's settings (``result.sel(result.attrs["recommended"])``) or None;
        ``recommendation``, why; and the settings that all cells share.

    Raises:
        ValueError: the samples are not those of a sweep, or as ``compute_llc``.
        AllChainsDied: no chain of any cell lived.
    """
    tree = root_of(samples)
    sampler = sampler_of(tree)
    if not sampler.get("cells"):
        raise ValueError("samples must be those of a sweep: use sltfast.compute_llc for a run of one setting")
    grid = Grid.of_cells(sampler["cells"])
    needed = ("loss", "init_loss_trace", "alive", "death_step", "init_loss_mean", "init_loss_dataset")
    records = tree[[name for name in needed if name in tree]].load()
    if not bool((records["death_step"] < 0).any()):
        raise AllChainsDied("no chain of any cell lived: lower lr, n_beta or localization", samples=samples)
    each = records.sizes["chain"] // len(sampler["cells"])
    estimates = []
    for index, cell in enumerate(sampler["cells"]):
        of_cell = records.isel(chain=slice(index * each, (index + 1) * each))
        own = {**sampler, **cell, "num_chains": each, "cells": []}
        of_cell.attrs = {**tree.attrs, "metadata": {"config": {**tree.attrs["metadata"]["config"], "sampler": own}}}
        estimates.append(estimate_of(of_cell, include_burnin=include_burnin, init_loss=init_loss))
    result = stacked(estimates, grid.axes)
    result["init_loss"] = float(estimates[0]["init_loss"])  # the batches are the same in every cell
    for name in grid.dims:
        result.attrs.pop(name, None)
    choice = recommend(result, grid.dims)
    result["recommended"] = (grid.dims, choice.marked)
    result.attrs |= {"recommended": choice.cell, "recommendation": choice.why}
    return result
