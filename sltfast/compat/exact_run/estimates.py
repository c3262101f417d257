"""The LLC in devinterp's own sums: float32, by xarray, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sltfast.compat.defects import warn_once

if TYPE_CHECKING:
    import xarray as xr


def float32_llc(samples: xr.DataTree) -> xr.Dataset:
    """λ̂ = nβ·(mean loss along the chain − init loss) in float32 sums of xarray's: devinterp's bits.

    Args:
        samples: a tree of ``sample``, or devinterp's.

    Returns:
        As ``compute_llc``.

    Source: Lau et al. 2308.12108; devinterp 2.0.1.
    """
    import xarray as xr

    root = samples.dataset
    settings = root.attrs["metadata"]["config"]["sampler"]
    n_beta, losses = float(settings["n_beta"]), root["sampling_loss_micro"]
    level = float(root["init_loss"].values.mean())
    trace = losses.mean(dim=["batch_sampling", "token_pos"])
    if settings["num_burnin_steps"]:
        warn_once("burn-in in the LLC", stacklevel=4)
    if bool(np.isnan(trace.values).any()):
        warn_once("dead chains in the LLC", stacklevel=4)
    each = n_beta * (trace.mean(dim="step") - level)
    return xr.Dataset(
        {
            "llc_mean": each.mean(),
            "llc_std": each.std(),
            "llc_per_chain": each,
            "llc_scalar": n_beta * (float(losses.mean()) - level),
            "loss_trace": trace,
            "init_loss": level,
        }
    )
