"""One script, both packages: the same text is run with devinterp 2.0.1 and with `sltfast.compat.install()`.

    python -m benchmarks.drop_in                     # P2 to P5 (llc), P7 (bif), P8 (susceptibilities)
    python -m benchmarks.drop_in --case P4 P5 --pairs 5
    python -m benchmarks.drop_in --small             # sizes of seconds, nothing written: to see that it runs

Both sides take turns in one process, after a warm-up. Before that the script runs with noise 0 on a model in float64,
and where the packages' results differ by more than the rounding of what devinterp stores, the case is refused and the
exit status is 1. Rows are appended to results/drop_in.csv case by case; a case that was measured at this commit is not
measured again without --again, so that a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import numpy as np
import torch

from benchmarks.agreement import Disagreement
from benchmarks.drop_in_scripts import CASES, DropIn
from benchmarks.machine import FACTS, facts
from benchmarks.timing import milliseconds
from sltfast.compat import install, uninstall

RESULTS = Path(__file__).parent / "results" / "drop_in.csv"
COLUMNS = (
    *("regime", "case", "package", "per", "ms_p20", "ms_p50", "ms_p80", "ratio_to_ours"),
    *("target", "agreement", "note", "pairs", "threads", *FACTS),
)
OURS, THEIRS = "sltfast", "devinterp"


def run(script: str, names: Mapping[str, Any], package: str) -> Any:
    """What a script leaves in ``result``, with ``import devinterp`` meaning one package or the other."""
    if package == OURS:
        install("2", replace=True)
    try:
        scope = dict(names)
        exec(compile(script, f"<script, {package}>", "exec"), scope)
        return scope["result"]
    finally:
        uninstall()


def checked(case: DropIn) -> str:
    """Run the script with noise 0 with both packages, and say how far apart they are.

    Raises:
        Disagreement: farther than the rounding of what is stored.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = (case.read(run(case.script, case.without_noise(), who)) for who in (OURS, THEIRS))
    if ours.shape != theirs.shape:
        raise Disagreement(f"{case}: shapes {ours.shape} and {theirs.shape}")
    apart, allowed = float(np.max(np.abs(ours - theirs))), case.allowed(theirs)
    if not apart <= allowed:
        raise Disagreement(f"{case}: with noise 0 the results are {apart:.3g} apart, {allowed:.3g} is allowed")
    return f"noise 0: {apart:.1e} apart, {allowed:.1e} allowed"


def measured(case: DropIn, pairs: int) -> dict[str, list[float]]:
    """Milliseconds a unit, by package, of `pairs` rounds after a warm-up."""
    times: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for pair in range(pairs + 1):
        gc.collect()
        for package in (OURS, THEIRS) if pair % 2 == 0 else (THEIRS, OURS):
            taken = 0.0
            for names, weight in case.parts(package):
                taken += weight * milliseconds(partial(run, case.script, names, package))[0]
            if pair:
                times[package].append(taken / case.units(package))
    return times


def rows(case: DropIn, times: Mapping[str, Sequence[float]], agreement: str, pairs: int) -> list[dict[str, str]]:
    """One a package, in COLUMNS."""
    where, table = facts(), []
    for package, taken in times.items():
        low, middle, high = (f"{value:.5g}" for value in np.percentile(taken, (20, 50, 80)))
        ratio = float(np.median(np.array(taken) / np.array(times[OURS])))
        theirs = package == THEIRS
        values = (
            *(case.regime, case.name, package, case.per, low, middle, high, f"{ratio:.4g}", case.target),
            *("" if theirs else agreement, case.note if theirs else "", str(pairs), str(torch.get_num_threads())),
        )
        table.append({**dict(zip(COLUMNS, values, strict=False)), **where})
    return table


def append(path: Path, table: Sequence[Mapping[str, str]]) -> None:
    """Add rows to the file, which is made where it is missing."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(table)


def on_file(path: Path) -> set[tuple[str, str]]:
    """The (regime, commit) of what was measured."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {(row["regime"], row["commit"]) for row in csv.DictReader(file)}


def main(words: list[str] | None = None) -> int:
    """Measure what was asked for; 1 where a case was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES), help="regimes (default: all)")
    parser.add_argument("--pairs", type=int, default=3, help="timed rounds of both after the warm-up (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of both packages (default 1)")
    parser.add_argument("--small", action="store_true", help="sizes of seconds; nothing is written without --output")
    parser.add_argument("--again", action="store_true", help="measure what was measured at this commit, too")
    parser.add_argument("--output", type=Path, help="CSV file to append to (default: results/drop_in.csv)")
    options = parser.parse_args(words)
    if options.pairs < 1 or options.threads < 1:
        parser.error(f"--pairs and --threads must be >= 1, got {options.pairs} and {options.threads}")
    torch.set_num_threads(options.threads)
    output = options.output or (None if options.small else RESULTS)
    done = set() if options.again or output is None else on_file(output)
    todo = [name for name in options.case if (name, facts()["commit"]) not in done]
    expected = sum(CASES[name].seconds for name in todo) * (options.pairs + 1) / 60
    print(
        f"{', '.join(todo) or 'nothing'} to measure; {'seconds' if options.small else f'{expected:.0f} min'} expected"
    )
    refused = 0
    for name in todo:
        case = CASES[name].make(small=options.small)
        try:
            agreement = checked(case)
        except Disagreement as error:
            print(f"REFUSED {error}", file=sys.stderr)
            refused = 1
            continue
        table = rows(case, measured(case, options.pairs), agreement, options.pairs)
        if output is not None:
            append(output, table)
        times = ", ".join(f"{row['package']} {row['ms_p50']} ms a {case.per}" for row in table)
        print(f"{case}: {times}: {table[1]['ratio_to_ours']} x ({agreement})", flush=True)
    return refused


if __name__ == "__main__":
    sys.exit(main())
