"""Estimates of one tree, by devinterp and by its face: trees and estimates of either are read by the other."""

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from datasets import Dataset
from devinterp.slt.bif import bif as their_bif
from devinterp.slt.bif import compute_bif as their_compute_bif
from devinterp.slt.llc import compute_llc as their_compute_llc
from devinterp.slt.sampling import sample as their_sample
from devinterp.slt.susceptibilities import compute_susceptibilities as their_compute_susceptibilities
from devinterp.slt.susceptibilities import susceptibilities as their_susceptibilities
from torch import nn

from sltfast.compat.devinterp.slt.bif import bif, compute_bif
from sltfast.compat.devinterp.slt.llc import compute_llc
from sltfast.compat.devinterp.slt.sampling import sample
from sltfast.compat.devinterp.slt.susceptibilities import compute_susceptibilities, susceptibilities
from sltfast.compat.devinterp.slt.weight_restrictions import create_param_masks

SETTINGS: dict[str, Any] = {
    "lr": 1e-2,
    "n_beta": 5.0,
    "num_chains": 2,
    "num_draws": 20,
    "batch_size": 4,
    "num_init_loss_batches": 3,
    "localization": 1.0,
}
# float32 losses near 4 that vary by 0.02 carry 2^-24·4/0.02 ≈ 1e-5 of their deviation; devinterp sums them in float32
ROUNDED = 1e-3


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def assert_same(theirs: xr.Dataset, ours: xr.Dataset, tolerance: float) -> None:
    assert list(theirs.data_vars) == list(ours.data_vars)
    assert set(theirs.coords) == set(ours.coords)
    assert theirs.attrs == ours.attrs
    for name in theirs.variables:
        wanted, got = theirs[name], ours[name]
        assert (wanted.dims, wanted.dtype, wanted.shape) == (got.dims, got.dtype, got.shape), name
        if wanted.dtype.kind == "f":
            atol = tolerance * np.abs(wanted.values).max()
            np.testing.assert_allclose(got, wanted, rtol=0, atol=atol, err_msg=str(name))
        else:
            assert np.array_equal(wanted.values, got.values), name


def observables(data: Dataset) -> dict[str, Any]:
    return {"a": (data, 2), "1 b": data}


@pytest.fixture(scope="module")
def restrictions(model: nn.Module) -> dict[str, Any]:
    return {"full": None, "head": create_param_masks(model, "l0h1"), "l1": create_param_masks(model, "l1")}


@pytest.fixture(scope="module")
def trees(model: nn.Module, data: Dataset, restrictions: dict[str, Any]) -> dict[str, dict[str, xr.DataTree]]:
    def of(function: Any) -> dict[str, xr.DataTree]:
        return {
            name: quietly(function, model, data, observables(data), param_masks=masks, **SETTINGS)
            for name, masks in restrictions.items()
        }

    return {"theirs": of(their_sample), "ours": of(sample)}


@pytest.mark.parametrize("whose", ["theirs", "ours"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"correlation_method": "sequence"},
        {"average_tokenwise_bif": True},
        {"compute_covariance": True},
        {"reduce_chain_dimension_method": "mean"},
        {"loss_keys": ["a"], "batch_index_range_1": [3, 1], "batch_index_range_2": range(4), "batch_size": 2},
        {"correlation_method": "sequence", "compute_covariance": True, "batch_index_range_2": [2]},
    ],
    ids=str,
)
def test_bif_of_a_tree(trees: Any, whose: str, options: dict[str, Any]) -> None:
    tree = trees[whose]["full"]
    assert_same(quietly(their_compute_bif, tree, **options), compute_bif(tree, **options), ROUNDED)


@pytest.mark.parametrize("whose", ["theirs", "ours"])
@pytest.mark.parametrize("options", [{}, {"include_sampling_task": True}, {"observable_names": ["a", "1 b"]}], ids=str)
def test_susceptibilities_of_trees(trees: Any, whose: str, options: dict[str, Any]) -> None:
    theirs = their_compute_susceptibilities(trees[whose], "a", **options)
    ours = compute_susceptibilities(trees[whose], "a", **options)
    assert list(theirs.children) == list(ours.children)
    for child in theirs.children:
        assert_same(theirs[child].to_dataset(), ours[child].to_dataset(), ROUNDED)


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_llc_of_a_tree(trees: Any, whose: str) -> None:
    # λ̂ is n_beta times a difference of losses near 4 that float32 means round by 2^-24·4
    tree = trees[whose]["full"]
    theirs, ours = their_compute_llc(tree), compute_llc(tree)
    assert list(theirs.data_vars) == list(ours.data_vars)
    for name in theirs.data_vars:
        assert (theirs[name].dims, theirs[name].dtype) == (ours[name].dims, ours[name].dtype)
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=2e-5, err_msg=str(name))


def test_bif_of_one_call(model: nn.Module, data: Dataset) -> None:
    settings = {**SETTINGS, "noise_level": 0.0}
    theirs = quietly(their_bif, model, data, observables(data), **settings)
    assert_same(theirs, quietly(bif, model, data, observables(data), **settings), ROUNDED)


@pytest.mark.parametrize("task_too", [False, True])
def test_susceptibilities_of_one_call(
    model: nn.Module, data: Dataset, restrictions: dict[str, Any], task_too: bool
) -> None:
    settings = {**SETTINGS, "noise_level": 0.0, "sampling_task": "a", "include_sampling_task": task_too, "num_draws": 5}
    theirs = quietly(their_susceptibilities, model, data, observables(data), restrictions, **settings)
    ours = quietly(susceptibilities, model, data, observables(data), restrictions, **settings)
    for child in theirs.children:
        assert_same(theirs[child].to_dataset(), ours[child].to_dataset(), ROUNDED)
