"""Samplers in threads, forks, workers and event loops: the same bits as alone, and the process as it was."""

import asyncio
import multiprocessing
import os
import random
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.isolation import alone, isolated_rng

DATA = regression_data()
GOOD = {"lr": 1e-2, "n_beta": 10.0, "num_chains": 2, "num_draws": 80, "batch_size": 8, "progress": False}


def run(model, **change):
    return sltfast.sample(model, DATA, {"o": (DATA, 1)}, loss_fn=regression_loss, **{**GOOD, **change})["loss"].values


def in_threads(*calls):
    """What calls return that begin together, each in a thread of its own."""
    results, gate = [None] * len(calls), threading.Barrier(len(calls))

    def work(k):
        gate.wait()
        try:
            results[k] = calls[k]()
        except BaseException as error:
            results[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.filterwarnings("ignore:mode='train'")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_threads_draw_what_each_would_alone_even_of_one_model(mode, tmp_path):
    model, *others = (Mlp(dropout=0.5) for _ in range(4))
    expected = [run(model, mode=mode, init_seed=seed) for seed in range(3)]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    calls = [lambda seed=seed: run(model, mode=mode, init_seed=seed) for seed in range(3)]
    calls += [lambda seed=seed: run(others[seed], mode=mode, init_seed=seed) for seed in range(3)]
    calls += [
        lambda seed=seed: run(model, mode=mode, init_seed=seed, output_path=tmp_path / f"{seed}") for seed in range(3)
    ]
    for got, wanted in zip(in_threads(*calls), expected * 3, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_two_threads_on_one_path_return_one_run(tmp_path):
    first, second = in_threads(*[lambda: run(Mlp(), output_path=tmp_path / "run")] * 2)
    np.testing.assert_array_equal(first, second)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_an_error_in_one_thread_gives_the_turn_back():
    failed, ran = in_threads(lambda: run(Mlp(), lr=-1.0), lambda: run(Mlp()))
    assert isinstance(failed, ValueError)
    np.testing.assert_array_equal(ran, run(Mlp()))

    def broken(model, batch):
        raise ZeroDivisionError

    assert isinstance(in_threads(lambda: sltfast.llc(Mlp(), DATA, loss_fn=broken, **GOOD))[0], ZeroDivisionError)
    np.testing.assert_array_equal(run(Mlp()), ran)


def test_a_call_within_a_loss_has_the_turn_already():
    calls = []

    def nested(model, batch):
        if not calls:
            calls.append(run(Mlp()))
        return regression_loss(model, batch)

    sltfast.llc(Mlp(), DATA, loss_fn=nested, **{**GOOD, "num_draws": 2})
    np.testing.assert_array_equal(calls[0], run(Mlp()))


def test_event_loops_and_generators():
    expected = run(Mlp())

    async def several():
        return await asyncio.gather(*(asyncio.to_thread(run, Mlp()) for _ in range(3)))

    for got in asyncio.run(several()):
        np.testing.assert_array_equal(got, expected)

    def runs():
        for seed in (100, 101):
            yield run(Mlp(), init_seed=seed)

    pair = zip(runs(), runs(), strict=True)  # two suspended in turn
    for first, second in pair:
        np.testing.assert_array_equal(first, second)


def _child(pipe, model, path):
    pipe.send(run(model, output_path=path))
    pipe.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_a_process_that_sampled(method, tmp_path):
    torch.set_num_threads(1)  # a fork of a process with more is warned of
    context, model = multiprocessing.get_context(method), Mlp()
    expected = run(model, output_path=tmp_path / "here")
    for path in (None, tmp_path / method):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(theirs, model, path))
        child.start()
        theirs.close()
        np.testing.assert_array_equal(ours.recv(), expected)
        child.join()
        assert child.exitcode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fork", "here"] if method == "fork" else ["here", "spawn"]


def test_a_fork_while_a_thread_has_the_turn():
    torch.set_num_threads(1)  # a fork of a process with more is warned of
    taken, done = threading.Event(), threading.Event()

    def hold():
        with alone():
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    child = os.fork()
    if child == 0:
        try:
            with isolated_rng(0):
                os._exit(7)
        finally:
            os._exit(1)  # never a second run of the tests that follow
    status = 0
    for _ in range(600):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7


FORKED = """
import os, sys, time, warnings
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(2)
import numpy as np, sltfast

class Wide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(3, 512), torch.nn.Linear(512, 512), torch.nn.Linear(512, 1))

    def forward(self, x):
        return self.inner(x).squeeze(-1)

data = torch.randn(400, 3), torch.randn(400)
loss = lambda model, batch: (model(batch[0]) - batch[1]) ** 2
settings = dict(loss_fn=loss, lr=1e-6, n_beta=10.0, num_chains=4, num_draws=3, batch_size=200, progress=False)
model = Wide()
here = sltfast.sample(model, data, **settings)["loss"].values
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            there = sltfast.sample(model, data, **settings)["loss"].values
    told = [str(one.message) for one in caught]
    assert len(told) == 1 and "this process is a fork" in told[0] and "spawn" in told[0], told
    assert torch.get_num_threads() == 2
    np.testing.assert_allclose(there, here, rtol=1e-4)
    os._exit(7)
for _ in range(1200):
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, 9)
sys.exit("the child waits for threads that are not there")
"""


def test_a_fork_does_not_wait_for_threads_of_its_parent():
    script = FORKED.format(path=[p for p in sys.path if p])
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr[-3000:]


class Stream(torch.utils.data.IterableDataset):
    """Pairs that can only be iterated."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for row in range(first, 40, step):
            yield DATA[0][row], DATA[1][row]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loaders_with_workers(method):
    pairs = list(zip(*DATA, strict=True))
    for data, more in ((pairs, {}), (Stream(), {"buffer_size": 40})):
        alone_, workers = (
            torch.utils.data.DataLoader(
                data, batch_size=8, num_workers=count, multiprocessing_context=method if count else None
            )
            for count in (0, 1)
        )
        settings = {**GOOD, "num_draws": 5, "batch_size": None, **more}
        expected = sltfast.sample(Mlp(), alone_, loss_fn=regression_loss, **settings)["loss"]
        got = sltfast.sample(Mlp(), workers, loss_fn=regression_loss, **settings)["loss"]
        np.testing.assert_array_equal(got, expected)
    assert not multiprocessing.active_children()
