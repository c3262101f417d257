"""Engines for the passes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sltfast.arena import LOW_PRECISION
from sltfast.batches import BatchStream, fetch
from sltfast.clone import structural_clone
from sltfast.data import leaves, map_leaves
from sltfast.losses import ItemLoss, NextToken, token_ids
from sltfast.restriction import Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.agreement import disagreement
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.engines.sequential import SequentialEngine
from sltfast.sampler.engines.stacked import StackedEngine
from sltfast.sampler.engines.vmapped import VmappedEngine
from sltfast.sampler.precision import compute_dtype, use_tf32
from sltfast.stacking.prefix import Memo

CHECKED_TOKENS = 17
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

    def build(self, name: str, cells: Sequence[int], num_chains: int, dtype: torch.dtype | None = None) -> Engine:
        """An engine by name, for ``num_chains`` chains of each of these cells.

        ``dtype``: what the model's weights are read in, None for what the run reads them in.

        Raises:
            ValueError: the engine cannot take them.
        """
        clone = structural_clone(self.clone, self.device, dtype or compute_dtype(self.config.precision))
        clone.train(self.config.mode == "train")
        restrictions = [self.restrictions[cell] for cell in cells]
        if name == "stacked":
            example = self.example(dtype) if len(self.streams) == 1 else None
            return StackedEngine(clone, restrictions, self.loss, num_chains, self.device, example, self.memo)
        if len(cells) > 1:
            raise ValueError(f"the {name} engine takes one restriction at a time, got {len(cells)}")
        if name == "vmap":
            return VmappedEngine(clone, restrictions[0], self.loss, num_chains, self.device)
        if self.config.precision == "tf32":
            use_tf32(clone)
        return SequentialEngine(clone, restrictions[0], self.loss, self.device)

    def example(self, dtype: torch.dtype | None = None) -> Any:
        """The first few rows, what they hold in low precision in ``dtype``, where it is given."""
        stream = self.streams[0]
        rows = fetch(stream.source, stream.rows(0)[:CHECKED_ROWS], self.device)
        return rows if dtype is None else map_leaves(lambda x: x.to(dtype) if x.dtype in LOW_PRECISION else x, rows)

    def disagreement(self, engine: Engine, cells: Sequence[int], num_chains: int) -> str | None:
        """How an engine differs from one chain alone, or None.

        What rounding explains in a model of bfloat16 could hide a loss in which rows depend on each other, so that a
        like engine is tried in float32 too, where the memory is there.
        """
        shared = len(self.streams) == 1
        reason = disagreement(engine, self.clone, self.loss, self._tried(), self.device, shared=shared)
        low = [parameter for parameter in self.clone.parameters() if parameter.dtype in LOW_PRECISION]
        if reason is not None or not low or 4 * sum(map(torch.numel, low)) > self.memo.budget:
            return reason
        clone, data = structural_clone(self.clone, self.device, torch.float32), self._tried(torch.float32)
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                self.loss(clone, data)
        except RuntimeError:  # what the loss or the model does needs its own precision
            return None
        precise = self.build(engine.name, cells, num_chains, torch.float32)
        try:
            return disagreement(precise, clone, self.loss, data, self.device, shared=shared)
        finally:
            precise.close()

    def _tried(self, dtype: torch.dtype | None = None) -> Any:
        """Rows of an odd length, where they are tokens: equal sizes would hide dimensions taken for each other.

        And of a short one, where nothing is padded: lanes that are mixed up show in a few tokens.
        """
        data = self.example(dtype)
        ids = token_ids(data) if self.language_model else None
        width = 0 if ids is None else ids.shape[1]
        kept = width - 1 + width % 2
        if len(leaves(data)) == 1:
            kept = min(CHECKED_TOKENS, kept)
        if kept < 3 or kept == width:
            return data
        return map_leaves(lambda part: part[:, :kept] if part.ndim > 1 and part.shape[1] == width else part, data)
