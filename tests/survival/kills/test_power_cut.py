"""A power cut at any moment: of what was not yet on disk all, part or nothing is left, and the run goes on from it.

Before each ``fsync`` of a run the states that a cut could leave are built, opened and resumed.
"""

import numpy as np
import pytest
from killed_runs import assert_prefixes
from models import Mlp, regression_data, regression_loss
from power import Disk, restore

import sltfast
from benchmarks.survival import record
from sltfast.sampler import flight, recorder

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "num_chains": 3, "num_draws": 60, "batch_size": 8, "progress": False,
    "engine": "stacked", "chains_per_pass": 2, "loss_fn": regression_loss,
}  # fmt: skip


def run(path=None):
    return sltfast.sample(Mlp(), regression_data(), {"o": (regression_data(), 1)}, output_path=path, **SETTINGS)


def cuts_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(flight, "STATE_SECONDS", 0.01)
    monkeypatch.setattr(flight, "STATE_COST", 0)
    monkeypatch.setattr(recorder, "FLUSH_STEPS", 7)
    (tmp_path / "cut").mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "cut", patch)
        run(tmp_path / "cut" / "x.zarr")
    disk.close()
    return disk.cuts


def check(cuts, resumed, tmp_path):
    """Every state is opened, those of ``resumed`` are gone on from; returns the rows that each held."""
    (tmp_path / "whole").mkdir()
    whole, held = run(tmp_path / "whole" / "x.zarr").load(), []
    for number, state in enumerate(cuts):
        folder = tmp_path / "after" / str(number)
        restore(state, folder)
        held.append(assert_prefixes(folder, tmp_path / "whole"))
        if number in resumed:
            got = run(folder / "x.zarr").load()
            for name in whole.dataset.data_vars:
                np.testing.assert_array_equal(got[name].values, whole[name].values, err_msg=f"{number} {name}")
            assert [path.name for path in folder.iterdir()] == ["x.zarr"]
    return held


def test_power_cuts(tmp_path, monkeypatch):
    cuts = cuts_of_a_run(tmp_path, monkeypatch)
    cuts = cuts[:: max(1, len(cuts) // 40) | 1]  # odd: of both kinds
    check(cuts, set(range(0, len(cuts), 2)), tmp_path)


@pytest.mark.soak
def test_power_cuts_before_every_promise(tmp_path, monkeypatch):
    cuts = cuts_of_a_run(tmp_path, monkeypatch)
    held = check(cuts, set(range(len(cuts))), tmp_path)
    record("power cut", {"stacked": (len(held), max(held))})
