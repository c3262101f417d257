"""What the sampling loop needs of an engine."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from sltfast.arena import Arena
from sltfast.losses import ItemLosses, Objective
from sltfast.stacking.prefix.memo import Key


class LaneBatch(NamedTuple):
    """A mini-batch for L lanes.

    Attributes:
        data: B rows that all lanes share, or L·B rows, lane by lane.
        shared: which of the two.
        key: names the data where it comes again (an observable's batch, another pass of the same step), so that what
            does not move can be kept; None where it does not.
    """

    data: Any
    shared: bool
    key: Key | None = None


class Engine(Protocol):
    """Losses of L lanes, and their gradients into ``arena``.

    Attributes:
        name: "stacked", "vmap" or "sequential".
        arena: the lanes' weights.
    """

    name: str
    arena: Arena

    def objective(self, batch: LaneBatch, scale: float) -> Objective:
        """``scale``·Σ_l L_l, ready for ``arena.backward``, and the losses of all L·B rows."""

    def losses(self, batch: LaneBatch) -> ItemLosses:
        """Losses of all L·B rows, [L·B, T], lane-major; call it without gradients."""

    def buffers(self) -> dict[str, Tensor]:
        """What a forward in train mode changes, by name."""

    def facts(self) -> dict[str, Any]:
        """What a reader of the plan wants to know of it."""

    def close(self) -> None:
        """Let go of the model."""
