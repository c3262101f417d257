"""P4: ``llc()`` of a small GPT-NeoX, end to end. Milliseconds a round of 8 chains."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Plan
from benchmarks.models import Shape
from benchmarks.regimes.estimates import shaped_case
from benchmarks.timing import Timed

SHAPE = Shape(layers=2, width=64, heads=4, vocabulary=512, tokens=32, batch=8, chains=8)
TINY = Shape(layers=1, width=16, heads=2, vocabulary=64, tokens=8, batch=4, chains=4)
SETTINGS = {"lr": 1e-3, "n_beta": 10.0, "localization": 100.0}


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    shape, draws = (TINY, 10) if plan.tiny else (SHAPE, 100)
    yield shaped_case(regime, shape, {**SETTINGS, "num_draws": draws}, vmapped=True, target="≥ 4×")
