"""Learning coefficients over a grid of hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sltfast.errors import AllChainsDied
from sltfast.estimators.collection import estimate_of, stacked
from sltfast.estimators.recommendation import recommend
from sltfast.grid import Grid
from sltfast.results.sampled_losses import InitLoss
from sltfast.results.samples import root_of, sampler_of

if TYPE_CHECKING:
    import xarray as xr


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
