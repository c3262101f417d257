"""The excess loss of every chain along its steps, as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sltfast.report.limits import Limits
from sltfast.report.runs import Run
from sltfast.report.section import Section
from sltfast.tables import number, plus_minus

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 26
OPEN = 6  # figures at first sight
POINTS, SMOOTH = 230, 46  # of the line as sampled, and of its running mean


@dataclass(frozen=True)
class Line:
    """One chain: its path as sampled, the path of its running mean, its colour's number."""

    path: str
    smooth: str
    colour: int


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One small figure a run."""
    drawn = list(runs)[: limits.traces]
    left_out = len(runs) - len(drawn)
    note = f"The traces of the first {len(drawn)} runs are drawn; {left_out} are left out." if left_out else ""
    figures = [figure(run) for run in drawn]
    return Section("traces", "Loss traces", "traces.html", {"figures": figures, "open": OPEN, "note": note})


def figure(run: Run) -> dict[str, Any]:
    """What the template needs to draw a run's traces."""
    trace = np.asarray(run.estimate["excess_trace"].values, np.float64)
    steps = trace.shape[1]
    burnin = int(run.estimate.attrs.get("num_burnin_steps", 0))
    finite = trace[np.isfinite(trace)]
    low, high = _limits(finite)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, steps - 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(value, low), high)) / (high - low)

    lines = []
    for chain, values in enumerate(trace):
        kept = np.flatnonzero(np.isfinite(values))
        sampled, smooth = (
            " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in _buckets(kept, values[kept], count))
            for count in (POINTS, SMOOTH)
        )
        lines.append(Line(sampled, smooth, chain % 8))
    mean, se = float(run.estimate["llc_mean"]), float(run.estimate["llc_se"])
    return {
        "name": run.name or "this run",
        "llc": plus_minus(mean, se),
        "verdict": run.verdict,
        "lines": lines,
        "zero": round(y(0.0), 1) if low <= 0 <= high else None,
        "burnin": round(x(burnin), 1) if 0 < burnin < steps else None,
        "deaths": [round(x(int(step)), 1) for step in run.estimate["death_step"].values if step >= 0],
        "yticks": [(round(y(value), 1), f"{value:g}") for value in _ticks(low, high, 4)],
        "xticks": [(round(x(value), 1), f"{value:g}") for value in _ticks(0, steps - 1, 5)],
        "box": {
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
        },
        "said": f"{len(trace)} chains over {steps} steps, excess loss from {number(low, 2)} to {number(high, 2)} nats",
    }


def _limits(finite: np.ndarray) -> tuple[float, float]:
    """All but the wildest of the values, 0 among them."""
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(finite, [0.002, 0.998]))
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _buckets(steps: np.ndarray, values: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Means of consecutive steps, at most so many; the first and the last stand at the ends."""
    if len(steps) <= count:
        return list(zip(steps.tolist(), values.tolist(), strict=True))
    parts = zip(np.array_split(steps, count), np.array_split(values, count), strict=True)
    points = [(float(at.mean()), float(value.mean())) for at, value in parts]
    points[0], points[-1] = (float(steps[0]), points[0][1]), (float(steps[-1]), points[-1][1])
    return points


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two ends, about so many."""
    rough = (high - low) / count
    if rough <= 0:
        return [low]
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = int(np.ceil(low / step))
    return [round(index * step, 12) for index in range(first, int(np.floor(high / step)) + 1)]
