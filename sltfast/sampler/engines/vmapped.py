"""All lanes under ``torch.func.vmap`` of the whole loss: for models that read their parameters anywhere."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.arena import Arena
from sltfast.data import leaves, map_leaves
from sltfast.losses import ItemLoss, ItemLosses, Objective
from sltfast.restriction import Restriction
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.stacking.padding_rows import PaddingRows, has_padding_rows


class _Loss(nn.Module):
    """A loss as a module, so that its model's parameters can be replaced for one call."""

    def __init__(self, model: nn.Module, loss: ItemLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        losses = self.loss(self.model, batch)
        return losses.values, losses.weights


class VmappedEngine:
    """Lanes by batching rules: right wherever every operation has one, slow where one is a loop (SDPA on a CPU).

    Args: as ``SequentialEngine``; ``num_chains``: lanes.
    """

    name = "vmap"

    def __init__(
        self, clone: nn.Module, restriction: Restriction, loss: ItemLoss, num_chains: int, device: torch.device
    ) -> None:
        own = copy.copy(loss)
        own.unembedding = None  # the loss from hidden states has no batching rule
        self.module = _Loss(clone, own)
        read_as = {name: parameter.dtype for name, parameter in clone.named_parameters()}
        self.arena = Arena([restriction.dense()], read_as, num_chains, device)
        self.arena.reset()
        self._manner = PaddingRows if has_padding_rows(clone) else nullcontext
        self._names = [f"model.{leaf.name}" for leaf in self.arena.leaves]

    def losses(self, batch: LaneBatch) -> ItemLosses:
        """Losses of all lanes, [L·B, T]."""
        lanes, weighted = self.arena.lanes, False
        tensors = leaves(batch.data)
        if not batch.shared:
            tensors = [tensor.unflatten(0, (lanes, -1)) for tensor in tensors]

        def one(moved: list[Tensor], data: list[Tensor]) -> tuple[Tensor, ...]:
            nonlocal weighted
            rest = iter(data)
            batch_of_lane = map_leaves(lambda _: next(rest), batch.data)
            replaced = dict(zip(self._names, moved, strict=True))
            values, weights = torch.func.functional_call(self.module, replaced, (batch_of_lane,))
            weighted = weights is not None
            return (values,) if weights is None else (values, weights)

        moved = [leaf.tensor for leaf in self.arena.leaves]
        mapped = torch.func.vmap(one, in_dims=(0, None if batch.shared else 0), randomness="different")
        with warnings.catch_warnings(), self._manner():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # measured when planning
            results = [result.flatten(0, 1) for result in mapped(moved, tensors)]
        return ItemLosses(results[0], results[1] if weighted else None)

    def objective(self, batch: LaneBatch, scale: float) -> Objective:
        """Σ of the lanes' mean losses, and the losses."""
        losses = self.losses(batch)
        total = losses.lane_means(self.arena.lanes).sum()
        return Objective(total if scale == 1.0 else total * scale, losses.detach())

    def buffers(self) -> dict[str, Tensor]:
        """The clone's."""
        return dict(self.module.named_buffers())

    def facts(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}

    def close(self) -> None:
        """The clone is dropped with the engine."""
