"""What runs have survived: results/survival.csv, written by the long tests of tests/survival (`make soak`).

A row is a kind of run under a kind of fault: how often it met the fault and the most rows (losses of a chain at a step)
that were on disk at one of them. All these runs ended with the bits of runs that met none, or there would be no row.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import FACTS, facts

RESULTS = Path(__file__).parent / "results" / "survival.csv"
COLUMNS = ("fault", "run", "count", "rows_held", *FACTS)


def record(fault: str, found: Mapping[str, tuple[int, int]], path: Path = RESULTS) -> None:
    """Write the rows of a fault in place of those that an earlier soak found.

    Args:
        fault: what happened to the runs.
        found: (faults met, most rows on disk at one) by kind of run.
        path: the file.
    """
    kept: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["fault"] != fault]
    where = facts()
    new = [
        {"fault": fault, "run": run, "count": str(count), "rows_held": str(rows), **where}
        for run, (count, rows) in found.items()
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(kept + new, key=lambda row: row["fault"]))
