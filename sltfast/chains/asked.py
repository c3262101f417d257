"""What a call asks for, checked as far as it can be without running the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sltfast.batches import BatchStream
from sltfast.clone import unwrap
from sltfast.contract import Contract
from sltfast.data import Source, as_source
from sltfast.devices import pick_device
from sltfast.losses import ItemLoss, check_tokens, item_loss
from sltfast.request import Request
from sltfast.restriction import ParamMasks, Restriction
from sltfast.results.identity import loss_source
from sltfast.results.place import place_of
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.precision import check_precision
from sltfast.sampler.room import check_counts
from sltfast.sampler.weight_reading import chosen_weights


class Wanted(NamedTuple):
    """One restriction that is asked for: which coordinates move, and where its run goes (None: memory)."""

    param_masks: ParamMasks
    output_path: str | Path | None


@dataclass(frozen=True)
class Asked:
    """A call, checked.

    Attributes:
        model: the caller's, without wrappers.
        source: of the sampling data.
        config: settings of the sampler, those of every restriction.
        request: everything else.
        contract: what a face of another package fixes.
        restrictions: by name.
        paths: of the runs, by name of the restriction; None: memory.
        weights: whose draws are recorded.
        loss: of items.
        loss_told: its source, for the runs' identity; "" where all stay in memory.
        device: where to sample.
        streams: of batches, one, or one a chain.
    """

    model: nn.Module
    source: Source
    config: SamplerConfig
    request: Request
    contract: Contract | None
    restrictions: Mapping[str, Restriction]
    paths: Mapping[str, Path | None]
    weights: Restriction | None
    loss: ItemLoss
    loss_told: str
    device: torch.device
    streams: list[BatchStream]

    @classmethod
    def checked(
        cls,
        model: nn.Module,
        dataset: Any,
        wanted: Mapping[str, Wanted],
        config: SamplerConfig,
        request: Request,
        contract: Contract | None,
    ) -> Asked:
        """Arguments of ``run_chains``, and its errors."""
        model = unwrap(model)
        paths = {name: place_of(one.output_path) for name, one in wanted.items()}
        check_counts(config, list(paths.values()))
        source = as_source(dataset, buffer_size=request.buffer_size)
        check_precision(config.precision, model)
        restrictions = {name: Restriction.of(model, one.param_masks) for name, one in wanted.items()}
        weights = chosen_weights(model, request.record_weights, restrictions)
        loss = item_loss(model, request.loss_fn)
        told = loss_source(loss) if any(paths.values()) else ""  # before it is called: its state may count calls
        device = pick_device(model, request.device)
        streams = _streams(source, config, contract)
        if request.loss_fn is None:
            check_tokens(model, source.sample())
        return cls(model, source, config, request, contract, restrictions, paths, weights, loss, told, device, streams)

    @property
    def language_model(self) -> bool:
        """Whether the loss is next-token prediction by the model itself."""
        return self.request.loss_fn is None


def _streams(source: Source, config: SamplerConfig, contract: Contract | None) -> list[BatchStream]:
    lanes = 1 if config.match_sampling_input_ids_across_chains else config.chains_per_cell
    orders = [None] * lanes if contract is None else contract.orders
    return [
        BatchStream(source, config.batch_size, config.init_seed, shuffle=config.shuffle, lane=lane, order=orders[lane])
        for lane in range(lanes)
    ]
