"""Engines for the passes of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sltfast.arena import LOW_PRECISION
from sltfast.batches import BatchStream, fetch
from sltfast.clone import structural_clone
from sltfast.data import Source, leaves, map_leaves
from sltfast.losses import ItemLoss, NextToken, shortened, token_ids
from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.agreement import disagreement
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.engines.sequential import SequentialEngine
from sltfast.sampler.engines.stacked import StackedEngine
from sltfast.sampler.engines.understanding import Understanding
from sltfast.sampler.engines.vmapped import VmappedEngine
from sltfast.sampler.precision import compute_dtype, use_tf32
from sltfast.stacking.prefix import Memo, Outline

PRECISE_SHARE = 0.1  # of the memory, for a trial in float32
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
        observables: the run's.
        compiled: the vmap engine is compiled.
        outline: of a forward of whole rows (``trial``).
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
        observables: Sequence[Observable] = (),
        compiled: bool = False,
        outline: Outline = (),
    ) -> None:
        self.config, self.clone, self.loss, self.device = config, clone, loss, device
        self.streams, self.restrictions, self.memo = streams, restrictions, memo
        self.observables = observables
        self.compiled, self.outline = compiled, outline
        self._understood: dict[tuple[tuple[int, ...], torch.dtype | None], Understanding] = {}
        self.language_model = isinstance(loss.function, NextToken)

    def build(self, name: str, cells: Sequence[int], num_chains: int, precise: nn.Module | None = None) -> Engine:
        """An engine by name, for ``num_chains`` chains of each of these cells.

        ``precise``: the model in float32, where the engine is to compute in it rather than as the run does.

        Raises:
            ValueError: the engine cannot take them.
        """
        dtype = compute_dtype(self.config.precision) if precise is None else torch.float32
        clone = structural_clone(precise or self.clone, self.device, dtype)
        clone.train(self.config.mode == "train")
        restrictions = [self.restrictions[cell] for cell in cells]
        if name == "stacked":
            kind = None if precise is None else dtype
            examples = self._kinds(kind) if len(self.streams) == 1 else []
            short = shortened(examples[0]) if examples and self.language_model else None
            known = self._understood.setdefault((tuple(cells), kind), Understanding(self.outline))
            moving = clone, restrictions, self.loss, num_chains, self.device
            return StackedEngine(*moving, examples, self.memo, known, short)
        if len(cells) > 1:
            raise ValueError(f"the {name} engine takes one restriction at a time, got {len(cells)}")
        if name == "vmap":
            return VmappedEngine(clone, restrictions[0], self.loss, num_chains, self.device, compiled=self.compiled)
        if self.config.precision == "tf32":
            use_tf32(clone)
        return SequentialEngine(clone, restrictions[0], self.loss, self.device)

    def example(self, dtype: torch.dtype | None = None) -> Any:
        """The first few rows, what they hold in low precision in ``dtype``, where it is given."""
        stream = self.streams[0]
        return self._rows(stream.source, stream.rows(0), dtype)

    def _rows(self, source: Source, rows: np.ndarray, dtype: torch.dtype | None) -> Any:
        data = fetch(source, rows[:CHECKED_ROWS], self.device)
        return data if dtype is None else map_leaves(lambda x: x.to(dtype) if x.dtype in LOW_PRECISION else x, data)

    def _kinds(self, dtype: torch.dtype | None) -> list[Any]:
        """The example, and one of each observable whose batches have other columns."""
        examples = [self.example(dtype)]
        examples += [self._rows(observable.source, observable.rows, dtype) for observable in self.observables]
        kinds = [_kind(example) for example in examples]
        return [example for k, example in enumerate(examples) if kinds[k] not in kinds[:k]]

    def disagreement(self, engine: Engine, cells: Sequence[int], num_chains: int) -> str | None:
        """How an engine differs from one chain alone, or None.

        What rounding explains in a model of bfloat16 could hide a loss in which rows depend on each other, so that a
        like engine is tried in float32 too, where the memory is there.
        """
        shared = len(self.streams) == 1
        reason = disagreement(engine, self.clone, self.loss, self._tried(), self.device, shared=shared)
        low = [parameter for parameter in self.clone.parameters() if parameter.dtype in LOW_PRECISION]
        if reason is not None or not low or 4 * sum(map(torch.numel, low)) > PRECISE_SHARE * self.memo.budget:
            return reason
        clone, data = structural_clone(self.clone, self.device, torch.float32), self._tried(torch.float32)
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                self.loss(clone, data)
        except RuntimeError:  # what the loss or the model does needs its own precision
            return None
        like = self.build(engine.name, cells, num_chains, clone)
        try:
            return disagreement(like, clone, self.loss, data, self.device, shared=shared)
        finally:
            like.close()

    def _tried(self, dtype: torch.dtype | None = None) -> Any:
        """Rows of an odd length, where they are tokens: equal sizes would hide dimensions taken for each other.

        And of a short one, where nothing is padded: lanes that are mixed up show in a few tokens.
        """
        data = self.example(dtype)
        ids = token_ids(data) if self.language_model else None
        if ids is None:
            return data
        few, width = shortened(data), ids.shape[1]
        if few is not None or width % 2 or width < 4:
            return data if few is None else few
        return map_leaves(lambda part: part[:, :-1] if part.ndim > 1 and part.shape[1] == width else part, data)


def _kind(batch: Any) -> tuple[Any, ...]:
    columns = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
    return columns, [(part.dtype, part.ndim) for part in leaves(batch)]
