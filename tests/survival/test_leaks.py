"""Nothing grows: tensors, modules, threads, descriptors and temporary files after many runs are those after a few."""

import ctypes
import gc
import os
import shutil
import sys
import tempfile
import threading

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

DATA = regression_data()
GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 4, "batch_size": 8, "progress": False}


def alive():
    """What the process holds."""
    gc.collect()
    found = gc.get_objects()
    return {
        "tensors": sum(issubclass(type(one), torch.Tensor) for one in found),
        "modules": sum(issubclass(type(one), torch.nn.Module) for one in found),
        "arrays": sum(issubclass(type(one), np.ndarray) for one in found),
        "threads": sorted(t.name for t in threading.enumerate() if not t.name.startswith("asyncio_")),  # zarr's pool
        "descriptors": len(os.listdir("/proc/self/fd")),
        "temporary files": sorted(os.listdir(tempfile.gettempdir())),
    }


class Mallinfo(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def in_use():
    """Bytes that malloc has given out and not got back, of all threads; and the blocks that Python has.

    Not the resident memory: that has what the allocators hold back as well, which is megabytes more or less by chance.
    """
    gc.collect()
    count = ctypes.CDLL("libc.so.6").mallinfo2
    count.restype = Mallinfo
    found = count()
    return found.uordblks + found.hblkhd, sys.getallocatedblocks()


def divided(model, batch):
    return 1 / 0


class Runs:
    """Short runs of every kind, one a call."""

    def __init__(self, folder):
        self.language_model, self.path, self.count = tiny_neox(), folder / "run", 0

    def __call__(self):
        k, self.count = self.count, self.count + 1
        model = Mlp()
        given = {"loss_fn": regression_loss, **GOOD}
        mode = "train" if k % 3 == 0 else "eval"
        sltfast.sample(model, DATA, {"o": (DATA, 1)}, mode=mode, output_path=self.path if k % 2 else None, **given)
        if self.path.exists():
            sltfast.compute_llc(sltfast.open(self.path))
            shutil.rmtree(self.path)
        if k % 5 == 0:
            rows = token_rows()
            sltfast.sample(
                self.language_model, rows, {"a": (rows, 1), "b": (rows, 1)}, param_masks="l0h1",
                record="moments", sampling_task="a", num_blocks=2, **GOOD,
            )  # fmt: skip
        if k % 7 == 0:
            with pytest.raises(ZeroDivisionError):
                sltfast.sample(model, DATA, **{**given, "loss_fn": divided})
            with pytest.raises(sltfast.AllChainsDied):
                sltfast.sample(model, DATA, **{**given, "lr": 1e30})
            with pytest.raises(ValueError, match="lr must be"):
                sltfast.sample(model, DATA, **{**given, "lr": -1.0})


@pytest.fixture
def short_runs(tmp_path, monkeypatch):
    """Runs whose temporary files, if there are any, are in a folder of their own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return Runs(tmp_path)


pytestmark = [pytest.mark.filterwarnings("ignore:mode='train'"), pytest.mark.filterwarnings("ignore:.*diverged")]


def test_thirty_runs_hold_what_eight_do(short_runs):
    for _ in range(8):  # imports, caches of torch and of zarr's event loop
        short_runs()
    before = alive()
    for _ in range(22):
        short_runs()
    assert alive() == before


@pytest.mark.soak
def test_a_thousand_runs_hold_what_fifty_do(short_runs):
    for _ in range(50):
        short_runs()
    before, (bytes_before, blocks_before) = alive(), in_use()
    for _ in range(1000):
        short_runs()
    assert alive() == before
    bytes_after, blocks_after = in_use()
    assert bytes_after - bytes_before < 1000 * os.sysconf("SC_PAGE_SIZE")  # less than a page a run
    assert blocks_after - blocks_before < 1000  # less than an object a run
