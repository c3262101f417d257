"""What one clone of a model tells about prefix sharing in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sltfast.stacking.prefix.points import Point
from sltfast.stacking.prefix.trace import Call


class Finding(NamedTuple):
    """Where lanes part, found and tried in one clone; it holds in every other with the same modules.

    Attributes:
        point: where, or None: nothing is shared.
        skipped: modules below it that a remembered forward skips, each with its calls; None: no forward is remembered.
        reason: why there and not later, or why nothing is shared.
        memo_reason: why no forward is remembered, "" where it is.
        blocks: names of the model's repeated blocks.
        suffix_share: fraction of a forward's FLOPs that each lane spends.
        short: a few tokens of each row stood for all of them.
    """

    point: Point | None = None
    skipped: list[list[Call]] | None = None
    reason: str = ""
    memo_reason: str = ""
    blocks: Sequence[str] = ()
    suffix_share: float = 1.0
    short: bool = False
