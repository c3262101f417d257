"""A result written in place of another: a stop at any moment leaves one of the two, and nothing else for long."""

import errno
import os

import numpy as np
import pytest
import xarray as xr
from power import Disk, restore

from sltfast.errors import OutputBusy
from sltfast.results.computed import UNFINISHED, read, result_path, results_beside, save, saved
from sltfast.results.lock import locked


def result(value):
    data = xr.Dataset({"influences": ("row", np.full(5, float(value)))})
    return xr.DataTree.from_dict({"/": data, "/control": data + 100})


def value_at(path):
    """Which result is there, whole; None where none is."""
    if not path.exists():
        return None
    with read(path) as tree:
        value = float(tree["influences"][0])
        np.testing.assert_array_equal(tree["influences"].values, np.full(5, value))
        np.testing.assert_array_equal(tree["control/influences"].values, np.full(5, value + 100))
    return value


def written(folder, value):
    path = result_path(folder / "x.zarr", "bif")
    save(result(value), path, "bif", f"source {value}")
    return path


def test_power_cuts_leave_the_old_or_the_new(tmp_path, monkeypatch):
    (tmp_path / "cut").mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "cut", patch)
        written(tmp_path / "cut", 1)
        first = len(disk.cuts)
        written(tmp_path / "cut", 2)
        disk.cuts.append(disk.state(0.0))  # after the last promise
    disk.close()
    found = []
    for number, state in enumerate(disk.cuts):
        folder = tmp_path / "after" / str(number)
        restore(state, folder)
        path = result_path(folder / "x.zarr", "bif")
        found.append(value_at(path))
        assert not path.with_name(path.name + UNFINISHED).exists()
        written(folder, 3)
        assert value_at(path) == 3
        assert [one.name for one in folder.iterdir()] == ["x.bif.zarr"]
    assert set(found[:first]) <= {None, 1.0}
    assert set(found[first:]) == {1.0, 2.0}
    assert found[-1] == 2.0
    assert first > 10


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_a_full_store_leaves_the_old(tmp_path, monkeypatch, moment):
    path, count, really = written(tmp_path, 1), 0, os.fsync

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count > moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        try:
            written(tmp_path, 2)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - later moments are past the last promise
    assert value_at(path) in (1.0, 2.0)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("which", [1, 2])
def test_a_stop_between_the_two_renames_is_mended_by_whoever_looks(tmp_path, monkeypatch, which):
    path, count, really = written(tmp_path, 1), 0, os.replace

    def replace(source, target):
        nonlocal count
        if os.path.basename(source) in ("whole", path.name):
            count += 1
            if count == which:
                raise KeyboardInterrupt
        really(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            written(tmp_path, 2)
    assert path.exists() == (which == 1)
    assert results_beside(tmp_path / "x.zarr") == [path]
    assert value_at(path) == float(which)
    assert saved(path, f"source {which}") is not None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_is_being_written_is_left_alone(tmp_path):
    path = written(tmp_path, 1)
    part = path.with_name(path.name + UNFINISHED)
    part.mkdir()
    with locked(path):
        assert result_path(tmp_path / "x.zarr", "bif") == path
        assert part.exists()
        with pytest.raises(OutputBusy, match="x\\.bif\\.zarr"):
            save(result(2), path, "bif")
    assert result_path(tmp_path / "x.zarr", "bif") == path
    assert not part.exists()
    assert value_at(path) == 1
