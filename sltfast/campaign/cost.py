"""What a campaign will take, from a few steps of it."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.campaign.cells import Group, State
from sltfast.errors import AllChainsDied, ChainDiverged

if TYPE_CHECKING:
    from sltfast.campaign.running import Runner

TIMED = 4  # restrictions that stand for all of a group
STEPS = 8  # by which the longer of two runs is longer
QUICK = 0.3  # seconds: a run below that is made twice, and the faster counts


@dataclass(frozen=True)
class Cost:
    """Seconds of one restriction with all its chains.

    Attributes:
        setup: before its first step and after its last.
        step: of a step.
        draw: of a draw beside its step: reading the observables.
    """

    setup: float
    step: float
    draw: float

    def of(self, settings: Mapping[str, Any]) -> float:
        """Seconds of a whole cell."""
        draws = settings["num_draws"]
        steps = settings["num_burnin_steps"] + draws * settings["num_steps_bw_draws"]
        return self.setup + self.step * steps + self.draw * draws


def cost_of(runner: Runner, group: Group) -> Cost | None:
    """Time a few steps of some restrictions of a group.

    seconds(steps S, draws D) = setup + S·step + D·draw: two runs of 1 and 1 + 8 draws tell step + draw, one of 1 draw
    after 1 + 8 steps tells step.

    Args:
        runner: of the campaign.
        group: whose model, data and settings are used.

    Returns:
        The cost of one restriction; None where no chain lived through these steps.
    """
    names = list(runner.restrictions)
    chosen = {name: runner.restrictions[name] for name in names[:: -(-len(names) // TIMED)]}

    def once(draws: int, between: int) -> float:
        steps = {"num_draws": draws, "num_steps_bw_draws": between, "num_burnin_steps": 0}
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", ChainDiverged)
            started = time.perf_counter()
            runner.tried(group, chosen, Path(folder) / "trial.zarr", **steps)
            return time.perf_counter() - started

    def seconds(draws: int, between: int) -> float:
        first = once(draws, between)
        return (first if first > QUICK else min(first, once(draws, between))) / len(chosen)

    try:
        once(1, 1)  # the first run pays for imports and caches
        short, with_draws, with_steps = seconds(1, 1), seconds(1 + STEPS, 1), seconds(1, 1 + STEPS)
    except AllChainsDied:
        return None
    step = max(0.0, with_steps - short) / STEPS
    draw = max(0.0, (with_draws - short) / STEPS - step) if runner.campaign.measure == "susceptibilities" else 0.0
    return Cost(max(0.0, short - step - draw), step, draw)


@dataclass(frozen=True)
class Estimate:
    """What is left to do, and how long it will take.

    Attributes:
        cells: that are not finished.
        seconds: for all of them, those that were begun counted as a whole; NaN where a variant could not be timed.
        by_variant: the cost of one restriction under each variant's settings that has cells to do.
    """

    cells: int
    seconds: float
    by_variant: Mapping[str, Cost | None]


def estimated(runner: Runner, states: Mapping[Group, Mapping[str, State]]) -> Estimate:
    """Time the first group of every variant that has cells to do, and count."""
    left = {group: sum(state != "finished" for state in cells.values()) for group, cells in states.items()}
    costs: dict[str, Cost | None] = {}
    total = 0.0
    for group, count in left.items():
        if not count:
            continue
        if group.variant not in costs:
            costs[group.variant] = cost_of(runner, group)
        cost = costs[group.variant]
        settings = runner.campaign.variants[group.variant]
        total += float("nan") if cost is None else cost.of(settings) * count
    return Estimate(sum(left.values()), total, costs)
