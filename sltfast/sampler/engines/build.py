"""Engines for the passes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sltfast.batches import BatchStream, fetch
from sltfast.clone import structural_clone
from sltfast.data import map_leaves
from sltfast.losses import ItemLoss, NextToken, token_ids
from sltfast.restriction import Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.agreement import disagreement
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.engines.sequential import SequentialEngine
from sltfast.sampler.engines.stacked import StackedEngine
from sltfast.sampler.engines.vmapped import VmappedEngine
from sltfast.sampler.precision import compute_dtype, use_tf32
from sltfast.stacking.memo import Memo

CHECKED_ROWS = 3  # odd, so that no other size of the model is a multiple of it by chance


class EngineBuilder:
    """Builds engines over one model, data set and loss.

    Args:
        config: the run's.
        clone: the model at w*, on the device.
        loss: the run's.
        streams: the run's.
        device: where.
        restrictions: what moves, cell by cell.
        memo: what engines keep of batches that come again.
    """

    def __init__(
        self,
        config: SamplerConfig,
        clone: nn.Module,
        loss: ItemLoss,
        streams: Sequence[BatchStream],
        device: torch.device,
        restrictions: Sequence[Restriction],
        memo: Memo,
    ) -> None:
        self.config, self.clone, self.loss, self.device = config, clone, loss, device
        self.streams, self.restrictions, self.memo = streams, restrictions, memo
        self.language_model = isinstance(loss.function, NextToken)

    def build(self, name: str, cells: Sequence[int], num_chains: int) -> Engine:
        """An engine by name, for ``num_chains`` chains of each of these cells.

        Raises:
            ValueError: the engine cannot take them.
        """
        clone = structural_clone(self.clone, self.device, compute_dtype(self.config.precision))
        clone.train(self.config.mode == "train")
        restrictions = [self.restrictions[cell] for cell in cells]
        if name == "stacked":
            example = self.example() if len(self.streams) == 1 else None
            return StackedEngine(clone, restrictions, self.loss, num_chains, self.device, example, self.memo)
        if len(cells) > 1:
            raise ValueError(f"the {name} engine takes one restriction at a time, got {len(cells)}")
        if name == "vmap":
            return VmappedEngine(clone, restrictions[0], self.loss, num_chains, self.device)
        if self.config.precision == "tf32":
            use_tf32(clone)
        return SequentialEngine(clone, restrictions[0], self.loss, self.device)

    def example(self) -> Any:
        """The first few rows."""
        stream = self.streams[0]
        return fetch(stream.source, stream.rows(0)[:CHECKED_ROWS], self.device)

    def disagreement(self, engine: Engine) -> str | None:
        """How an engine differs from one chain alone, or None."""
        data = self.example()
        ids = token_ids(data) if self.language_model else None
        if ids is not None and ids.shape[1] > 3 and ids.shape[1] % 2 == 0:
            # an odd length too: equal sizes would hide dimensions that are taken for each other
            width = ids.shape[1]
            data = map_leaves(lambda part: part[:, :-1] if part.ndim > 1 and part.shape[1] == width else part, data)
        return disagreement(engine, self.clone, self.loss, data, self.device)
