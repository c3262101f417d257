"""kill −9 of a real process at any moment: what was drawn is read, and the same call ends with the same bits."""

import random
import signal

import pytest
from killed_runs import Warmed, assert_identical, assert_prefixes, runs

from benchmarks.survival import record

SAMPLES = ["stacked", "vmap", "sequential", "moments", "covariances", "restrictions", "sweep", "checkpoints"]
TEN = [*SAMPLES, "face", "face_exact"]  # llc, bif and susceptibilities make the runs of SAMPLES: the soak kills them
ALL = [*TEN, "llc", "bif", "susceptibilities"]


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
    assert sorted(runs()) == sorted(ALL)


@pytest.mark.parametrize("kind", TEN)
def test_a_killed_run_is_read_and_resumed(warmed, kind, tmp_path):
    number = TEN.index(kind)
    moment = (number + random.Random(number).random()) / len(TEN)  # one in each tenth of a run: set-up to finishing
    kill_and_resume(warmed, tmp_path, kind, [0.9 * moment])


@pytest.mark.soak
def test_fifty_kills(warmed, tmp_path):
    seeded, held, left = random.Random(6), {kind: [] for kind in ALL}, 50
    while left > 0 or not all(held.values()):
        for kind in ALL:
            moments = [seeded.uniform(0.02, 0.95) for _ in range(seeded.choice([1, 2, 3]))]
            rows = kill_and_resume(warmed, tmp_path / f"{kind} {left} {len(held[kind])}", kind, moments)
            held[kind] += rows
            left -= len(rows)
    record("kill −9", {kind: (len(rows), max(rows)) for kind, rows in held.items()})
