"""Several estimates as one data set, those without a living chain among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.diagnostics import Verdict
from sltfast.errors import AllChainsDied
from sltfast.estimators.llc import compute_llc
from sltfast.results.sampled_losses import InitLoss
from sltfast.results.samples import root_of

if TYPE_CHECKING:
    import xarray as xr

NO_CHAIN_LEFT = "every chain met NaN or infinity: lower lr first, then n_beta or localization"


def estimate_of(samples: Any, *, include_burnin: bool, init_loss: InitLoss) -> xr.Dataset:
    """``compute_llc``; where no chain lived its variables all the same, NaN, with the verdict "diverged".

    Args:
        samples: a tree or its root data set.
        include_burnin: as ``compute_llc``.
        init_loss: as ``compute_llc``.
    """
    try:
        return compute_llc(samples, include_burnin=include_burnin, init_loss=init_loss)
    except AllChainsDied:
        return _of_the_dead(samples, init_loss)


def _of_the_dead(samples: Any, init_loss: InitLoss) -> xr.Dataset:
    """What compute_llc would say of the same chains, had they lived for its sake: shapes and levels, no estimate."""
    root = root_of(samples)
    lived = root.copy(deep=False)
    chains = root.sizes["chain"]
    lived["death_step"] = ("chain", np.full(chains, -1))
    lived["loss"] = root["init_loss_trace"].copy()
    found = compute_llc(lived, init_loss=init_loss)
    judged = Verdict("diverged", NO_CHAIN_LEFT)
    for name in ("llc_mean", "llc_std", "llc_per_chain", "llc_scalar", "llc_se", "llc_mcse", "llc_ci"):
        found[name] = found[name] * math.nan
    for name in ("rhat", "ess", "tau", "suggested_steps_bw_draws", "drift"):
        found[name] = math.nan
    found["loss_trace"] = (("chain", "step"), np.asarray(root["loss"].values, np.float64))
    found["excess_trace"] = found["loss_trace"] - np.asarray(root["init_loss_trace"].values, np.float64)
    found["alive"] = ("chain", np.zeros(chains, bool))
    found["death_step"] = ("chain", np.asarray(root["death_step"].values))
    found.attrs |= {"verdict": judged.word, "advice": judged.advice}
    return found


def stacked(estimates: Sequence[xr.Dataset], coords: Mapping[str, Sequence[Any]], steps: str = "step") -> xr.Dataset:
    """One data set of many estimates, in the order of the product of the coordinates.

    Args:
        estimates: as ``compute_llc`` gives them.
        coords: the dimensions that tell them apart.
        steps: the name that the dimension "step" of their traces gets.

    Returns:
        Every variable with the new dimensions before its own, ``verdict``, ``advice``, ``chains_alive`` and
        ``chains_diverged``; attrs: what all have in common.
    """
    import xarray as xr

    dims, shape = tuple(coords), tuple(len(values) for values in coords.values())
    variables: dict[str, Any] = {}
    for name, first in estimates[0].data_vars.items():
        if name == "llc_scalar":  # devinterp's second name of llc_mean
            continue
        values = np.stack([estimate[name].values for estimate in estimates])
        own = tuple(steps if dim == "step" else dim for dim in first.dims)
        variables[str(name)] = (dims + own, values.reshape(*shape, *first.shape))
    for name in ("verdict", "advice"):
        words = np.array([str(estimate.attrs[name]) for estimate in estimates], dtype=object)
        variables[name] = (dims, words.reshape(shape))
    alive = variables["alive"][1]
    variables["chains_alive"] = (dims, alive.sum(-1))
    variables["chains_diverged"] = (dims, (variables["death_step"][1] >= 0).sum(-1))
    rest = {name: value for name, value in estimates[0].attrs.items() if name not in variables}
    attrs = {name: value for name, value in rest.items() if all(e.attrs.get(name) == value for e in estimates)}
    bounds = {"bound": estimates[0]["bound"].values}
    return xr.Dataset(variables, coords={**{k: list(v) for k, v in coords.items()}, **bounds}, attrs=attrs)
