"""All lanes under ``torch.func.vmap`` of the whole loss: for models that read their parameters anywhere."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sltfast.arena import Arena
from sltfast.data import leaves, map_leaves
from sltfast.losses import ItemLoss, ItemLosses, Objective
from sltfast.restriction import Restriction
from sltfast.sampler.engines.compiled import CompiledLanes, OfLane
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.stacking.padding_rows import PaddingRows, has_padding_rows

_HERE = torch.empty(0)


def _structure(data: Any) -> str:
    return str(pytree.tree_structure(data))


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

    Args: as ``SequentialEngine``; ``num_chains``: lanes; ``compiled``: losses and gradients as one compiled function.

    Raises:
        ValueError: ``compiled``, and an embedding has rows without gradient (padding_idx).
    """

    name = "vmap"

    def __init__(
        self,
        clone: nn.Module,
        restriction: Restriction,
        loss: ItemLoss,
        num_chains: int,
        device: torch.device,
        *,
        compiled: bool = False,
    ) -> None:
        own = copy.copy(loss)
        own.unembedding = None  # the loss from hidden states has no batching rule
        self.module = _Loss(clone, own)
        read_as = {name: parameter.dtype for name, parameter in clone.named_parameters()}
        self.arena = Arena([restriction.dense()], read_as, num_chains, device)
        self.arena.reset()
        self._manner = PaddingRows if has_padding_rows(clone) else nullcontext
        self._compiled = CompiledLanes() if compiled else None
        if compiled and self._manner is PaddingRows:
            raise ValueError("an embedding with padding_idx is not compiled (leave compile=False)")
        self._names = [f"model.{leaf.name}" for leaf in self.arena.leaves]

    def losses(self, batch: LaneBatch) -> ItemLosses:
        """Losses of all lanes, [L·B, T]."""
        of_lane, rows = self._of_lane(batch)
        moved = [leaf.tensor for leaf in self.arena.leaves]
        mapped = torch.func.vmap(of_lane, in_dims=(0, None if batch.shared else 0), randomness="different")
        with warnings.catch_warnings(), self._manner():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # measured when planning
            values, *weights = [result.flatten(0, 1) for result in mapped(moved, rows)]
        return ItemLosses(values, weights[0] if weights else None)

    def _of_lane(self, batch: LaneBatch) -> tuple[OfLane, list[Tensor]]:
        """A lane's losses as a function of its weights and rows, and the rows, [L, B, …] where they are not shared."""
        rows = leaves(batch.data)
        if not batch.shared:
            rows = [row.unflatten(0, (self.arena.lanes, -1)) for row in rows]
        structure = map_leaves(lambda _: _HERE, batch.data)  # holds no rows, so that a compiled function keeps none

        def of_lane(moved: list[Tensor], rows: list[Tensor]) -> tuple[Tensor, ...]:
            rest = iter(rows)
            of_rows = map_leaves(lambda _: next(rest), structure)
            replaced = dict(zip(self._names, moved, strict=True))
            values, weights = torch.func.functional_call(self.module, replaced, (of_rows,))
            return (values,) if weights is None else (values, weights)

        return of_lane, rows

    def objective(self, batch: LaneBatch, scale: float) -> Objective:
        """Σ of the lanes' mean losses, and the losses."""
        if self._compiled is not None:
            of_lane, rows = self._of_lane(batch)
            moved = [leaf.tensor for leaf in self.arena.leaves]
            total, losses = self._compiled(_structure(batch.data), of_lane, moved, rows, batch.shared)
        else:
            losses = self.losses(batch)
            total = losses.lane_means(self.arena.lanes).sum()
        return Objective(total if scale == 1.0 else total * scale, losses.detach())

    def buffers(self) -> dict[str, Tensor]:
        """The clone's."""
        return dict(self.module.named_buffers())

    def facts(self) -> dict[str, Any]:
        """How long compiling took, where the engine is compiled."""
        return {} if self._compiled is None else {"compiled_in_seconds": round(self._compiled.seconds, 1)}

    def close(self) -> None:
        """The clone is dropped with the engine."""
