"""Runs on disk that were cut, flipped, emptied or replaced: told in words, never read as values, never destroyed."""

import json
import random
import shutil
import warnings

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.results.state import read_state, write_state
from sltfast.results.store import SPECS, sidecar
from sltfast.sampler import flight

DATA = regression_data()
GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 12, "batch_size": 8, "progress": False}


def run(path, loss_fn=regression_loss, **change):
    return sltfast.sample(Mlp(), DATA, {"o": (DATA, 1)}, loss_fn=loss_fn, output_path=path, **{**GOOD, **change})


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, {name: array.values for name, array in run(path).dataset.data_vars.items()}


def damaged(whole, tmp_path, change):
    path = tmp_path / "run"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole[0], path)
    change(path)
    return path


def refused(path, says):
    """Both ways to read a run refuse it in words, and change nothing."""
    before = everything(path)
    for call in (lambda: sltfast.open(path), lambda: run(path)):
        with pytest.raises(sltfast.OutputMismatch, match=says):
            call()
    assert everything(path) == before


def test_chunks_that_are_cut_missing_or_replaced(whole, tmp_path):
    chunks = [file.relative_to(whole[0]) for file in whole[0].rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert len(chunks) > 10
    for name in chunks:
        refused(damaged(whole, tmp_path, lambda path, name=name: (path / name).unlink()), "damaged: array")
    for name in random.Random(0).sample(chunks, 3):
        for size in (0, 1, 7):
            refused(
                damaged(whole, tmp_path, lambda p, n=name, k=size: (p / n).write_bytes((p / n).read_bytes()[:k])),
                "damaged: array",
            )
        refused(damaged(whole, tmp_path, lambda p, n=name: (p / n).write_bytes(b"x" * 500)), "damaged: array")
        path = damaged(whole, tmp_path, lambda p, n=name: ((p / n).unlink(), (p / n).mkdir()))
        refused(path, "damaged: array.*Put them back, or remove the run")


def test_a_flipped_bit_is_never_read_as_a_value(whole, tmp_path):
    chunks = [file.relative_to(whole[0]) for file in whole[0].rglob("*") if file.is_file() and file.name != "zarr.json"]
    chosen = random.Random(1)

    def flip(path):
        file = path / name
        content = bytearray(file.read_bytes())
        content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        file.write_bytes(bytes(content))

    told = 0
    for name in chunks * 4:  # noqa: B007  (of ``flip``)
        try:
            tree = sltfast.open(damaged(whole, tmp_path, flip))
            read = {key: array.values for key, array in tree.dataset.data_vars.items()}
        except (RuntimeError, ValueError) as error:
            assert "Zstd" in str(error) or "damaged" in str(error)  # noqa: PT017
            told += 1
        else:
            for key, values in whole[1].items():
                np.testing.assert_array_equal(read[key], values)
    assert told > 3 * len(chunks)  # a bit that no reader looks at may flip: the format has a few


@pytest.mark.parametrize("content", [b"", b"{garbage", b"[]", b"null", b"\xff\xfe\x00", b'{"zarr_format": 3}', None])
def test_descriptions_that_are_none(content, whole, tmp_path):
    def change(name):
        def write(path):
            (path / name).unlink() if content is None else (path / name).write_bytes(content)

        return write

    refused(damaged(whole, tmp_path, change("zarr.json")), "no sampling run|can be read|did not write|no metadata")
    refused(damaged(whole, tmp_path, change("loss/zarr.json")), "damaged: array|not a run that can be read")


def test_arrays_that_are_none(whole, tmp_path):
    refused(damaged(whole, tmp_path, lambda path: shutil.rmtree(path / "loss")), "damaged: array 'loss'")

    def file(path):
        shutil.rmtree(path / "loss")
        (path / "loss").write_text("mine")

    refused(damaged(whole, tmp_path, file), "damaged: array 'loss'|Object at loss is not recognized")

    def described(**change):
        def write(path):
            found = json.loads((path / "loss" / "zarr.json").read_text())
            (path / "loss" / "zarr.json").write_text(json.dumps(found | change))

        return write

    pickled = [{"name": "numcodecs.pickle", "configuration": {}}]
    for change in ({"shape": [2, 10**12]}, {"data_type": "int64", "fill_value": 0}, {"codecs": pickled}):
        refused(damaged(whole, tmp_path, described(**change)), "damaged: array|not a run that can be read")


@pytest.mark.parametrize("key", ["metadata", "sltfast"])
def test_attributes_that_are_none(key, whole, tmp_path):
    def attribute(value):
        def write(path):
            found = json.loads((path / "zarr.json").read_text())
            found["attributes"][key] = value
            (path / "zarr.json").write_text(json.dumps(found))

        return write

    for value in (None, "x", [], {}, {"config": None}, {"config": {"sampler": "x"}}):
        path = damaged(whole, tmp_path, attribute(value))
        before = everything(path)
        with pytest.raises(sltfast.OutputMismatch):
            run(path)
        if key == "metadata":
            with pytest.raises(sltfast.OutputMismatch, match=r"damaged|no metadata"):
                sltfast.open(path)
        else:  # a run of another package has no attribute of ours
            np.testing.assert_array_equal(sltfast.open(path)["loss"], whole[1]["loss"])
        assert everything(path) == before


def test_a_damaged_run_is_replaced_where_that_is_asked_for(whole, tmp_path):
    path = damaged(whole, tmp_path, lambda path: shutil.rmtree(path / "loss"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is deleted
        np.testing.assert_array_equal(run(path, overwrite=True)["loss"], whole[1]["loss"])
    np.testing.assert_array_equal(sltfast.open(path)["loss"], whole[1]["loss"])


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that was stopped on its way, its state saved at every step."""
    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(flight, "STATE_COST", 0)

    def again():
        return run(tmp_path / "run", loss_fn=regression_loss)

    real, steps = flight.Flight.step, []

    def step(self, k):
        if k == 7 and not steps:
            steps.append(k)
            raise KeyboardInterrupt
        real(self, k)

    monkeypatch.setattr(flight.Flight, "step", step)
    with pytest.raises(KeyboardInterrupt):
        again()
    return tmp_path / "run", again


def test_journals_and_states_of_garbage(stopped, whole):
    path, again = stopped
    side = sidecar(path)
    files = {p.name: p for p in side.iterdir()}
    state = next(p for name, p in files.items() if name.endswith(".state"))
    journal = next(p for name, p in files.items() if name.endswith(".journal"))
    kept = everything(side)

    def restore():
        for name, content in kept.items():
            (side / name).write_bytes(content)

    for content in (b"", b"garbage" * 40, kept[journal.name][:-3], kept[journal.name] + b"\x00" * 50):
        journal.write_bytes(content)
        assert 0 <= np.isfinite(sltfast.open(path)["loss"].values).sum() <= 14
    restore()
    for content in (b"", b"[]", b"{", b'[["loss"]]', b"\xff"):
        (side / SPECS).write_bytes(content)
        if content == b"[]":
            continue
        with pytest.raises(sltfast.OutputMismatch, match=r"specs\.json is damaged"):
            sltfast.open(path)
    restore()
    state.write_bytes(kept[state.name][:100])
    with pytest.warns(UserWarning, match="is damaged: its chains begin anew"):
        np.testing.assert_array_equal(again()["loss"], whole[1]["loss"])
    assert [p.name for p in path.parent.iterdir()] == ["run"]


def test_states_are_whole_or_none(tmp_path):
    file, chosen = tmp_path / "x.state", random.Random(2)
    write_state(file, {"step": 3, "w0": torch.arange(500.0)})
    content = file.read_bytes()
    assert torch.equal(read_state(file)["w0"], torch.arange(500.0))
    assert read_state(tmp_path / "none.state") is None
    for _ in range(60):
        flipped = bytearray(content)
        flipped[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        file.write_bytes(bytes(flipped))
        with pytest.warns(UserWarning, match="is damaged"):
            assert read_state(file) is None
    for size in (0, 3, 8, 100, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.warns(UserWarning, match="is damaged"):
            assert read_state(file) is None
