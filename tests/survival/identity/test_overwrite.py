"""``overwrite=True`` says what it deletes before it does, and deletes nothing but runs of ours."""

import re
import warnings

import numpy as np
import pytest
from models import Mlp, regression_data, regression_loss

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 1.0, "num_chains": 2, "num_draws": 6, "batch_size": 8,
    "loss_fn": regression_loss, "progress": False,
}  # fmt: skip
TOLD = r"overwrite=True deletes .*run\.zarr \(6 draws of 2 chains, complete, begun 20\d\d-"


def run(path, **changes):
    return sltfast.sample(Mlp(), regression_data(), output_path=path, **{**SETTINGS, **changes})


def test_a_run_is_replaced_after_it_was_told(tmp_path):
    path = tmp_path / "run.zarr"
    run(path)
    with pytest.warns(sltfast.RunDeleted, match=TOLD):
        second = run(path, lr=2e-3, overwrite=True)
    np.testing.assert_array_equal(second["loss"], run(None, lr=2e-3)["loss"])
    assert [one.name for one in tmp_path.iterdir()] == ["run.zarr"]
    with pytest.warns(sltfast.RunDeleted, match=TOLD):  # this very run, too, begins anew
        run(path, lr=2e-3, overwrite=True)


def test_where_nothing_is_nothing_is_told(tmp_path):
    assert run(tmp_path / "run.zarr", overwrite=True).attrs["completed"] == 1


def test_where_warnings_are_errors_nothing_is_deleted(tmp_path):
    path = tmp_path / "run.zarr"
    first = run(path).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sltfast.RunDeleted):
            run(path, lr=2e-3, overwrite=True)
    np.testing.assert_array_equal(sltfast.open(path)["loss"], first["loss"])


def test_a_call_that_is_refused_deletes_nothing(tmp_path):
    path = tmp_path / "run.zarr"
    first = run(path).load()
    x, y = regression_data()
    y[5] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        sltfast.sample(Mlp(), (x, y), output_path=path, overwrite=True, **SETTINGS)
    np.testing.assert_array_equal(sltfast.open(path)["loss"], first["loss"])


def store_of_another(path):
    import zarr

    zarr.open_group(str(path), mode="w").attrs["metadata"] = {"mine": 1}


def folder_with_a_file(path):
    path.mkdir()
    (path / "thesis.txt").write_text("mine")


def file_itself(path):
    path.write_text("mine")


def folder_beside(path):
    (path.parent / f"{path.name}.journal").mkdir()
    (path.parent / f"{path.name}.journal" / "thesis.txt").write_text("mine")


@pytest.mark.parametrize("make", [store_of_another, folder_with_a_file, file_itself, folder_beside])
def test_what_is_no_run_is_left_alone(make, tmp_path):
    path = tmp_path / "run.zarr"
    make(path)
    before = sorted((one, one.read_bytes() if one.is_file() else b"") for one in tmp_path.rglob("*"))
    with pytest.raises(sltfast.OutputMismatch):
        run(path, overwrite=True)
    assert sorted((one, one.read_bytes() if one.is_file() else b"") for one in tmp_path.rglob("*")) == before


def test_restrictions_are_told_in_one_warning_and_their_stale_results_go_with_them(tmp_path):
    def call(**changes):
        data = regression_data()
        return sltfast.susceptibilities(
            Mlp(), data, {"all": (data, 4), "o": (data, 2)}, {"a": "first.*"}, sampling_task="all",
            output_path=tmp_path / "net.zarr", **{**SETTINGS, "num_blocks": 2, **changes},
        )  # fmt: skip

    call()
    folder_with_a_file(tmp_path / "net.bif.zarr")  # the name of a result, and none
    with pytest.raises(sltfast.OutputMismatch, match=r"lr \(0.001 there"):
        call(lr=2e-3)
    with pytest.warns(sltfast.RunDeleted) as caught:
        sltfast.sample_restrictions(
            Mlp(), regression_data(), None, {"a": "first.*"}, output_path=tmp_path / "net.zarr", overwrite=True,
            **SETTINGS,
        )  # fmt: skip
    assert re.search(
        r"net_a\.zarr \(6 draws.*computed from them: .*net\.susceptibilities\.zarr", str(caught[0].message)
    )
    assert len(caught) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.bif.zarr", "net_a.zarr", "net_full.zarr"]


@pytest.mark.parametrize("kind", ["sweep", "checkpoints", "bif", "refined"])
def test_every_call_that_keeps_runs_refuses_another_and_overwrites(kind, tmp_path):
    data, path = regression_data(), tmp_path / "run.zarr"

    def call(**changes):
        keywords = {**SETTINGS, "output_path": path, **changes}
        if kind == "sweep":
            return sltfast.sweep(Mlp(), data, **{**keywords, "lr": [keywords["lr"], 1e-4]})
        if kind == "checkpoints":
            return sltfast.over_checkpoints({5: Mlp()}, data, **keywords)
        if kind == "bif":
            return sltfast.bif(Mlp(), data, {"o": (data, 1)}, **{**keywords, "num_blocks": 2})
        return sltfast.refined_llc(Mlp(), {"train": data}, **keywords)

    call()
    with pytest.raises(sltfast.OutputMismatch, match="n_beta"):
        call(n_beta=11.0)
    with pytest.warns(sltfast.RunDeleted, match="6 draws of [24] chains, complete"):
        call(n_beta=11.0, overwrite=True)
    call(n_beta=11.0)
    with pytest.raises(ValueError, match="overwrite must be True or False"):
        call(overwrite="yes")
