"""What estimators of pairs refuse before the first step, the names they take, and errors that two draws cannot tell."""

import numpy as np
import pytest
import torch
from loss_trees import loss_tree
from torch import nn

import sltfast

SETTINGS = {"lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 6, "progress": False}


def never(model, batch):
    raise AssertionError("a step was made")


def squared(model, batch):
    return (model(batch)[:, 0] - 1) ** 2


def call(estimator=sltfast.bif, loss_fn=never, **options):
    torch.manual_seed(0)
    data = torch.randn(8, 3)
    return estimator(nn.Linear(3, 1), data, {"a b": (data, 1)}, loss_fn=loss_fn, batch_size=8, **SETTINGS | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separate_chains": True, "num_chains": 1}, "at least two chains, got num_chains=1"),
        ({"separate_chains": True, "top_k": 2}, "leave top_k out"),
        ({"separate_chains": True, "reduce_chain_dimension_method": "mean"}, "='stack', got top_k=None and 'mean'"),
        ({"record": "moments", "sampling_task": "a b"}, "give record='traces' or 'covariances'"),
        ({"record": "covariances"}, "give correlation_method='sequence'.*got 'token' and 'stack'"),
        ({"num_draws": 1, "num_chains": 1}, "at least 2 draws, got 1: raise num_draws"),
        ({"num_draws": 1, "reduce_chain_dimension_method": "mean"}, "at least 2 draws, got 1: raise num_draws"),
        ({"bif_device": "gpu"}, "device 'gpu' cannot be used here: give None, 'cpu' or 'cuda'"),
        ({"normalize": "yes"}, "normalize must be True or False.*got 'yes'"),
    ],
)
def test_bif_says_before_the_first_step_what_no_run_can_give(options, message):
    with pytest.raises(ValueError, match=message):
        call(**options)


def test_so_does_the_loss_kernel():
    with pytest.raises(ValueError, match="give record='traces' or 'covariances'"):
        call(sltfast.loss_kernel, record="moments", sampling_task="a b")
    with pytest.raises(ValueError, match="got 'token' and 'stack'"):
        call(sltfast.loss_kernel, record="covariances", correlation_method="token")


def test_fewer_draws_than_blocks_are_a_block_each():
    torch.manual_seed(0)
    model, data = nn.Linear(1, 1), torch.randn(2, 8, 1)

    def per_position(model, batch):
        return model(batch)[..., 0] ** 2

    found = [
        sltfast.bif(
            model, data, {"a": (data, 1)}, loss_fn=per_position, correlation_method="sequence", batch_size=2,
            record=record, **SETTINGS,
        )
        for record in ("traces", "covariances")
    ]  # fmt: skip
    assert [one.attrs["blocks_per_chain"] for one in found] == [6, 6]
    # float32 losses in the traces, float64 in the covariances: a few roundings of ℓ·spread
    np.testing.assert_allclose(found[0]["influences"], found[1]["influences"], rtol=1e-4)
    np.testing.assert_allclose(found[0]["influences_se"], found[1]["influences_se"], rtol=1e-4)


@pytest.mark.parametrize("record", ["traces", "covariances"])
def test_observables_go_by_the_names_that_the_caller_gave(record):
    torch.manual_seed(0)
    data = torch.randn(8, 3)
    observables = {"a b": (data[:2], 1), "0x": (data[2:4], 1), "c": (data[4:6], 1)}
    blocks = {"record": record, "num_blocks": 2}
    settings = {**SETTINGS, **blocks, "num_draws": 60}
    samples = sltfast.sample(nn.Linear(3, 1), data, observables, loss_fn=squared, batch_size=2, **settings)
    options = {"correlation_method": "sequence"}
    every = sltfast.compute_bif(samples, **options)
    rows = [*np.flatnonzero(every["observable"] == "a_b"), *np.flatnonzero(every["observable"] == "_0x")]
    chosen = sltfast.compute_bif(samples, loss_keys=["a b", "0x"], **options)
    np.testing.assert_allclose(chosen["influences"], every["influences"].values[np.ix_(rows, rows)], rtol=1e-12)
    side = sltfast.compute_bif(samples, loss_keys_1=["0x"], **options)
    np.testing.assert_array_equal(side["influences"], every["influences"][rows[2:]])
    labels = {"a b": ["x", "x"], "0x": ["y", "y"], "c": [None, None]}
    assert sltfast.group_influence(samples, labels)["group_1"].values.tolist() == ["x", "y"]
    for wrong in (["a b", "a_b"], [], ["b a"], "a b", None, 3, [3]):
        with pytest.raises(ValueError, match=r"loss_keys must be 'all' or a list of different names of \['_0x', 'a_b'"):
            sltfast.compute_bif(samples, loss_keys=wrong, **options)
    for wrong in ([], ["b a"], "a b", 3, [3]):
        with pytest.raises(ValueError, match=r"loss_keys_1 must be a list of \['_0x', 'a_b', 'c'\]"):
            sltfast.compute_bif(samples, loss_keys_1=wrong, **options)
    with pytest.raises(ValueError, match="different row numbers in 0 … 5, got 4"):
        sltfast.compute_bif(samples, batch_index_range_1=4, **options)


@pytest.mark.parametrize(("chains", "draws"), [(1, 2), (2, 1)])
def test_two_draws_tell_no_error(chains, draws):
    two = loss_tree({"a": 3}, chains=chains, draws=draws)
    for normalize in (False, True):
        result = sltfast.compute_bif(two, correlation_method="sequence", normalize=normalize)
        assert np.isfinite(result["influences"]).all()
        assert np.isnan(result["influences_se"]).all()
        assert np.isnan(sltfast.compute_bif(two, normalize=normalize, top_k=2)["influences_se"]).all()
    assert np.isnan(sltfast.group_influence(two, [0, 1, 1])["influences_se"]).all()
    three = loss_tree({"a": 3}, chains=1, draws=3)
    assert (sltfast.compute_bif(three, correlation_method="sequence")["influences_se"] > 0).all()


def test_two_draws_tell_no_error_of_a_covariance_of_weights():
    torch.manual_seed(0)
    data, settings = torch.randn(8, 3), SETTINGS | {"num_chains": 1, "batch_size": 8}
    for draws, told in ((2, False), (3, True)):
        found = sltfast.weight_covariance(
            nn.Linear(3, 1), data, "weight", loss_fn=squared, **settings | {"num_draws": draws}
        )
        assert np.isfinite(found["covariance"]).all()
        assert bool(np.isfinite(found["covariance_se"]).all()) == told
        assert told or bool(np.isnan(found["covariance_se"]).all())


def test_groups_of_a_result_are_of_one_set_of_items_and_settled():
    tree = loss_tree({"a": 4, "b": 4})
    across = sltfast.compute_bif(tree, correlation_method="sequence", loss_keys_1=["a"], loss_keys_2=["b"])
    for entries in (across, sltfast.compute_bif(tree, correlation_method="sequence", top_k=2)):
        with pytest.raises(ValueError, match=r"all pairs of sequences .*: give the samples instead"):
            sltfast.group_influence(entries, ["x", "x", "y", "y"])
    whole = sltfast.compute_bif(tree, correlation_method="sequence")
    for option in ({"sign": 1}, {"normalize": True}, {"loss_keys": ["a"]}, {"separate_chains": True}):
        with pytest.raises(ValueError, match=r"has settled what is averaged: .* or give the samples"):
            sltfast.group_influence(whole, **option)
    with pytest.raises(ValueError, match="at least two chains, there are 1"):
        sltfast.group_influence(loss_tree({"a": 3}, chains=1), separate_chains=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_components": 2.5}, r"num_components must be in 1 … 5 .*got 2\.5"),
        ({"method": "umap", "neighbours": 1}, "neighbours must be a whole number >= 2, got 1"),
        ({"method": "umap", "neighbours": "few"}, "neighbours must be a whole number >= 2, got 'few'"),
    ],
)
def test_an_embedding_says_what_it_takes(options, message):
    with pytest.raises(ValueError, match=message):
        sltfast.embed(loss_tree({"a": 6}), **options)
