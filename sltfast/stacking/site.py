"""The place where a module is patched: its weights, moving and frozen, and the lanes that pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from sltfast.stacking.lanes import Lanes
from sltfast.stacking.pieces import MovingWeight


class Site:
    """One module of the clone, as a folding rule sees it.

    Args:
        module: the module.
        name: its name in the clone.
        own: its moving parameters by their names in the module.
        lanes: the lanes.
    """

    def __init__(self, module: nn.Module, name: str, own: Mapping[str, MovingWeight], lanes: Lanes) -> None:
        self.module, self.name, self.lanes = module, name, lanes
        self.forward: Callable[..., Any] = module.forward
        self._own = own

    def moving(self, name: str) -> MovingWeight | None:
        """The moving parameter of this name, or None where it is frozen or absent."""
        return self._own.get(name)

    def frozen(self, name: str) -> Any:
        """The frozen parameter of this name, or None where it moves or is absent."""
        return None if name in self._own else getattr(self.module, name, None)

    def dense(self, name: str) -> Tensor | None:
        """[L, *shape] where the parameter moves, [1, *shape] where it is frozen, None where it is absent."""
        if (moving := self.moving(name)) is not None:
            return moving.dense()
        frozen = self.frozen(name)
        return None if frozen is None else frozen.unsqueeze(0)
