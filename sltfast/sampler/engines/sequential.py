"""One lane at a time: the parameters of a clone are the lane's own weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sltfast.arena import Arena
from sltfast.losses import ItemLoss, ItemLosses, Objective
from sltfast.restriction import Restriction
from sltfast.sampler.engines.engine import LaneBatch


class SequentialEngine:
    """Works for any model: nothing is asked of it but a forward.

    Args:
        clone: a structural clone that is this engine's own.
        restriction: what moves; parts of a parameter are kept as the whole of it under a mask.
        loss: the run's loss.
        device: where.
    """

    name = "sequential"

    def __init__(self, clone: nn.Module, restriction: Restriction, loss: ItemLoss, device: torch.device) -> None:
        self.model, self.loss = clone, loss
        read_as = {name: parameter.dtype for name, parameter in clone.named_parameters()}
        self.arena = Arena([restriction.dense()], read_as, 1, device)
        self.arena.reset()
        self.arena.bind(clone)

    def objective(self, batch: LaneBatch, scale: float) -> Objective:
        """The lane's mean loss and its losses."""
        return self.loss.objective(self.model, batch.data, 1, scale)

    def losses(self, batch: LaneBatch) -> ItemLosses:
        """The lane's losses."""
        return self.loss(self.model, batch.data)

    def buffers(self) -> dict[str, Tensor]:
        """The clone's."""
        return dict(self.model.named_buffers())

    def facts(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}

    def close(self) -> None:
        """The clone is dropped with the engine."""
