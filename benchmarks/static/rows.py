"""A row of the table: one kernel for one architecture."""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.static.hardware import H100, H200
from benchmarks.static.sass import Kernel, Turn

RESULTS = Path(__file__).resolve().parents[1] / "results" / "static.csv"
ARCHITECTURES = (80, 90, 100, 120)
UNITS = 10**8
"""Coordinates (or whatever a row counts per) that its milliseconds are for, in each chain."""


@dataclass(frozen=True)
class Row:
    """Bytes and instructions are for one unit of one chain; empty where nothing was counted."""

    op: str
    kernel: str
    source: str
    arch: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    counted_per: str = ""
    chains: int | str = ""
    bytes: float | str = ""
    floor_bytes: float | str = ""
    narrowest_access: int | str = ""
    instructions: float | str = ""
    h100_ms: float | str = ""
    h200_ms: float | str = ""


def plain_row(op: str, name: str, source: str, arch: int, kernel: Kernel, spill_bytes: int) -> Row:
    """What the compiler says, and nothing counted."""
    return Row(op, name, source, f"sm_{arch}", kernel.registers, spill_bytes, kernel.shared)


def counted_row(
    row: Row, turns: Iterable[tuple[Turn, float]], *, counted_per: str, units: float, chains: int, floor: float
) -> Row:
    """`row` with the loops of the hot path counted.

    Args:
        row: from `plain_row`.
        turns: a loop's turn, and how often it is taken for `units` units of one chain: 1, or 1/C for a loop whose work
            C chains share.
        counted_per: what a unit is, such as "coordinate".
        units: that one turn moves, in one thread.
        chains: C.
        floor: bytes per unit that no implementation can do without.
    """
    taken = list(turns)
    moved = sum((turn.read + turn.written) * share for turn, share in taken) / units
    opcodes = Counter[str]()
    for turn, share in taken:
        for opcode, count in turn.opcodes.items():
            opcodes[opcode] += count * share
    times = {}
    if row.arch == "sm_90":
        for name, gpu in (("h100_ms", H100), ("h200_ms", H200)):
            seconds = gpu.seconds(moved * UNITS * chains, opcodes, UNITS * chains / units)
            times[name] = round(1e3 * seconds, 3)
    return Row(
        **{
            **asdict(row),
            "counted_per": counted_per,
            "chains": chains,
            "bytes": round(moved, 3),
            "floor_bytes": round(floor, 3),
            "narrowest_access": min(turn.narrowest for turn, _ in taken if turn.narrowest),
            "instructions": round(opcodes.total() / units, 1),
            **times,
        }
    )


def spilling(rows: Iterable[Row]) -> list[str]:
    """A line for each kernel and architecture that keeps something outside of registers, once, in the rows' order."""
    lines = (
        f"{row.op}: {row.kernel} ({row.source}) on {row.arch}, {row.spill_bytes} bytes a thread"
        for row in rows
        if row.spill_bytes
    )
    return list(dict.fromkeys(lines))


def write_csv(rows: list[Row], path: Path = RESULTS) -> None:
    """Tidy, one line a row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
