"""P7: correlations of loss draws, as comoment.py measures them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Deferred, Plan
from benchmarks.kernels_on_file import Script

SCRIPT = Script(
    "comoment.py",
    key=("op", "variables", "draws"),
    peers=("devinterp", "torch.corrcoef", "torch.corrcoef + topk", "eager", "numpy.corrcoef", "ours, fp32 products"),
    floors=("floor: half gemm", "floor: gemm", "floor: gemm, fp32"),
    target="≥ 10×; ≤ 1.3× the floor",
    tiny=("--sequences", "17"),
)


def cases(plan: Plan, regime: str) -> Iterator[Deferred]:
    yield SCRIPT.case(regime, "comoment.py")
