"""How equal the face of devinterp 2.0.1 is to devinterp 2.0.1: results/parity.csv, which docs/parity.md shows.

    python -m benchmarks.parity            # minutes
    python -m benchmarks.parity --small    # few chains, nothing written: to see that it runs

Exact mode: every case of EXACT in float32 and float64, with both packages; every array that devinterp stores is
compared bit by bit, estimates too. A row tells how many arrays there were, how many of them have devinterp's bits, and
the largest difference. Fast mode: the cases of benchmarks/parity_cases.py, chains that differ in their noise alone; a
row is a group of statistics of a chain (λ̂, χ, BIF) with the smallest p-value of a two-sample test, multiplied by how
many statistics the case has. Power: the same test of samplers that have a setting wrong on purpose. The exit status is
1 where an exact array differs, a p-value of equal settings is below LEVEL, or one of wrong settings is not.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import numpy as np
import torch

from benchmarks import parity_cases
from benchmarks.machine import FACTS, facts
from benchmarks.two_samples import p_values

RESULTS = Path(__file__).parent / "results" / "parity.csv"
COLUMNS = ("mode", "case", "compared", "arrays", "same_bits", "largest_difference", "p", "chains", *FACTS)
# of equal samplers a case falls below this with a chance of 10⁻⁴ at most: its p-values are counted as often as they are
LEVEL = 1e-4
THEIRS, OURS = 300, 4000  # chains
WRONG = (0.9, 1.1)  # shares of a setting that the test has to find out with so many chains
SMALL_THEIRS, SMALL_OURS, SMALL_WRONG = 20, 200, (0.5, 2.0)
KNOBS = {"nβ": "n_beta", "γ": "localization"}
# correlations and covariances are at most 1, float32, and summed by devinterp in another order: 8 roundings of 2⁻²³
SUMS = 8 * 2.0**-23
GROUPS = {"λ̂": "λ̂", "χ": "χ of", "BIF": "influence of"}

MASKS = {"embed.weight": torch.arange(28).view(7, 4) % 3 > 0, "out.weight": None}
EXACT: dict[str, dict[str, Any]] = {
    "sgld": {"localization": 0.0},
    "sgld, localization, weight decay, box": {"llc_weight_decay": 0.5, "bounding_box_size": 0.02},
    "rmsprop_sgld, metrics": {"sampling_method": "rmsprop_sgld", "rmsprop_eps": 0.1, "save_metrics": True},
    "rmsprop_sgld, masks, decay": {
        "sampling_method": "rmsprop_sgld", "rmsprop_eps": 0.1, "param_masks": MASKS, "llc_weight_decay": 0.5,
    },
    "sgld, masks, box, metrics": {"param_masks": MASKS, "bounding_box_size": 0.1, "save_metrics": True},
    "burn-in, 3 batches a step, 2 steps a draw": {
        "num_burnin_steps": 3, "gradient_accumulation_steps": 3, "num_steps_bw_draws": 2, "batch_size": 2,
    },
    "own data for each chain, noise at the start": {
        "match_sampling_input_ids_across_chains": False, "init_noise": 0.1, "batch_size": 4,
    },
    "noise 0": {"noise_level": 0.0},
}  # fmt: skip


def estimates() -> Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """By name, devinterp's estimate of a tree and the exact one of its face."""
    from devinterp.slt.bif import compute_bif as their_bif
    from devinterp.slt.llc import compute_llc as their_llc
    from devinterp.slt.susceptibilities import compute_susceptibilities as their_chi

    from sltfast.compat.devinterp.slt.bif import compute_bif
    from sltfast.compat.devinterp.slt.llc import compute_llc
    from sltfast.compat.devinterp.slt.susceptibilities import compute_susceptibilities

    return {
        "compute_llc": (their_llc, lambda tree: compute_llc(tree, exact=True)),
        "compute_bif": (their_bif, compute_bif),
        "compute_susceptibilities": (
            lambda tree: their_chi({"full": tree, "part": tree}, "task"),
            lambda tree: compute_susceptibilities({"full": tree, "part": tree}, "task"),
        ),
    }


def arrays(result: Any) -> dict[str, np.ndarray]:
    """Every array of a data set, or of all groups of a tree that devinterp has too."""
    groups = result.subtree if hasattr(result, "subtree") else [result]
    found: dict[str, np.ndarray] = {}
    for group in groups:
        place = getattr(group, "path", "/")
        if not place.startswith("/sltfast"):  # what sltfast records of its own
            found |= {f"{place} {name}": array.values for name, array in group.data_vars.items()}
    return found


def compared(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> tuple[int, int, float]:
    """Arrays that devinterp has, how many of them ours has with the same bits, and the largest difference of any.

    One that ours lacks, or has in another shape or dtype, or NaN where devinterp has not, is infinitely far off.
    """
    same, largest = 0, 0.0
    for name, wanted in theirs.items():
        got = ours.get(name)
        if got is None or (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
            largest = np.inf
        elif wanted.tobytes() == got.tobytes():
            same += 1
        elif wanted.dtype.kind not in "fiub":
            largest = np.inf
        else:
            apart = np.abs(wanted.astype(np.float64) - got.astype(np.float64))
            apart[wanted == got] = 0.0  # infinities
            apart[np.isnan(wanted) & np.isnan(got)] = 0.0
            largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)))
    return len(theirs), same, largest


def exact_rows(draws: int) -> Iterator[dict[str, str]]:
    """A row for each case and dtype: the tree; for plain SGLD the estimates of it, too."""
    for precision in (torch.float32, torch.float64):
        kind = str(precision).removeprefix("torch.")
        for case, changes in EXACT.items():
            settings = {**parity_cases.SETTINGS, "num_chains": 2, "num_draws": draws, **changes}
            trees = [
                parity_cases.sampled(who, parity_cases.reader(precision), **settings) for who in ("devinterp", "exact")
            ]
            yield exact_row(f"{case}, {kind}", "every stored array", *trees)
            if case == next(iter(EXACT)):
                for name, (theirs, ours) in estimates().items():
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        yield exact_row(f"{case}, {kind}", name, theirs(trees[0]), ours(trees[1]))


def exact_row(case: str, what: str, theirs: Any, ours: Any) -> dict[str, str]:
    """In COLUMNS."""
    count, same, largest = compared(arrays(theirs), arrays(ours))
    return {
        "mode": "exact", "case": case, "compared": what, "arrays": str(count), "same_bits": str(same),
        "largest_difference": f"{largest:.3g}",
    }  # fmt: skip


def fast_rows(theirs: int, ours: int) -> Iterator[dict[str, str]]:
    """A row for each case and group of statistics."""
    for case in parity_cases.CASES:
        found = p_values(parity_cases.chains("devinterp", theirs, case), parity_cases.chains("fast", ours, case))
        for group, begins in GROUPS.items():
            p = [value for name, value in found.items() if name.startswith(begins)]
            yield {
                "mode": "fast", "case": case, "compared": group, "arrays": str(len(p)), "p": f"{min(p):.3g}",
                "chains": f"{theirs} and {ours}",
            }  # fmt: skip


def power_rows(theirs: int, ours: int, wrong: tuple[float, float]) -> Iterator[dict[str, str]]:
    """A row for each setting of plain SGLD and each share of it that our sampler takes in its place."""
    right = parity_cases.chains("devinterp", theirs, "sgld")
    for symbol, name in KNOBS.items():
        for share in wrong:
            off = parity_cases.chains("fast", ours, "sgld", **{name: share * parity_cases.SETTINGS[name]})
            yield {
                "mode": "power", "case": f"sgld, {share:g} × {symbol}", "compared": "λ̂", "arrays": "1",
                "p": f"{p_values(right, off)['λ̂']:.3g}", "chains": f"{theirs} and {ours}",
            }  # fmt: skip


def differs(row: Mapping[str, str]) -> bool:
    """Whether a row is not as it should be: the two are not equal, or unequal samplers pass for equal."""
    if row["mode"] == "power":
        return not float(row["p"]) < LEVEL
    if row["mode"] == "exact" and row["compared"].startswith(("compute_bif", "compute_susceptibilities")):
        return not float(row["largest_difference"]) <= SUMS
    if row["mode"] == "exact":
        return row["same_bits"] != row["arrays"]
    return not float(row["p"]) > LEVEL


@contextmanager
def without_checks_and_collections() -> Iterator[None]:
    """Leave out what devinterp does that changes no number.

    It checks its metrics in float32, which fails on float64 weights, and collects garbage twice a chain, which takes
    longer than these chains.
    """
    with mock.patch("torch.testing.assert_close"), mock.patch("devinterp.slt.sampler._gc_and_empty_cache"):
        yield


def main(words: list[str] | None = None) -> int:
    """Compare; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few chains; nothing is written without --output")
    parser.add_argument("--output", type=Path, help="CSV file to write (default: results/parity.csv)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    output = options.output or (None if options.small else RESULTS)
    where, table = facts(), []
    counts = (SMALL_THEIRS, SMALL_OURS) if options.small else (THEIRS, OURS)
    with without_checks_and_collections():
        exact = exact_rows(2 if options.small else 24)
        for row in chain(exact, fast_rows(*counts), power_rows(*counts, SMALL_WRONG if options.small else WRONG)):
            table.append({**row, **where})
            print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
    if output is not None:
        with output.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    found = [row for row in table if differs(row)]
    for row in found:
        print(f"DIFFERS {row['case']}: {row['compared']}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
