"""What a benchmark is made of: sides that do the same work, floors below them, and a check that they agree.

A regime yields cases. A case is measured only as a whole: its sides run once to warm up, what they found is compared,
and only where it agrees are they timed, in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Disagreement(Exception):
    """The sides of a case found different things: no time of theirs is worth reporting."""


class Unavailable(Exception):
    """A case cannot be measured here: a package, a model or a function is missing. The message says how to get it."""


@dataclass(frozen=True)
class Plan:
    """What was asked of a run.

    Attributes:
        pairs: timed rounds of all sides of a case, after warm-up.
        threads: of every side.
        tiny: sizes that take seconds, to see that everything runs; the numbers mean nothing.
        full: cases that take many minutes too.
        without: peers to leave out, by name.
        small: scaling curves of fewer and smaller points.
        only: words that a case's name must contain, to measure it.
    """

    pairs: int = 5
    threads: int = 1
    tiny: bool = False
    full: bool = False
    without: frozenset[str] = frozenset()
    small: bool = False
    only: str = ""


@dataclass(frozen=True)
class Side:
    """One way to do the work of a case.

    Attributes:
        run: does it once; its wall time is what is measured.
        units: what that time is divided by, such as the rounds of a run; less than 1 where a part is timed and scaled.
        read: what ``Case.agree`` needs of what ``run`` returned.
        note: for the record.
    """

    run: Callable[[], Any]
    units: float = 1.0
    read: Callable[[Any], Any] = lambda outcome: outcome
    note: str = ""


@dataclass(frozen=True)
class Case:
    """Ours and others, doing the same.

    Attributes:
        regime, name: which one; ``axis`` and ``size`` where it is a point of a scaling curve.
        per: what a time is of: "chain-step", "round" (one step of all chains) or "call".
        target: of the ratio to the first peer, as a reader reads it.
        ours, peers, floors: the first peer is the one of the ratio, the first floor the one reported.
        agree: raises Disagreement unless the outcomes of ours and the peers are the same; says by how much they differ.
    """

    regime: str
    name: str
    per: str
    ours: Side
    peers: Mapping[str, Side]
    floors: Mapping[str, Side]
    agree: Callable[[Mapping[str, Any]], str]
    target: str = ""
    axis: str = ""
    size: float | None = None


@dataclass(frozen=True)
class Variant:
    """What was measured of one side: percentiles over the rounds, and the median of the rounds' ratios to ours."""

    role: str  # "ours", "peer", "floor", or "variant" of ours
    p20: float
    p50: float
    p80: float
    ratio_to_ours: float
    llc: float | None = None
    llc_se: float | None = None
    warm_up_ms: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """The variants of a case by name, ours first; in ``unit`` per ``per``."""

    regime: str
    case: str
    unit: str
    per: str
    variants: Mapping[str, Variant]
    target: str = ""
    agreement: str = ""
    axis: str = ""
    size: float | None = None

    def first(self, role: str) -> tuple[str, Variant] | None:
        """The first variant of a role, with its name."""
        return next(((name, v) for name, v in self.variants.items() if v.role == role), None)


class Measurable(Protocol):
    """A case of a regime: ``name`` to announce it, ``measure`` to do it."""

    @property
    def regime(self) -> str: ...

    @property
    def name(self) -> str: ...

    def measure(self, plan: Plan) -> list[Result]:
        """Raises Disagreement or Unavailable."""


@dataclass(frozen=True)
class Deferred:
    """A case that is measured in its own way, such as in fresh processes."""

    regime: str
    name: str
    how: Callable[[Plan], list[Result]] = field(repr=False)

    def measure(self, plan: Plan) -> list[Result]:
        return self.how(plan)
