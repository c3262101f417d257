"""P5: ``llc()`` of a GPT-NeoX of Pythia-14M's shape, every weight. Milliseconds a round of 4 chains."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Plan
from benchmarks.models import Shape
from benchmarks.regimes.estimates import shaped_case
from benchmarks.timing import Timed

SHAPE = Shape(layers=6, width=128, heads=4, vocabulary=50_304, tokens=128, batch=4, chains=4)
TINY = Shape(layers=2, width=16, heads=2, vocabulary=512, tokens=8, batch=2, chains=2)
SETTINGS = {"lr": 1e-5, "n_beta": 100.0, "localization": 1000.0}


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    shape = TINY if plan.tiny else SHAPE
    yield shaped_case(regime, shape, {**SETTINGS, "num_draws": 8}, target="≥ 1.8×; ≤ 1.35× the GEMMs")
