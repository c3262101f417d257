"""Time of importing sltfast against `import torch`: the target is a ratio below 1.2.

The package alone imports nothing; its names bring torch, and it is with them that the target is a target.

Fresh processes, the statements interleaved so that a slow minute hits all; the minimum over the runs is
what the import costs when nothing else runs. One row a statement, written to results/import_time.csv.
"""

import argparse
import csv
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

NAMES = "sample, llc, compute_llc, open, default_nbeta, ops, theory"
STATEMENTS = ("import torch", "import sltfast", f"from sltfast import {NAMES}")
RESULTS = Path(__file__).parent / "results" / "import_time.csv"


def seconds(statement: str) -> float:
    """Return the time one fresh process takes to execute `statement`, in seconds, start-up excluded."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="fresh processes for each statement (default 9)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()

    for statement in STATEMENTS:
        seconds(statement)  # fills the page cache and writes the bytecode
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(options.runs):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))

    reference = min(times[STATEMENTS[0]])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["statement", "min_s", "median_s", "ratio_of_minima", "runs", "torch", "python", "machine"])
        for statement, measured in times.items():
            facts = [version("torch"), platform.python_version(), platform.machine()]
            numbers = [min(measured), statistics.median(measured), min(measured) / reference]
            table.writerow([statement, *(f"{number:.4f}" for number in numbers), options.runs, *facts])
    print(options.output.read_text(), end="")


if __name__ == "__main__":
    main()
