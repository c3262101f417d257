"""Forwards under way: how many lanes, and how far the present one has come."""

from __future__ import annotations

from typing import Any

import torch

from sltfast.stacking.prefix.memo import Key


class Passing:
    """What the hooks of a model know between one and the next.

    Args:
        lanes: L.
        key: of the batch, for the memo; None: nothing is remembered.

    Attributes:
        rows: B of the forward under way.
        inside: it has entered the root and not left it.
        parted: it has reached the point.
        start: calls that were over before this place are skipped; −1: none is.
        tiles: id of a value -> (the value, the same for all lanes).
        shapes: what the modules below returned in this forward; ``skipped``: in the remembered one.
    """

    def __init__(self, lanes: int, key: Key | None) -> None:
        self.lanes, self.key = lanes, key
        self.rows, self.start = 0, -1
        self.inside = self.parted = False
        self.tiles: dict[int, tuple[Any, Any]] = {}
        self.shapes: dict[str, list[Any]] = {}
        self.skipped: dict[str, tuple[Any, ...]] = {}
        self.seen: dict[str, int] = {}
        self._nth = -1
        self._grad = True

    def begin(self, rows: int) -> None:
        """A forward enters the root: what follows is one lane's, without gradients."""
        if not self.inside or self.parted:
            self._grad = torch.is_grad_enabled()
        self._nth += 1
        self.rows, self.start, self.skipped = rows, -1, {}
        self.inside, self.parted = True, False
        self.tiles, self.shapes, self.seen = {}, {}, {}
        torch.set_grad_enabled(False)

    def part(self) -> None:
        """It reaches the point."""
        self.parted = True
        torch.set_grad_enabled(self._grad)

    def end(self) -> None:
        """It has left the root, or failed."""
        if self.inside and not self.parted:
            torch.set_grad_enabled(self._grad)
        self.inside = self.parted = False
        self.tiles = {}

    def memo_key(self) -> Key:
        """The key of the forward under way: a loss may run the model several times on a batch."""
        return (*(self.key or ()), self._nth)

    def described(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """What the modules below return, hashable: those that ran, and those that were skipped."""
        ran = {name: tuple(shapes) for name, shapes in self.shapes.items()}
        return tuple({**self.skipped, **ran}.items())
