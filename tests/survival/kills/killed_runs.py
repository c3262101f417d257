"""Runs made in forks of one warmed process, so that they can be killed for real, soon and often.

As a program it reads "kind path" lines, forks a child that makes the run, prints the child's process id and, once it
ended, its status (0 whole, −9 killed).
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[3]


def runs():
    """What can be run: {kind: function of a path}."""
    from models import Mlp, regression_data, regression_loss

    import sltfast
    from benchmarks import parity_cases
    from sltfast.compat.devinterp.slt import sampling as face

    data = regression_data()
    settings = {
        "lr": 1e-3, "n_beta": 10.0, "localization": 1.0, "num_chains": 4, "batch_size": 8, "num_burnin_steps": 20,
        "progress": False, "loss_fn": regression_loss,
    }  # fmt: skip
    seen = {"o": (data, 2)}

    def one(**changes):
        given = {**settings, "num_draws": 120, **changes}
        return lambda path: sltfast.sample(Mlp(), data, seen, output_path=path, **given)

    def restrictions(path):
        masks = {"first": "first.*", "second": "second.*"}
        sltfast.sample_restrictions(Mlp(), data, seen, masks, output_path=path, num_draws=80, **settings)

    def sweep(path):
        grid = {**settings, "lr": [1e-3, 2e-3], "n_beta": [5.0, 10.0], "num_chains": 2}
        sltfast.sweep(Mlp(), data, output_path=path, num_draws=100, **grid)

    def checkpoints(path):
        models = [Mlp(seed) for seed in range(3)]
        sltfast.over_checkpoints(models, data, output_path=path, num_draws=60, **settings)

    model, tokens = parity_cases.reader(), parity_cases.data()

    def face_of(exact, **changes):
        given = {**parity_cases.SETTINGS, "num_burnin_steps": 4, "num_chains": 3, **changes}
        return lambda path: face.sample(model, tokens, {"o": (tokens, 1)}, exact=exact, output_path=path, **given)

    def llc(path):
        sltfast.llc(Mlp(), data, observables=seen, output_path=path, num_draws=120, **settings)

    def bif(path):
        sltfast.bif(Mlp(), data, seen, output_path=path, num_draws=120, num_blocks=4, **settings)

    def susceptibilities(path):
        parts = {"first": "first.*", "second": "second.*"}
        two = {**seen, "other": (data, 1)}
        sltfast.susceptibilities(Mlp(), data, two, parts, sampling_task="o", output_path=path, num_draws=60, **settings)

    return {
        "stacked": one(engine="stacked", chains_per_pass=2, save_metrics=True),
        "vmap": one(engine="vmap", sampling_method="rmsprop_sgld", record_weights="second.*"),
        "sequential": one(engine="sequential", num_draws=40, gradient_accumulation_steps=2),
        "moments": one(record="moments", sampling_task="o", num_blocks=5),
        "covariances": one(record="covariances", sampling_task="o", num_blocks=3),
        "restrictions": restrictions,
        "sweep": sweep,
        "checkpoints": checkpoints,
        "face": face_of(exact=False, num_draws=120),
        "face_exact": face_of(exact=True, num_draws=40),
        "llc": llc,
        "bif": bif,
        "susceptibilities": susceptibilities,
    }


def serve():
    """Fork a child for each line of the input."""
    sys.path.insert(0, str(ROOT / "tests"))
    import zarr  # noqa: F401

    from sltfast.results import zarr_files  # noqa: F401
    from sltfast.sampler import flight, recorder

    flight.STATE_SECONDS, flight.STATE_COST = 0.02, 0
    recorder.FLUSH_STEPS = 7
    made = runs()
    made["stacked"](None)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split(" ", 1)
        child = os.fork()
        if child == 0:
            try:
                made[kind](path)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Warmed:
    """The process that forks."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, kind, path):
        print(kind, path, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def ended(self):
        """The status of the child that was started last."""
        return int(self.process.stdout.readline())

    def whole(self, kind, path):
        """Make a run to its end; returns the seconds that it took."""
        begun = time.monotonic()
        self.start(kind, path)
        assert self.ended() == 0
        return time.monotonic() - begun

    def killed(self, kind, path, after, signal):
        """Make a run and stop it after some seconds; returns its status."""
        child = self.start(kind, path)
        time.sleep(after)
        with suppress(ProcessLookupError):  # it was faster
            os.kill(child, signal)
        return self.ended()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def stores(folder):
    """The runs under a folder, by their paths in it."""
    found = [path.parent for path in folder.rglob("zarr.json") if ".journal" not in str(path)]
    return {str(path.relative_to(folder)): path for path in sorted(found) if not (path.parent / "zarr.json").exists()}


def assert_prefixes(folder, reference):
    """What the runs in a folder hold is what the whole ones hold, up to some step; returns the rows held."""
    import sltfast
    from sltfast.results.computed import is_result

    held = 0
    for name, path in stores(folder).items():
        if is_result(path):  # written whole or not at all, and anew by the call that goes on
            continue
        tree, whole = sltfast.open(path).load(), sltfast.open(reference / name)
        for key, values in whole.dataset.data_vars.items():
            got, full = tree.dataset[key].values, values.values
            if full.dtype.kind == "f":
                assert ((got == full) | np.isnan(got)).all(), (name, key)
        losses = tree.dataset["loss"] if "loss" in tree.dataset else tree.dataset["sampling_loss"][..., 0, 0]
        recorded = np.isfinite(losses.values)
        for row in recorded.reshape(-1, recorded.shape[-1]):
            assert row[: row.sum()].all(), name
        held += int(recorded.sum())
    return held


def assert_identical(folder, reference):
    """Every array of every run is the same, bit for bit, and no file is left that the whole runs do not have."""
    import sltfast
    from sltfast.results.computed import is_result, read

    def files(root):
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))

    for name, path in stores(reference).items():
        if is_result(path):
            for one, other in zip(read(folder / name).subtree, read(path).subtree, strict=True):
                assert one.dataset.equals(other.dataset), (name, one.path)
            continue
        got, whole = sltfast.open(folder / name).load(), sltfast.open(path).load()
        assert set(got.dataset.data_vars) == set(whole.dataset.data_vars)
        for key in whole.dataset.data_vars:
            np.testing.assert_array_equal(got.dataset[key].values, whole.dataset[key].values, err_msg=f"{name} {key}")
    assert files(folder) == files(reference)


if __name__ == "__main__":
    serve()
