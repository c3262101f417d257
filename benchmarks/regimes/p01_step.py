"""P1: the update step alone, as langevin_step.py measures it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Deferred, Plan
from benchmarks.kernels_on_file import Script

SCRIPT = Script(
    "langevin_step.py",
    key=("op", "tensors", "numel"),
    peers=("devinterp", "eager", "ours, metrics", "devinterp, metrics"),
    floors=("floor: memory", "floor: noise"),
    target="≥ 15×; ≥ 75 % of the floor",
    tiny=("--numel", "200000", "--tensors", "4"),
    largest_floor=True,
)


def cases(plan: Plan, regime: str) -> Iterator[Deferred]:
    yield SCRIPT.case(regime, "langevin_step.py")
