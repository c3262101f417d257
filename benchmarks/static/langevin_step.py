"""How `langevin_step_` is counted: 4 coordinates a thread and turn; w* outside of the loop over chains."""

from benchmarks.static.rows import Row, counted_row
from benchmarks.static.sass import Kernel

GROUP = 4
CHAINS = (1, 4, 16)
PER_CHAIN = {"plain": 12, "preconditioned": 20, "momentum": 20}
"""Bytes of one chain's own tensors in float32: read g and w, write w; v or m read and written."""


def counted(kernel: Kernel, row: Row) -> list[Row]:
    """One row for each of CHAINS: 4 bytes of w* are shared by C chains."""
    if "hot" not in row.kernel:
        return []
    rule = next(name for name in PER_CHAIN if name in row.kernel)
    chain = max((loop for loop in kernel.loops if loop.turn.written), key=lambda loop: loop.depth)
    around = [loop for loop in kernel.loops if set(chain.own) <= set(loop.inner)]
    shared = max(around, key=lambda loop: loop.depth)
    return [
        counted_row(
            row,
            [(chain.turn, 1.0), (shared.turn, 1.0 / chains)],
            counted_per="coordinate",
            units=GROUP,
            chains=chains,
            floor=PER_CHAIN[rule] + 4 / chains,
        )
        for chains in CHAINS
    ]
