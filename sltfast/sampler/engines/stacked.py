"""All lanes folded into the batch of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.arena import Arena
from sltfast.losses import ItemLoss, ItemLosses, Objective
from sltfast.restriction import Restriction
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.stacking import Piece, Stack, refusal


class StackedEngine:
    """Modules whose weights move read per-lane weights; everything else sees a bigger batch.

    Args:
        clone: a structural clone that is this engine's own.
        restrictions: what moves.
        loss: the run's loss.
        num_chains: chains of each restriction.
        device: where.

    Raises:
        ValueError: lanes in one batch would mix, or draw other numbers than alone.
    """

    name = "stacked"

    def __init__(
        self,
        clone: nn.Module,
        restrictions: Sequence[Restriction],
        loss: ItemLoss,
        num_chains: int,
        device: torch.device,
    ) -> None:
        reason = refusal(clone)
        if reason is not None:
            raise ValueError(reason)
        self.loss = loss
        read_as = {name: parameter.dtype for name, parameter in clone.named_parameters()}
        self.arena = Arena(restrictions, read_as, num_chains, device)
        self.arena.reset()
        weights: dict[str, list[Piece]] = {}
        for leaf in self.arena.leaves:
            weights.setdefault(leaf.name, []).append(Piece(leaf.segments[0], leaf.tensor))
        self.stack = Stack(clone, weights, self.arena.lanes)

    def objective(self, batch: LaneBatch, scale: float) -> Objective:
        """Σ of the lanes' mean losses, and the losses."""
        return self.loss.objective(
            self.stack.model, self._rows(batch), self.arena.lanes, scale, self.stack.lane_weights
        )

    def losses(self, batch: LaneBatch) -> ItemLosses:
        """Losses of all lanes, [L·B, T]."""
        return self.loss(self.stack.model, self._rows(batch), self.arena.lanes, self.stack.lane_weights)

    def _rows(self, batch: LaneBatch) -> Any:
        return self.stack.expand(batch.data) if batch.shared else self.stack.take(batch.data)

    def buffers(self) -> dict[str, Tensor]:
        """None: it is not used in train mode."""
        return {}

    def facts(self) -> dict[str, Any]:
        """The rung of each module whose weights move."""
        return {"rungs": self.stack.rungs}

    def close(self) -> None:
        """Take the patches off."""
        self.stack.restore()
