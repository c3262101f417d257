"""P11: per-sample gradient norms, as per_sample.py measures them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Deferred, Plan
from benchmarks.kernels_on_file import Script

SCRIPT = Script(
    "per_sample.py",
    key=("width", "vocabulary", "items", "tokens"),
    peers=("vmap(grad)", "Opacus", "one item at a time", "ours, warm", "ours: inner products"),
    floors=("floor: forward + backward",),
    target="≥ 3×; ≤ 1.5× a plain pass",
    table="per_sample.csv",
    tiny=("--items", "4", "8"),
)


def cases(plan: Plan, regime: str) -> Iterator[Deferred]:
    yield SCRIPT.case(regime, "per_sample.py")
