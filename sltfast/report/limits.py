"""How much of the data a page holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is embedded at most; what is left out is said on the page.

    Attributes:
        traces: runs whose traces are drawn.
        passages: of each data set, whose tokens are coloured.
        numbers: susceptibilities and their errors, 5.3 bytes each.
        points: tokens in the scatter plot.
        matrix: rows and columns of the influence matrix.
        neighbours: of each passage, on either side.
        letters: of a passage in a list of neighbours.
    """

    traces: int = 24
    passages: int = 24
    numbers: int = 800_000
    points: int = 3000
    matrix: int = 240
    neighbours: int = 6
    letters: int = 480
