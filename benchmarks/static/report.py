"""The table in csrc/README.md, between `<!-- from static.csv -->` and `<!-- end -->`."""

import csv
import re
from pathlib import Path

from benchmarks.static.rows import RESULTS

README = Path(__file__).resolve().parents[2] / "csrc" / "README.md"
PLACE = re.compile(r"(<!-- from static\.csv -->).*?(<!-- end -->)", flags=re.DOTALL)
HEAD = (
    "op", "kernel", "source", "registers, sm_80/90/100/120", "spills", "chains", "bytes", "floor", "access",
    "instructions", "H100, ms", "H200, ms",
)  # fmt: skip


def table() -> str:
    """One line a kernel; counts and times are sm_90's, registers and spills every architecture's."""
    cases: dict[tuple[str, ...], list[dict[str, str]]] = {}
    with RESULTS.open() as file:
        for row in csv.DictReader(file):
            cases.setdefault((row["op"], row["kernel"], row["source"], row["chains"]), []).append(row)
    lines = [HEAD, tuple("---" if i < 3 else "---:" for i in range(len(HEAD)))]
    for (op, kernel, source, chains), rows in cases.items():
        hopper = next(row for row in rows if row["arch"] == "sm_90")
        counts = (f"{hopper['bytes']}", hopper["floor_bytes"], hopper["narrowest_access"], hopper["instructions"])
        registers = "/".join(row["registers"] for row in rows)
        spills = str(sum(int(row["spill_bytes"]) for row in rows))
        times = (hopper["h100_ms"], hopper["h200_ms"])
        lines.append((f"`{op}`", f"`{kernel}`", source, registers, spills, chains, *counts, *times))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def filled(text: str) -> str:
    """`text` with the table as it is now."""
    return PLACE.sub(lambda found: f"{found[1]}\n\n{table()}\n\n{found[2]}", text)


def write_readme() -> None:
    """Replace the table."""
    README.write_text(filled(README.read_text()))
