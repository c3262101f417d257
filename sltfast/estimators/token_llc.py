"""The learning coefficient token by token: what each item's loss adds to λ̂."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.errors import ChainDiverged
from sltfast.estimators.block_errors import mean_over_blocks
from sltfast.estimators.blocks import BlockReader
from sltfast.observables import observable_id
from sltfast.results.samples import root_of, sampler_of_one

if TYPE_CHECKING:
    import xarray as xr


def compute_token_llc(samples: xr.DataTree, observable: str, *, num_blocks: int = 8) -> xr.Dataset:
    """Per-token learning coefficients of an observable: λ̂_i = nβ·(E[ℓ_i(w)] − ℓ_i(w*)).

    The mean over tokens is the observable's own λ̂ = nβ·(E[L_obs] − L_obs(w*)), so that λ̂_i says which tokens the
    chains' loss of fit falls on. Tokens whose loss falls along the chains have λ̂_i < 0; it is reported as it is. Losses
    at w* are of the same rows, so nothing is left of their level.

    The error of each number is the larger of two: the spread of the C chains' means over √C, and that of K blocks of
    consecutive draws a chain over √(C·K); of means over tokens as well, whose tokens share their draws.

    Args:
        samples: of ``sltfast.sample`` or ``sltfast.open``, with ``record="traces"`` or ``"moments"``.
        observable: its name.
        num_blocks: K where there are traces; recorded moments have their own.

    Returns:
        ``xr.Dataset`` with the dimensions of the observable's losses, (batch_<observable>, token_pos): ``llc`` and
        ``llc_se``, NaN where a token has no weight (padding); ``llc_per_item`` and ``llc_per_item_se``
        (batch_<observable>), means over a row's tokens; ``llc_mean``, ``llc_mean_se``, of the observable's mean loss,
        which weighs tokens as ``loss_fn`` does; ``init_loss``, ℓ_i(w*) in nats; ``input_ids`` where there are tokens.
        λ̂ are dimensionless.
        attrs: ``observable``, ``n_beta``, ``chains_alive``, ``num_draws``, ``num_blocks``.

    Raises:
        TypeError: samples are no tree.
        ValueError: an observable that was not recorded, samples of a sweep, or without losses at w* (devinterp's).
        AllChainsDied: no chain lived.

    Source: per-token losses in λ̂ of Lau et al. 2308.12108; Wang et al. 2410.02984.
    """
    import xarray as xr

    root = root_of(samples)
    name = observable_id(observable)
    recorded = root.attrs.get("sltfast", {}) if "moment_draws" in root else {}
    task = recorded.get("sampling_task")  # moments have its φ; traces need none, and φ is the observable's own
    reader = BlockReader(samples, task or observable, num_blocks)
    sampler = sampler_of_one(root, ", of different n_beta: give one run")
    blocks, of_all = reader.items(observable), reader.means(observable)
    for needed in (f"init_loss_{name}", f"init_mean_loss_{name}"):
        if needed not in root:
            raise ValueError(f"the samples hold no {needed}, the loss at w*: sample with sltfast.sample")
    if reader.left_out:
        warnings.warn(
            f"chains {list(reader.left_out)} of {reader.num_chains} died and are left out", ChainDiverged, stacklevel=2
        )
    if reader.unfinished:
        warnings.warn(f"only {reader.unfinished} are used", UserWarning, stacklevel=2)
    n_beta, dims = float(sampler["n_beta"]), root[f"init_loss_{name}"].dims
    counted = ~np.isnan(blocks.level)
    per_row = np.where(counted, blocks.mean, 0.0).sum(-1) / np.where(counted.any(-1), counted.sum(-1), np.nan)
    found: dict[str, Any] = {}
    for what, values, along in (
        ("llc", blocks.mean, dims),
        ("llc_per_item", per_row, dims[:1]),
        ("llc_mean", of_all.mean, ()),
    ):
        estimate = mean_over_blocks(blocks, values)
        found[what], found[f"{what}_se"] = (along, n_beta * estimate.value), (along, n_beta * estimate.se)
    found["init_loss"] = (dims, blocks.level)
    if f"input_ids_{name}" in root:
        found["input_ids"] = (root[f"input_ids_{name}"].dims, root[f"input_ids_{name}"].values)
    attrs = {
        "observable": observable,
        "n_beta": n_beta,
        "chains_alive": len(blocks.chains),
        "num_draws": int(blocks.draws.sum()),
        "num_blocks": blocks.draws.shape[1],
    }
    return xr.Dataset(found, attrs=attrs)
