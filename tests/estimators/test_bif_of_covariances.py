"""A run that records covariances by block of draws gives what its twin that keeps every draw gives."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import sltfast

SETTINGS = {
    "lr": 2e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 3, "num_draws": 107, "batch_size": 4,
    "num_init_loss_batches": 0, "progress": False,
}  # fmt: skip
# Losses are float32 in the traces, of size 1 to 10 and spread 0.1 to 1: a covariance errs by 1e-6 of it and less.
CLOSE = {"rtol": 0, "atol": 1e-5}


def data(rows, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=random), torch.randn(rows, 20, generator=random)


def squared(model, batch):
    x, y = batch
    return 0.5 * (model(x) - y) ** 2


def run(record):
    torch.manual_seed(0)
    observables = {"b": (data(4, 1), 1), "a": (data(8, 2), 2)}
    return sltfast.sample(nn.Linear(3, 20), data(16, 0), observables, loss_fn=squared, record=record, **SETTINGS)


@pytest.fixture(scope="module")
def both():
    return run("traces"), run("covariances")


def same(call, both, names, **options):
    expected, found = (call(samples, **options) for samples in both)
    assert set(found.data_vars) == set(expected.data_vars)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)
    return expected, found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": True},
        {"batch_index_range_1": [5, 0, 9], "normalize": True},
        {"loss_keys": ["b", "a"], "loss_keys_1": ["b"], "loss_keys_2": ["a"]},
        {"loss_keys": ["b"]},
    ],
)
def test_influences_errors_and_parts(both, options):
    names = ("influences", "influences_se", "within", "between")
    expected, found = same(
        sltfast.compute_bif, both, names, correlation_method="sequence", separate_chains=True, **options
    )
    xr.testing.assert_equal(found.coords.to_dataset(), expected.coords.to_dataset())
    assert found.attrs["draws"] == expected.attrs["draws"] == 3 * 107


def test_neighbours_kernel_and_groups(both):
    best, again = same(
        sltfast.compute_bif, both, ["influences", "influences_se"], correlation_method="sequence", top_k=3
    )
    np.testing.assert_array_equal(again["neighbour_batch"], best["neighbour_batch"])
    same(sltfast.compute_loss_kernel, both, ["kernel", "kernel_se", "correlation", "correlation_se"])
    points = [sltfast.embed(samples)["embedding"] for samples in both]
    np.testing.assert_allclose(np.abs(points[0]), np.abs(points[1]), atol=1e-4)
    labels = ["x", None, "y"] * 4
    for exclude_self in (False, True):
        for normalize in (False, True):
            for per_query in (False, True):
                options = {"exclude_self": exclude_self, "normalize": normalize, "per_query": per_query}
                names = ("influences", "influences_se", "group_size", "between")
                same(sltfast.group_influence, both, names, labels=labels, separate_chains=True, **options)


def test_dead_chains_are_left_out_loudly(both):
    parts = []
    for samples in both:
        dataset = samples.dataset.load().copy(deep=True)
        for name in dataset.data_vars:
            if str(name).startswith(("loss_", "moment_")):
                dataset[name].values[1, 4:] = np.nan
        dead = dataset.assign(alive=("chain", np.array([True, False, True])))
        with pytest.warns(sltfast.ChainDiverged, match="1 of 3 chains died"):
            parts.append(sltfast.compute_bif(xr.DataTree(dead), correlation_method="sequence"))
    np.testing.assert_allclose(parts[1]["influences"], parts[0]["influences"], **CLOSE)
    assert parts[1].attrs["chains_left_out"] == [1]


def test_what_was_not_recorded_is_refused(both):
    with pytest.raises(ValueError, match="keeps those of sequences over all draws"):
        sltfast.compute_bif(both[1])
    with pytest.raises(ValueError, match=r"different names of \['a', 'b'\]"):
        sltfast.compute_bif(both[1], correlation_method="sequence", loss_keys=["c"])


def test_bif_passes_the_blocks_on():
    torch.manual_seed(0)
    result = sltfast.bif(
        nn.Linear(3, 20),
        data(16, 0),
        {"a": (data(4, 1), 1)},
        loss_fn=squared,
        record="covariances",
        correlation_method="sequence",
        num_blocks=5,
        **SETTINGS,
    )
    assert result.attrs["blocks_per_chain"] == 5


def test_a_sequence_is_the_same_mean_of_positions_however_it_is_recorded():
    random = torch.Generator().manual_seed(0)
    rows, weights = torch.randn(2, 9, 1, generator=random), torch.rand(2, 9, generator=random)
    weights[0, :3] = 0

    def weighted(model, batch):
        x, w = batch
        return model(x)[..., 0] ** 2, w

    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    traces, covariances = (
        sltfast.bif(
            model, (rows, weights), {"a": ((rows, weights), 1)}, lr=1e-3, n_beta=10.0, localization=10.0, num_chains=2,
            num_draws=20, num_blocks=2, batch_size=2, loss_fn=weighted, correlation_method="sequence", record=record,
            progress=False,
        )
        for record in ("traces", "covariances")
    )  # fmt: skip
    # float32 losses in both, of O(1) and spread 0.1: 1e-7 · 1/0.1 a draw
    np.testing.assert_allclose(covariances["influences"], traces["influences"], rtol=1e-5)
    np.testing.assert_allclose(covariances["influences_se"], traces["influences_se"], rtol=1e-5)
