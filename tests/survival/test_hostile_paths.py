"""Places and names that are odd, taken or forbidden: written to faithfully, or refused with nothing destroyed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from models import Mlp, regression_data, regression_loss

import sltfast

DATA = regression_data()
GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 1, "num_draws": 2, "batch_size": 8, "progress": False}


def run(path, observables=None, **change):
    return sltfast.sample(
        Mlp(), DATA, observables, loss_fn=regression_loss, output_path=path, batches_per_draw=1, **{**GOOD, **change}
    )


def everything(folder):
    """Every file below a folder, and what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


ODD = ["a b", "ä", "日本 語", "a.b.c", "x'y\"z", "#?*", "-rf", "a\nb", "~", "😀", "%s{}", "n" * 239]


def test_odd_names_of_folders_are_names(tmp_path):
    expected = run(None)["loss"].values
    for name in ODD:
        np.testing.assert_array_equal(run(tmp_path / name)["loss"].values, expected)
        np.testing.assert_array_equal(sltfast.open(tmp_path / name)["loss"].values, expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(ODD)


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "../x", "ä ö", "日本", "a\0b", "0", ".", "chain", "draw", "\n", "\ud800", "😀", "x" * 200]
)
def test_odd_names_of_observables_are_names(name, tmp_path):
    tree = run(tmp_path / "run", {name: DATA})
    (mean,) = (key for key in tree.dataset.data_vars if key.startswith("mean_loss_"))
    assert np.isfinite(sltfast.open(tmp_path / "run")[mean].values).all()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["x" * 201], "201 bytes.*at most 200"),
        (["日" * 70], "210 bytes"),
        (["a b", "a_b"], "rename one"),
        (["trace"], "init_loss_trace"),
        (["mean"], "init_loss_mean"),
        (["dataset"], "init_loss_dataset"),
    ],
)
def test_names_that_would_become_others_are_refused(names, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        run(tmp_path / "run", dict.fromkeys(names, DATA))
    assert not list(tmp_path.iterdir())


def test_names_of_restrictions_that_would_share_a_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one file: rename one"):
        sltfast.sample_restrictions(
            Mlp(), DATA, None, {"a b": None, "a/b": None}, loss_fn=regression_loss, output_path=tmp_path / "run", **GOOD
        )
    for name in ("../../up", "日本 語", "", "r" * 300):
        arguments = {"loss_fn": regression_loss, "output_path": tmp_path / "run", **GOOD}
        if len(name) > 239:
            with pytest.raises(ValueError, match="at most 239"):
                sltfast.sample_restrictions(Mlp(), DATA, None, {name: None}, **arguments)
        else:
            sltfast.sample_restrictions(Mlp(), DATA, None, {name: None}, **arguments)
    assert all(p.name.startswith("run_") and p.is_dir() for p in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (1, TypeError), ("", TypeError), (" ", TypeError), (b"x", TypeError), ("a\0b", ValueError), ("/", ValueError),
        ("x" * 300, ValueError), ("/".join(["d" * 200] * 30), ValueError), ("/dev/null/x", NotADirectoryError),
        ("/dev/null", sltfast.OutputMismatch), (os.path.join(__file__, "x"), NotADirectoryError),
        (__file__, sltfast.OutputMismatch),
    ],
    ids=range(12),
)  # fmt: skip
def test_paths_that_are_none(path, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = Path(__file__).read_bytes()
    with pytest.raises(error, match="output_path"):
        run(path)
    with pytest.raises((TypeError, ValueError, OSError)):
        sltfast.open(path)
    assert not list(tmp_path.iterdir())
    assert Path(__file__).read_bytes() == mine


def test_what_others_keep_at_the_path_stays(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / "beside.journal").mkdir()
    (tmp_path / "beside.journal" / "file").write_text("mine")
    (tmp_path / "named.journal").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    group = zarr.open_group(str(tmp_path / "group"), mode="w")
    group.create_array("a", shape=(3,), dtype="f4")
    group.attrs["sltfast"] = 1
    zarr.save_array(str(tmp_path / "array"), np.ones(3))
    before = everything(tmp_path)
    for overwrite in (False, True):
        for name in ("precious", "beside", "named", "group", "array"):
            with pytest.raises(sltfast.OutputMismatch):
                run(tmp_path / name, overwrite=overwrite)
        with pytest.raises(ValueError, match="leads nowhere"):
            run(tmp_path / "loop", overwrite=overwrite)
    assert everything(tmp_path) == before
    for name in ("precious", "group", "array", "named.journal"):
        with pytest.raises(sltfast.OutputMismatch):
            sltfast.open(tmp_path / name)


FORBIDDEN = """
import os, sys
sys.path[:0] = {path!r}
import pytest
import test_hostile_paths as tests
import sltfast
tests.run(None), tests.run({folder!r} + "/done")  # all that is imported is imported now
if os.getuid() == 0:  # root may write anywhere
    os.setgid(65534), os.setuid(65534)
with pytest.raises(PermissionError, match="may not be written to; give another path"):
    tests.run({folder!r} + "/new")
with pytest.raises(PermissionError, match="may not be written to; give another path"):
    tests.run({folder!r} + "/new/deep/er")
tests.run({folder!r} + "/done")
tests.np.testing.assert_array_equal(sltfast.open({folder!r} + "/done")["loss"], tests.run(None)["loss"])
with pytest.raises(sltfast.OutputMismatch, match="lr"):
    tests.run({folder!r} + "/done", lr=2e-3)
"""


def test_a_folder_that_may_not_be_written_to():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are hidden from anyone but their owner
        folder = Path(name)
        run(folder / "done")
        folder.chmod(0o555)
        before = everything(folder)
        path = [str(Path(__file__).parent), *(p for p in sys.path if p)]
        script = FORBIDDEN.format(path=path, folder=name)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300, check=False
        )
        folder.chmod(0o755)
        assert done.returncode == 0, done.stderr[-3000:]
        assert everything(folder) == before
