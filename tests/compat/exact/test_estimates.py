"""Estimates in the exact mode: the LLC has devinterp's bits; the others are their own sums of devinterp's bits."""

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from devinterp.slt.llc import compute_llc as their_compute_llc
from devinterp.slt.llc import llc as their_llc
from devinterp.slt.sampling import sample as their_sample

from sltfast.compat.devinterp import exact
from sltfast.compat.devinterp.slt.bif import bif, compute_bif
from sltfast.compat.devinterp.slt.llc import compute_llc, llc
from sltfast.compat.devinterp.slt.susceptibilities import compute_susceptibilities, susceptibilities
from tests.compat.exact.conftest import Reads
from tests.compat.exact.test_runs_bit_for_bit import SETTINGS, quietly

BURNT = {**SETTINGS, "num_burnin_steps": 2, "gradient_accumulation_steps": 2}


def assert_same(theirs: Any, ours: Any) -> None:
    assert set(theirs.data_vars) == set(ours.data_vars)
    for name, array in theirs.data_vars.items():
        assert (array.dims, array.dtype) == (ours[name].dims, ours[name].dtype), name
        assert np.array_equal(array.values, ours[name].values, equal_nan=array.dtype.kind == "f"), name


def test_llc(data: Dataset) -> None:
    theirs = quietly(their_llc, Reads(), data, {}, **BURNT)
    assert_same(theirs, quietly(llc, Reads(), data, {}, exact=True, **BURNT))
    with exact():
        assert_same(theirs, quietly(llc, Reads(), data, {}, **BURNT))


def test_llc_of_dead_chains(data: Dataset) -> None:
    samples = quietly(their_sample, Reads(), data, {}, **{**SETTINGS, "lr": 3e36})
    assert np.isnan(samples["sampling_loss_micro"].values).any()
    assert_same(quietly(their_compute_llc, samples), quietly(compute_llc, samples, exact=True))


@pytest.mark.parametrize("changes", [{}, {"correlation_method": "sequence"}, {"compute_covariance": True}])
def test_bif(data: Dataset, changes: dict[str, Any]) -> None:
    theirs = quietly(their_sample, Reads(), data, {"a": (data, 2), "b": (data, 1)}, **SETTINGS)
    ours = quietly(bif, Reads(), data, {"a": (data, 2), "b": (data, 1)}, exact=True, **changes, **SETTINGS)
    assert_same(quietly(compute_bif, theirs, **changes), ours)


def test_susceptibilities(data: Dataset) -> None:
    restrictions: dict[str, Any] = {"full": None, "out": {"out.weight": None}, "mix": {"mix.weight": torch.eye(5) > 0}}
    observables = {"a": (data, 2), "b": (data, 1)}
    theirs = {
        name: quietly(their_sample, Reads(), data, observables, param_masks=masks, **SETTINGS)
        for name, masks in restrictions.items()
    }
    ours = quietly(
        susceptibilities, Reads(), data, observables, restrictions, sampling_task="a", exact=True, **SETTINGS
    )
    wanted = quietly(compute_susceptibilities, theirs, "a")
    assert set(wanted.children) == set(ours.children) == {"susceptibilities", "context"}
    for name, group in wanted.children.items():
        assert_same(group.dataset, ours[name].dataset)
