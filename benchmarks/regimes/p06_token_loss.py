"""P6: per-token losses from hidden states, as token_loss.py measures them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Deferred, Plan
from benchmarks.kernels_on_file import Script

SCRIPT = Script(
    "token_loss.py",
    key=("pass", "tokens", "depth", "vocabulary"),
    peers=("devinterp", "eager", "eager tiled", "ours weighted"),
    floors=("floor: mm",),
    target="≥ 2.5×; ≤ 1.3× the GEMM",
)


def cases(plan: Plan, regime: str) -> Iterator[Deferred]:
    yield SCRIPT.case(regime, "token_loss.py")
