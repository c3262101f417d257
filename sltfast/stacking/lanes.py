"""Lanes and rows: a folded tensor [L·n, …] is L lanes of n rows, lane after lane."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sltfast.data import leaves, map_leaves


class Lanes:
    """How many lanes go through the model, and how many rows of a batch each brings.

    Attributes:
        count: L.
        batch: B, rows of the batch last expanded; 1 before the first.
        asking: whether sizes alone decide what carries the batch, and the answers are noted (see ``Habit``).
    """

    def __init__(self, count: int) -> None:
        self.count, self.batch, self.asking = count, 1, True

    def expand(self, batch: Any) -> Any:
        """The batch repeated for every lane: row l·B + b is row b of lane l."""
        self.batch = len(leaves(batch)[0])

        def repeat(part: Tensor) -> Tensor:
            return part.expand(self.count, *part.shape).flatten(0, 1) if part.ndim else part

        return map_leaves(repeat, batch)

    def is_folded(self, x: Tensor) -> bool:
        """Whether the leading size can be that of a folded batch."""
        return x.ndim > 0 and len(x) > 0 and len(x) % (self.count * self.batch) == 0

    def split(self, x: Tensor) -> Tensor:
        """[L·n, …] as [L, n, …]."""
        return x.unflatten(0, (self.count, -1))

    def spread(self, x: Tensor) -> Tensor:
        """[L, …] without rows of a batch, or with one for all, as rows [L·B, …]."""
        if x.ndim > 1 and x.shape[1] == 1:
            x = x.squeeze(1)
        return x.unsqueeze(1).expand(len(x), self.batch, *x.shape[1:]).flatten(0, 1)


class Habit:
    """What a call site was seen to receive, so that a coincidence of sizes later does not mislead it.

    A tensor [T, …] that all rows share looks like a folded batch when T happens to be a multiple of L·B. The model's
    first call is tried where it does not (``opening``), and what is noted there holds from then on.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self._noted: dict[Any, bool | None] = {}

    def folded(self, x: Tensor, place: Any = 0) -> bool:
        """Whether the tensor at this place carries the folded batch."""
        if self.lanes.count == 1:
            return x.ndim > 0  # nothing has to be told apart
        fits = self.lanes.is_folded(x)
        if self.lanes.asking:
            before = self._noted.setdefault(place, fits)
            if before is not None and before != fits:
                self._noted[place] = None  # both kinds come here: sizes have to decide
            return fits
        return fits and self._noted.get(place) is not False
