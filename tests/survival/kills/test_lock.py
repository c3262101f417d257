"""Two processes on one path: the second is told who writes; a lock never outlives its holder."""

import errno
import os
import signal
import socket
import threading

import pytest
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.results import lock
from sltfast.results.lock import lock_file, locked
from sltfast.sampler import flight


def run(path):
    return sltfast.sample(
        Mlp(), regression_data(), loss_fn=regression_loss, lr=1e-3, n_beta=10.0, num_draws=5, output_path=path,
        progress=False,
    )  # fmt: skip


def held_by_a_child(path, then=signal.pause):
    """A child that holds the lock of a run until it is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(path):
            os.write(write, b"!")
            then()
        os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return child


def killed(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_second_process_is_told_of_the_first_and_takes_over_when_it_is_dead(tmp_path):
    path = tmp_path / "x.zarr"
    child = held_by_a_child(path)
    with pytest.raises(sltfast.OutputBusy, match=rf"process {child} on {socket.gethostname()} is writing.*wait until"):
        run(path)
    assert not path.exists()
    killed(child)
    assert lock_file(path).exists()
    assert run(path).attrs["completed"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["x.zarr"]


def test_another_call_in_this_process_is_told(tmp_path):
    with locked(tmp_path / "x"), pytest.raises(sltfast.OutputBusy, match="another call in this process"):
        run(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    path, (read, write) = tmp_path / "x", os.pipe()

    def fork_and_wait():
        worker = os.fork()
        if worker == 0:
            signal.pause()
        os.write(write, f"{worker}\n".encode())
        signal.pause()

    child = held_by_a_child(path, fork_and_wait)
    worker = int(os.read(read, 20))
    killed(child)
    with locked(path):  # though a child of the dead holder lives
        pass
    os.kill(worker, signal.SIGKILL)
    os.close(read)
    os.close(write)


def test_without_locks_of_the_file_system_the_process_named_counts(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    path = tmp_path / "x"
    child = held_by_a_child(path)
    with pytest.raises(sltfast.OutputBusy, match=f"process {child} "):
        run(path)
    killed(child)
    with locked(path):
        pass
    lock_file(path).write_text("1 elsewhere\n")
    with pytest.raises(sltfast.OutputBusy, match=r"process 1 on elsewhere.*remove .*x\.lock"):
        run(path)


@pytest.mark.parametrize("twice", [False, True])
def test_interrupted_and_run_again_in_the_same_process(tmp_path, monkeypatch, twice):
    step = flight.Flight.step

    def stopped(self, t):
        step(self, t)
        if t == 40:
            for _ in range(1 + twice):
                os.kill(os.getpid(), signal.SIGINT)

    given = {"loss_fn": regression_loss, "lr": 1e-3, "n_beta": 10.0, "num_draws": 60, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(flight.Flight, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            sltfast.sample(Mlp(), regression_data(), output_path=tmp_path / "x", **given)
    assert "sltfast-writer" not in [thread.name for thread in threading.enumerate()]
    resumed = sltfast.sample(Mlp(), regression_data(), output_path=tmp_path / "x", **given)
    whole = sltfast.sample(Mlp(), regression_data(), **given)
    assert (resumed["loss"].values == whole["loss"].values).all()
    assert [one.name for one in tmp_path.iterdir()] == ["x"]
