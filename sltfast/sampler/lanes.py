"""Which chains go through the model together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sltfast.restriction import Restriction
from sltfast.results.store import Store


@dataclass
class Cell:
    """One restriction of a run, with a place of its own for results.

    Attributes:
        name: as the caller calls it.
        restriction: the coordinates that its chains move.
        store: where they are recorded.
    """

    name: str
    restriction: Restriction
    store: Store


class Part(NamedTuple):
    """Consecutive chains of one cell."""

    cell: int
    chains: range


@dataclass(frozen=True)
class Lanes:
    """The lanes of one pass: the same chains of some cells whose restrictions are congruent, cell by cell."""

    parts: tuple[Part, ...]

    @property
    def chains(self) -> list[int]:
        """The chain of each lane."""
        return [chain for part in self.parts for chain in part.chains]

    @property
    def cells(self) -> tuple[int, ...]:
        """The cells that take part."""
        return tuple(part.cell for part in self.parts)

    def __len__(self) -> int:
        return sum(len(part.chains) for part in self.parts)


def passes(cells: tuple[int, ...], spans: Sequence[range]) -> list[Lanes]:
    """A pass of congruent cells for each of these ranges of chains."""
    return [Lanes(tuple(Part(cell, chains) for cell in cells)) for chains in spans]
