"""kill −9 of a real process at any moment: what was drawn is read, and the same call ends with the same bits."""

import csv
import random
import signal
from pathlib import Path

import pytest
from killed_runs import Warmed, assert_identical, assert_prefixes, runs

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "survival.csv"
EIGHT = ["stacked", "vmap", "sequential", "moments", "covariances", "restrictions", "sweep", "checkpoints"]


@pytest.fixture(scope="module")
def warmed():
    process = Warmed()
    yield process
    process.close()


def kill_and_resume(warmed, folder, kind, moments):
    """Kill a run at shares of a whole run's time, each time resumed; then let it end.

    Returns:
        kills that met the process alive, and the rows that stood after each.
    """
    for name in ("whole", "killed"):
        (folder / name).mkdir(parents=True)
    lasts = warmed.whole(kind, folder / "whole" / "run.zarr")
    held = []
    for moment in moments:
        status = warmed.killed(kind, folder / "killed" / "run.zarr", moment * lasts, signal.SIGKILL)
        assert status in (0, -signal.SIGKILL)
        rows = assert_prefixes(folder / "killed", folder / "whole")
        if status:
            held.append(rows)
    warmed.whole(kind, folder / "killed" / "run.zarr")
    assert_identical(folder / "killed", folder / "whole")
    return held


def test_every_kind_is_killed_once():
    assert sorted(runs()) == sorted(EIGHT)


@pytest.mark.parametrize("kind", EIGHT)
def test_a_killed_run_is_read_and_resumed(warmed, kind, tmp_path):
    number = EIGHT.index(kind)
    moment = (number + random.Random(number).random()) / len(EIGHT)  # one in each eighth of a run: set-up to finishing
    kill_and_resume(warmed, tmp_path, kind, [0.9 * moment])


@pytest.mark.soak
def test_fifty_kills(warmed, tmp_path):
    seeded, rows, left = random.Random(6), [], 50
    while left > 0:
        for kind in EIGHT:
            moments = [seeded.uniform(0.02, 0.95) for _ in range(min(seeded.choice([1, 2, 3]), max(left, 1)))]
            held = kill_and_resume(warmed, tmp_path / f"{len(rows)}", kind, moments)
            left -= len(held)
            rows.append({"run": kind, "kills": len(held), "rows_held": max(held, default=0), "identical": 1})
    with open(RESULTS, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
