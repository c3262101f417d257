"""What is tried where memory ran out: fewer chains a pass, passes one by one, fewer restrictions, one chain alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sltfast.sampler.lanes import Lanes, Part


class Limit(NamedTuple):
    """What passes may be at most.

    Attributes:
        chains: of each restriction.
        cells: restrictions that share a pass.
        beside: whether passes go step by step beside each other.
        sequential: whether only the engine of one chain alone is left.
    """

    chains: int
    cells: int
    beside: bool = True
    sequential: bool = False

    def text(self) -> str:
        """What goes together, in words."""
        chains = f"{self.chains} chain{'s' if self.chains > 1 else ''} per pass"
        many = f" of {self.cells} restrictions" if self.cells > 1 else ""
        how = ", passes beside each other" if self.beside else ""
        return f"{chains}{many}{how}" + (", by the sequential engine" if self.sequential else "")


def size_of(group: Sequence[Lanes], *, sequential: bool) -> Limit:
    """What a group of passes is."""
    chains = max(len(part.chains) for lanes in group for part in lanes.parts)
    return Limit(chains, max(len(lanes.parts) for lanes in group), len(group) > 1, sequential)


def smaller(size: Limit) -> Limit | None:
    """The next smaller size: half the chains; passes one after another; half the restrictions; one chain alone.

    None where nothing smaller is left.
    """
    if size.chains > 1:
        return size._replace(chains=(size.chains + 1) // 2)
    if size.beside:
        return size._replace(beside=False)
    if size.cells > 1:
        return size._replace(cells=(size.cells + 1) // 2)
    return None if size.sequential else size._replace(sequential=True)


def within(group: Sequence[Lanes], limit: Limit) -> list[list[Lanes]]:
    """The groups that take a group's place under a limit; passes over the same chains stay together where they may."""
    ranges = list(dict.fromkeys(part.chains for lanes in group for part in lanes.parts))
    found: list[list[Lanes]] = []
    for chains in ranges:
        for start in range(chains.start, chains.stop, limit.chains):
            few = range(start, min(start + limit.chains, chains.stop))
            together = []
            for lanes in group:
                parts = [Part(part.cell, few) for part in lanes.parts if part.chains == chains]
                together += [Lanes(tuple(parts[k : k + limit.cells])) for k in range(0, len(parts), limit.cells)]
            found += [together] if limit.beside else [[lanes] for lanes in together]
    return found
