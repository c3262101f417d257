"""Times of a case: warm up, compare what was found, then all sides in turn, so that a slow minute hits all."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.agreement import Estimate
from benchmarks.case import Case, Plan, Result, Side, Variant

SHORTEST = 0.02  # seconds that a floor is repeated for


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings: a run of seconds that is not kept deserves none."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def milliseconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of one call, and what it returned."""
    with quiet():
        start = time.perf_counter()
        outcome = run()
        return 1e3 * (time.perf_counter() - start), outcome


def repeated(run: Callable[[], Any], units: float = 1.0, note: str = "") -> Side:
    """A side for what takes microseconds: as many calls as take SHORTEST seconds, `units` each."""
    run()
    start = time.perf_counter()
    run()
    calls = max(1, math.ceil(SHORTEST / max(time.perf_counter() - start, 1e-7)))

    def many() -> None:
        for _ in range(calls):
            run()

    return Side(many, units * calls, note=note)


@dataclass(frozen=True)
class Timed:
    """A case whose sides are timed."""

    case: Case

    @property
    def regime(self) -> str:
        return self.case.regime

    @property
    def name(self) -> str:
        return self.case.name

    def measure(self, plan: Plan) -> list[Result]:
        """Medians of ``plan.pairs`` rounds.

        Raises:
            Disagreement: the sides found different things.
        """
        case = self.case
        peers = {name: side for name, side in case.peers.items() if name not in plan.without}
        sides: dict[str, Side] = {"ours": case.ours, **peers, **case.floors}
        roles = {"ours": "ours", **dict.fromkeys(peers, "peer"), **dict.fromkeys(case.floors, "floor")}
        warm, outcomes = {}, {}
        for name, side in sides.items():
            taken, raw = milliseconds(side.run)
            warm[name] = taken
            if roles[name] != "floor":
                outcomes[name] = side.read(raw)
            print(f"  {name}: {taken / side.units:.4g} ms a {case.per} with warm-up", file=sys.stderr, flush=True)
        agreement = case.agree(outcomes)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for pair in range(plan.pairs):
            gc.collect()
            for name in list(sides) if pair % 2 == 0 else reversed(list(sides)):
                times[name].append(milliseconds(sides[name].run)[0] / sides[name].units)
        ours = np.array(times["ours"])
        variants = {}
        for name, side in sides.items():
            low, middle, high = np.percentile(times[name], (20, 50, 80))
            found = outcomes.get(name)
            estimate = found if isinstance(found, Estimate) else None
            variants[name] = Variant(
                roles[name],
                *(float(low), float(middle), float(high)),
                ratio_to_ours=float(np.median(np.array(times[name]) / ours)),
                llc=None if estimate is None else estimate.value,
                llc_se=None if estimate is None else estimate.se,
                warm_up_ms=warm[name],
                note=side.note,
            )
        return [
            Result(
                case.regime, case.name, "ms", case.per, variants, case.target, agreement, axis=case.axis, size=case.size
            )
        ]
