"""What the first engine over some restrictions finds out about a model, so that those after it need not."""

from __future__ import annotations

from dataclasses import dataclass

from sltfast.stacking.prefix import Finding, Outline


@dataclass
class Understanding:
    """Of one set of restrictions; engines fill it in, and it holds for every clone of the model.

    Attributes:
        outline: of a forward of whole rows.
        sharing: where lanes part; None: not asked yet.
        layout: which of the layouts of an attention is that of the restrictions' heads.
        not_heads: why the lanes are no heads of one attention, "" where they are; None: not asked yet.
        units: modules that run whole, since their weights are read from outside.
        settled: an engine has run, so that ``units`` is known.
    """

    outline: Outline = ()
    sharing: Finding | None = None
    layout: int = 0
    not_heads: str | None = None
    units: frozenset[str] = frozenset()
    settled: bool = False
