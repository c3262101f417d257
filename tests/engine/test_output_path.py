"""Runs on disk: the same values as in memory, readable when interrupted, resumed bit for bit, never mixed up."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.results.digest import Digest
from sltfast.results.journal import Journal, read_journal
from sltfast.results.layout import ArraySpec
from sltfast.sampler import flight
from sltfast.sampler.run import Run

SMALL = {"lr": 1e-3, "n_beta": 10.0, "localization": 1.0, "num_chains": 3, "num_draws": 70, "batch_size": 8}


def run(path=None, loss_fn=regression_loss, **changes):
    x, y = regression_data()
    return sltfast.sample(
        Mlp(), (x, y), {"o": ((x, y), 1)}, loss_fn=loss_fn, output_path=path, progress=False, **{**SMALL, **changes}
    )


def assert_same(first, second):
    assert set(first.dataset.data_vars) == set(second.dataset.data_vars)
    for name in first.dataset.data_vars:
        np.testing.assert_array_equal(first[name].values, second[name].values, err_msg=name)


def test_disk_and_memory_hold_the_same_values_and_plain_xarray_reads_them(tmp_path):
    path = tmp_path / "run"
    on_disk = run(path, save_metrics=True, num_steps_bw_draws=2, num_burnin_steps=3)
    assert_same(on_disk, run(save_metrics=True, num_steps_bw_draws=2, num_burnin_steps=3))
    plain = xr.open_datatree(path, engine="zarr", consolidated=False)
    assert plain.attrs["completed"] == 1
    assert plain["sampling_loss"].dims == ("chain", "draw", "batch", "token_pos")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # nothing is left beside it


def test_a_complete_run_is_returned_without_sampling(tmp_path, monkeypatch):
    first = run(tmp_path / "run")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "chains", None)  # to sample again would fail
        assert_same(run(tmp_path / "run"), first)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 2e-3}, r"lr \(0.001 there, 0.002 now\)"),
        ({"num_draws": 71}, "num_draws"),
        ({"param_masks": "first.*"}, "restriction"),
        ({"loss_fn": lambda m, b: 2 * regression_loss(m, b)}, "loss"),
        ({"save_token_losses": False}, "arrays"),
    ],
)
def test_another_run_at_the_same_path_is_refused(change, says, tmp_path):
    run(tmp_path / "run")
    with pytest.raises(sltfast.OutputMismatch, match=says):
        run(tmp_path / "run", **change)


def scaled(factor):
    def loss(model, batch):
        return factor * regression_loss(model, batch)

    return loss


def l1(model, batch):
    return torch.nn.functional.l1_loss(model(batch[0]), batch[1], reduction="none")


def mse(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mse, l1),
        (scaled(1.0), scaled(2.0)),
        (lambda m, b: 2.0 * mse(m, b), lambda m, b: 3.0 * mse(m, b)),
        (functools.partial(torch.mul, 2.0), functools.partial(torch.mul, 3.0)),
        (lambda m, b, k=1.0: k * mse(m, b), lambda m, b, k=2.0: k * mse(m, b)),
        (lambda m, b: mse(m, b), lambda m, b: l1(m, b)),
    ],
    ids=["names", "closures", "constants", "partials", "defaults", "globals"],
)
def test_loss_functions_are_told_apart(first, second):
    assert Digest().add(first).hexdigest() == Digest().add(first).hexdigest()
    assert Digest().add(first).hexdigest() != Digest().add(second).hexdigest()


def test_models_are_told_apart_by_buffers_and_attributes():
    def digest(**change):
        model = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
        model[0].running_mean += change.get("mean", 0.0)
        model[0].eps = change.get("eps", 1e-5)
        return Digest().add(model).hexdigest()

    assert digest() == digest()
    assert len({digest(), digest(mean=1.0), digest(eps=1e-3)}) == 3


def test_a_refused_run_leaves_nothing_in_the_way(tmp_path):
    x, y = regression_data()
    x[33] = float("nan")
    arguments = {"loss_fn": regression_loss, "output_path": tmp_path / "run", "progress": False, **SMALL}
    with pytest.raises(ValueError, match=r"NaN|nan"):
        sltfast.sample(Mlp(), (x, y), **arguments)
    assert not list(tmp_path.iterdir())
    sltfast.sample(Mlp(), regression_data(), **arguments)


def test_paths_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run("~/there", num_chains=1)
    run("here", num_chains=1)
    assert sltfast.open(tmp_path / "there").attrs["completed"] == 1
    assert sltfast.open("~/there").attrs["completed"] == sltfast.open("here").attrs["completed"] == 1


def test_another_model_or_other_data_at_the_same_path_are_refused(tmp_path):
    run(tmp_path / "run")
    x, y = regression_data()
    arguments = {"loss_fn": regression_loss, "output_path": tmp_path / "run", "progress": False, **SMALL}
    with pytest.raises(sltfast.OutputMismatch, match="model"):
        sltfast.sample(Mlp(seed=1), (x, y), {"o": ((x, y), 1)}, **arguments)
    y[7] += 1e-3
    with pytest.raises(sltfast.OutputMismatch, match="data"):
        sltfast.sample(Mlp(), (x, y), {"o": ((x, y), 1)}, **arguments)


def test_what_is_no_run_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "free.journal").mkdir()
    (tmp_path / "free.journal" / "notes.txt").write_text("mine")
    for path in (file, folder, tmp_path / "free"):
        with pytest.raises(sltfast.OutputMismatch):
            run(path)
    assert (folder / "notes.txt").read_text() == file.read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        sltfast.open(tmp_path / "nowhere")
    with pytest.raises(sltfast.OutputMismatch):
        sltfast.open(folder)


class Interrupt(Exception):
    """Stands for whatever stops a run."""


def interrupted(path, at, **changes):
    """Run until the loss function has been called ``at`` times in training steps."""
    calls = []

    def stopping(model, batch):
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) > at:
                raise Interrupt
        return regression_loss(model, batch)

    stopping.__qualname__ = regression_loss.__qualname__
    stopping.__code__ = stopping.__code__.replace()
    with pytest.raises(Interrupt):
        run(path, loss_fn=stopping, **changes)
    return stopping


def test_an_interrupted_run_is_readable(tmp_path):
    # the trial, chain 0, most of chain 1
    interrupted(tmp_path / "run", at=1 + 70 + 60, engine="sequential")
    tree = sltfast.open(tmp_path / "run")
    reference = run(engine="sequential")
    assert tree.attrs["completed"] == 0
    np.testing.assert_array_equal(tree["loss"][0], reference["loss"][0])
    np.testing.assert_array_equal(tree["loss"][1, :60], reference["loss"][1, :60])
    np.testing.assert_array_equal(tree["loss_o"][1, :60], reference["loss_o"][1, :60])
    assert np.isnan(tree["loss"][1, 60:]).all()
    assert np.isnan(tree["loss"][2]).all()
    with pytest.warns(UserWarning, match="interrupted: λ̂ is from 1 of 3 chains"):
        result = sltfast.compute_llc(tree)
    assert float(result["llc_per_chain"][0]) == float(sltfast.compute_llc(reference)["llc_per_chain"][0])


@pytest.mark.parametrize("method", ["sgmcmc_sgld", "rmsprop_sgld", "sghmc", "sgnht"])
def test_a_resumed_run_is_bit_identical(tmp_path, monkeypatch, method):
    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)  # a state before every step
    monkeypatch.setattr(flight, "STATE_COST", 0)
    sequential = {"sampling_method": method, "engine": "sequential"}
    loss_fn = interrupted(tmp_path / "run", at=1 + 70 + 33, **sequential)
    calls = []

    def counted(model, batch):
        if torch.is_grad_enabled():
            calls.append(1)
        return regression_loss(model, batch)

    counted.__qualname__, counted.__code__ = loss_fn.__qualname__, counted.__code__
    monkeypatch.setattr("sltfast.results.tree.differences", lambda *compared: [])  # the stand-in losses differ in code
    resumed = run(tmp_path / "run", loss_fn=counted, **sequential)
    assert_same(resumed, run(**sequential))
    assert len(calls) == 1 + 3 * 70 - 70 - 33  # no step was made twice


@pytest.mark.parametrize("method", ["sgmcmc_sgld", "rmsprop_sgld", "sghmc", "sgnht"])
@pytest.mark.parametrize("together", [3, 2])
def test_chains_that_go_together_resume_bit_identical(tmp_path, monkeypatch, method, together):
    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(flight, "STATE_COST", 0)
    plan = {"sampling_method": method, "engine": "stacked", "chains_per_pass": together, "num_steps_bw_draws": 2}
    stop = 140 + 33 if together == 2 else 33  # steps of the first pass, some of the second
    made = []
    step = flight.Flight.step

    def stopping(self, t):
        if len(made) == stop:
            raise Interrupt
        made.append(t)
        step(self, t)

    with monkeypatch.context() as patch:
        patch.setattr(flight.Flight, "step", stopping)
        with pytest.raises(Interrupt):
            run(tmp_path / "run", **plan)
        stop = -1
        made.clear()
        resumed = run(tmp_path / "run", **{**plan, "chains_per_pass": None, "engine": "auto"})  # the plan is on record
    assert made[0] == 32  # a state is saved before a step: the last one made is made again
    assert resumed.attrs["sltfast"]["plan"]["chains_per_pass"] == together
    assert_same(resumed, run(**plan))


def test_a_crash_while_the_store_is_laid_out_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    def crash(*_):
        raise Interrupt

    with monkeypatch.context() as patch:
        patch.setattr("sltfast.results.store.os.replace", crash)
        with pytest.raises(Interrupt):
            run(tmp_path / "run")
    assert_same(run(tmp_path / "run"), run())


def test_a_run_whose_journal_was_removed_starts_anew(tmp_path, monkeypatch):
    interrupted(tmp_path / "run", at=20, num_chains=1)
    shutil.rmtree(tmp_path / "run.journal")
    monkeypatch.setattr("sltfast.results.tree.differences", lambda *compared: [])  # losses differ in code
    assert_same(run(tmp_path / "run", num_chains=1), run(num_chains=1))


def test_a_torn_journal_ends_at_the_tear(tmp_path):
    specs = [ArraySpec("a", ("chain", "step", "x"), (1, 9, 3), "float32", "step")]
    journal = Journal(tmp_path / "j", specs)
    for row in range(5):
        journal.append(0, 0, row, np.full((1, 1, 3), row, np.float32))
    journal.close()
    whole = (tmp_path / "j").read_bytes()
    record = len(whole) // 5
    for cut in (record * 3 + 1, record * 3 + 9, record * 4 - 1):
        (tmp_path / "j").write_bytes(whole[:cut])
        assert [r.row for r in read_journal(tmp_path / "j", specs)] == [0, 1, 2]
    damaged = bytearray(whole)
    damaged[record * 2 + 12] ^= 1
    (tmp_path / "j").write_bytes(bytes(damaged))
    assert [r.row for r in read_journal(tmp_path / "j", specs)] == [0, 1]


SCRIPT = """
    import os, sys, time, torch, sltfast
    sys.path.insert(0, {tests!r})
    from models import Mlp, regression_data, regression_loss
    from sltfast.sampler import flight
    flight.STATE_SECONDS, flight.STATE_COST = 0.05, 0

    def slow(model, batch):
        time.sleep(float(os.environ["PAUSE"]))
        return regression_loss(model, batch)

    print("ready", flush=True)
    where = dict(output_path={path!r}, progress=False, engine={engine!r})
    tree = sltfast.sample(Mlp(), regression_data(), loss_fn=slow, **where, **{settings!r})
    print("complete", flush=True)
"""


def start(path, pause, engine):
    text = SCRIPT.format(tests=str(Path(__file__).parents[1]), path=str(path), settings=SMALL, engine=engine)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PAUSE": str(pause)},
    )


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
@pytest.mark.parametrize(("engine", "pause", "first"), [("sequential", 0.02, 1), ("stacked", 0.06, 0)])
def test_a_stopped_process_is_resumed_bit_for_bit(tmp_path, blow, engine, pause, first):
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    process = start(stopped, pause, engine)
    assert process.stdout.readline() == "ready\n"
    journal = tmp_path / "stopped.journal" / f"chain-{first:04d}.journal"
    while not journal.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(blow)
    process.communicate(timeout=60)
    assert process.returncode != 0
    tree = sltfast.open(stopped)
    assert tree.attrs["completed"] == 0
    if engine == "sequential":
        assert np.isfinite(tree["loss"][0]).all()
    else:
        assert np.isfinite(tree["loss"][:, 0]).all()
    for path in (stopped, straight):
        process = start(path, 0.0, engine)
        out, error = process.communicate(timeout=120)
        assert "complete" in out, error
    assert_same(sltfast.open(stopped), sltfast.open(straight))
