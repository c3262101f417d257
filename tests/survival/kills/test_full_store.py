"""A store that runs full at any write: one error that says where and how to go on, and then the same bits."""

import errno
import os
import subprocess
import sys
import traceback

import limited_files
import numpy as np
from killed_runs import assert_identical, assert_prefixes
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.sampler import flight, recorder

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 12, "batch_size": 8, "progress": False,
    "engine": "stacked", "chains_per_pass": 1, "loss_fn": regression_loss,
}  # fmt: skip


def run(path, **changes):
    data = regression_data()
    return sltfast.sample(Mlp(), data, {"o": (data, 1)}, output_path=path, **{**SETTINGS, **changes})


def promises(monkeypatch, path, full_from):
    """Make a run on a disk that is full from this ``fsync`` on; returns how many there were, and the error."""
    count, really = 0, os.fsync

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count > full_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        try:
            run(path)
        except OSError as error:
            return count, error
    return count, None


def test_full_from_every_write_on(tmp_path, monkeypatch):
    monkeypatch.setattr(flight, "STATE_SECONDS", 1e9)
    monkeypatch.setattr(recorder, "FLUSH_STEPS", 4)
    writes, _ = promises(monkeypatch, tmp_path / "whole" / "x.zarr", 10**9)
    whole = sltfast.open(tmp_path / "whole" / "x.zarr").load()
    step = max(1, writes // 9)
    assert writes > 40
    for left in range(0, writes - 1, step):
        folder = tmp_path / str(left)
        _, error = promises(monkeypatch, folder / "x.zarr", left)
        told = "".join(traceback.format_exception(error))
        assert f"while writing {folder / 'x.zarr'}; whole it takes up to" in told
        assert "MB are free there: make room" in told
        assert "another exception" not in told
        assert_prefixes(folder, tmp_path / "whole")
        resumed = run(folder / "x.zarr").load()
        for name in whole.dataset.data_vars:
            np.testing.assert_array_equal(resumed[name].values, whole[name].values, err_msg=f"{left} {name}")
        assert [path.name for path in folder.iterdir()] == ["x.zarr"]


def test_files_that_may_not_grow(tmp_path):
    stopped, whole = tmp_path / "stopped" / "x.zarr", tmp_path / "whole" / "x.zarr"
    words = [sys.executable, limited_files.__file__, str(stopped), "20000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"{errno.EFBIG} ")
    assert str(stopped) in done.stdout
    assert "ulimit -f" in done.stdout
    limited_files.run(whole)
    assert 0 < assert_prefixes(stopped.parent, whole.parent) < 400
    limited_files.run(stopped)
    assert_identical(stopped.parent, whole.parent)
    assert [one.name for one in stopped.parent.iterdir()] == ["x.zarr"]
