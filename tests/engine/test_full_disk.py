"""A disk that fills up: one error, told once; what was written before is read, and the same call goes on from it."""

import errno
import traceback

import numpy as np
import pytest
from models import tiny_neox, token_rows

import sltfast
from sltfast.results.journal import Journal
from sltfast.sampler import recorder

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 20, "batch_size": 4, "batches_per_draw": 1,
    "progress": False,
}  # fmt: skip
NAMES = {"a": "l0h0", "b": "l1h0", "c": "l1 mlp"}


class Filling:
    """A file on a disk with so many bytes left; what does not fit is written in part."""

    def __init__(self, file, left: int) -> None:
        self.file, self.left = file, left

    def write(self, content: bytes) -> None:
        self.file.write(content[: max(0, self.left)])
        self.left -= len(content)
        self._check()

    def flush(self) -> None:
        self.file.flush()
        self._check()

    def _check(self) -> None:
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str):
        return getattr(self.file, name)


@pytest.mark.parametrize("left", [2000, 9000])
def test_a_full_disk(left, tmp_path, monkeypatch):
    model, data = tiny_neox(), token_rows()
    arguments, path = (model, data, {"o": data}, NAMES), tmp_path / "x.zarr"
    whole = sltfast.sample_restrictions(*arguments, **SETTINGS)
    opened = Journal.__init__

    def filling(self, *given):
        opened(self, *given)
        self._file = Filling(self._file, left)

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "FLUSH_STEPS", 3)
        patch.setattr(Journal, "__init__", filling)
        with pytest.raises(OSError, match="No space left") as caught:
            sltfast.sample_restrictions(*arguments, output_path=path, **SETTINGS)
    told = "".join(traceback.format_exception(caught.value))
    assert "another exception occurred" not in told
    assert "the same call goes on from it" in told
    for name in NAMES:
        for losses in sltfast.open(tmp_path / f"x_{name}.zarr")["loss"].values:
            recorded = np.isfinite(losses)
            assert recorded[: recorded.sum()].all()
    resumed = sltfast.sample_restrictions(*arguments, output_path=path, **SETTINGS)
    for name in NAMES:
        np.testing.assert_array_equal(resumed[name]["loss"], whole[name]["loss"])
