"""Exact runs on disk: read by devinterp, returned, taken up to the same bits, and never mixed up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from devinterp.slt.llc import compute_llc as their_llc
from devinterp.slt.sampling import sample as their_sample

from sltfast.compat.devinterp.optim import SGMCMC
from sltfast.compat.devinterp.slt.sampling import sample
from sltfast.compat.fast_run.stored import AnotherRun
from tests.compat.exact.conftest import Reads
from tests.compat.exact.test_runs_bit_for_bit import SETTINGS, assert_same_bits, quietly


def ours(data: Dataset, path: Path, **changes: Any) -> Any:
    changes = {"model": Reads(), "exact": True, **changes}
    return quietly(sample, changes.pop("model"), data, {"a": (data, 2)}, output_path=path, **{**SETTINGS, **changes})


def test_on_disk_as_in_memory_and_devinterp_reads_it(data: Dataset, tmp_path: Path) -> None:
    theirs = quietly(their_sample, Reads(), data, {"a": (data, 2)}, **SETTINGS)
    tree = ours(data, tmp_path / "run")
    assert_same_bits(theirs, tree)
    assert not (tmp_path / "run.journal").exists()
    assert float(their_llc(tree)["llc_mean"]) == float(their_llc(theirs)["llc_mean"])
    assert_same_bits(tree, ours(data, tmp_path / "run"))


@pytest.mark.parametrize("after", [2, 6])
def test_an_interrupted_run_ends_with_the_same_bits(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Interrupted within the first chain of four steps, or within the second."""
    step, calls = SGMCMC.step, iter(range(100))

    def interrupted(self: SGMCMC) -> None:
        if next(calls) == after:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(SGMCMC, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ours(data, tmp_path / "run")
    taken = []
    monkeypatch.setattr(SGMCMC, "step", lambda self: (taken.append(1), step(self))[1])
    whole, tree = ours(data, tmp_path / "whole"), ours(data, tmp_path / "run")
    for one in (whole, tree):
        del one.attrs["sltfast"]["provenance"]["started"]  # the two began at different moments
    assert_same_bits(whole, tree)
    assert len(taken) == 8 + (8 if after < 4 else 4)  # a chain that was finished is not walked again
    assert not np.isnan(tree["sampling_loss"].values).any()


def test_another_run_is_refused(data: Dataset, tmp_path: Path) -> None:
    ours(data, tmp_path / "run")
    other = Reads()
    other.out.bias.data += 1.0
    with pytest.raises(AnotherRun, match=r"weights \(1 of them: out.bias\)"):
        ours(data, tmp_path / "run", model=other)
    with pytest.raises(AnotherRun, match="restriction"):
        ours(data, tmp_path / "run", param_masks={"out.weight": None})
    with pytest.raises(AnotherRun, match="loop"):
        ours(data, tmp_path / "run", exact=False)
    ours(data, tmp_path / "fast", exact=False)
    with pytest.raises(AnotherRun, match="loop"):
        ours(data, tmp_path / "fast")
