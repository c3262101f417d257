"""Which restrictions go through the model together, and which passes go step by step beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from sltfast.restriction import Restriction
from sltfast.sampler.lanes import Lanes, passes

Classes = list[tuple[int, ...]]


def congruent(restrictions: Sequence[Restriction]) -> Classes:
    """Cells that move parts of the same shape of the same parameters, as the heads of one attention do.

    A restriction of whole parameters, or under a mask, stays by itself.
    """
    classes: dict[tuple[object, ...], list[int]] = {}
    for cell, restriction in enumerate(restrictions):
        segments = restriction.segments
        parts = all(segment.mask is None and not segment.whole for segment in segments)
        shapes = tuple((segment.name, segment.shape) for segment in segments)
        classes.setdefault(shapes if parts else (cell,), []).append(cell)
    return [tuple(cells) for cells in classes.values()]


def groups(classes: Classes, spans: Sequence[range]) -> list[list[Lanes]]:
    """The passes of these classes; those over the same chains take each step one after another, so that one forward at
    w* serves them all.
    """
    of_class = [passes(cells, spans) for cells in classes]
    return [list(together) for together in zip(*of_class, strict=True)]
