"""From checked keywords to recorded chains: one restriction or several over the same model and data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

from sltfast.chains.asked import Asked, Wanted
from sltfast.chains.passes import run_passes
from sltfast.chains.places import find_places
from sltfast.chains.prepared import prepare
from sltfast.contract import Contract
from sltfast.errors import AllChainsDied
from sltfast.isolation import alone, surroundings
from sltfast.observables import ObservableSpec
from sltfast.request import Request
from sltfast.sampler.config import CELL_SETTINGS, SamplerConfig
from sltfast.sampler.precision import computing
from sltfast.sampler.shortage import no_room_for

if TYPE_CHECKING:
    import xarray as xr


@alone()
def run_chains(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None,
    wanted: Mapping[str, Wanted],
    config: SamplerConfig,
    request: Request,
    contract: Contract | None = None,
) -> dict[str, xr.DataTree]:
    """Sample every restriction over the same batches; see ``sltfast.sample``.

    Args:
        model: as ``sltfast.sample``.
        dataset: as ``sltfast.sample``.
        observables: as ``sltfast.sample``.
        wanted: restrictions by name.
        config: settings of the sampler, those of every restriction.
        request: everything else.
        contract: what a face of another package fixes.

    Returns:
        By name, the tree that ``sltfast.sample`` returns.

    Raises:
        As ``sltfast.sample``.
    """
    asked = Asked.checked(model, dataset, wanted, config, request, contract)
    if contract is None or contract.warns:
        _warn(config)
    told_of_memory = no_room_for("what is set up first: the model's copy, observables, the plan, losses at w*")
    around = surroundings(config.init_seed, asked.device), computing(config.precision, asked.device)
    with told_of_memory, around[0], around[1], ExitStack() as held:
        prepared = prepare(asked, observables)
        places = find_places(asked, prepared, held)
        left = [place for place in places if place.existing.state != "complete"]
        stores = run_passes(asked, prepared, left, held) if left else {}
    return _checked({place.name: place.tree(stores.get(place.name)) for place in places})


def _warn(config: SamplerConfig) -> None:
    levels = {config.hyper(chain)[CELL_SETTINGS.index("noise_level")] for chain in range(config.num_chains)} - {1.0}
    if levels:
        told = ", ".join(f"{level:g}" for level in sorted(levels))
        warnings.warn(
            f"noise_level {told} is not 1: the chains sample no posterior, so λ̂ is no LLC",
            UserWarning,
            stacklevel=4,
        )
    if config.mode == "train":
        warnings.warn(
            "mode='train' samples a randomised loss (dropout) or one that depends on the batch (batch norm): λ̂ then "
            "measures that loss; mode='eval' is the model as it is used",
            UserWarning,
            stacklevel=4,
        )


def _checked(trees: dict[str, xr.DataTree]) -> dict[str, xr.DataTree]:
    if not any(bool(tree.dataset["alive"].any()) for tree in trees.values()):
        steps = [int(step) for tree in trees.values() for step in tree.dataset["death_step"].values.ravel()]
        raise AllChainsDied(
            f"every chain diverged (at steps {steps}): lower lr, n_beta or localization; what was recorded is in the "
            "error's .samples",
            samples=next(iter(trees.values())) if len(trees) == 1 else trees,
        )
    return trees
