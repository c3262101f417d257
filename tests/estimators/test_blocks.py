"""Moments by chain and block of draws: from traces, from recorded moments, of dead and interrupted chains."""

import numpy as np
import pytest
import xarray as xr
from models import tiny_neox, token_rows
from synthetic_runs import devinterp_tree, drawn_losses, native_tree

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 11, "batch_size": 4,
    "batches_per_draw": 2, "progress": False,
}  # fmt: skip
FIELDS = ("draws", "phi", "phi_m2", "mean", "m2", "comoment")


def test_they_are_the_moments_of_each_block():
    losses, at_init = drawn_losses(draws=10)
    found = sltfast.block_moments(native_tree(losses, at_init, dtype=np.float64), "other", "task", num_blocks=4)
    assert found.method == "paired"
    np.testing.assert_array_equal(found.level, at_init["other"])
    phi = losses["task"].mean((2, 3)) - at_init["task"].mean()
    y = losses["other"] - at_init["other"]
    members = np.arange(10) * 4 // 10
    for block in range(4):
        p, v = phi[:, members == block], y[:, members == block]
        apart = p - p.mean(1, keepdims=True)
        deviations = v - v.mean(1, keepdims=True)
        np.testing.assert_array_equal(found.draws[:, block], (members == block).sum())
        # sums of at most 3 products of numbers below 1 about levels of 5: 1e-14 is tens of roundings
        for got, expected in [
            (found.phi, p.mean(1)),
            (found.phi_m2, (apart**2).sum(1)),
            (found.mean, v.mean(1)),
            (found.m2, (deviations**2).sum(1)),
            (found.comoment, (apart[..., None, None] * deviations).sum(1)),
        ]:
            np.testing.assert_allclose(got[:, block], expected, atol=1e-14)


def test_more_blocks_than_draws_are_as_many_as_draws():
    losses, at_init = drawn_losses(draws=3)
    assert sltfast.block_moments(native_tree(losses, at_init), "other", "task").draws.shape == (3, 3)


@pytest.mark.parametrize("stored", [True, False], ids=["zarr", "memory"])
def test_traces_and_recorded_moments_agree(tmp_path, stored):
    model, observables = tiny_neox(), {"task": token_rows(seed=5), "other": token_rows(seed=6)}
    kept = {
        record: sltfast.sample(
            model, token_rows(), observables, record=record, sampling_task="task", num_blocks=4,
            output_path=tmp_path / f"{record}.zarr" if stored else None, **SETTINGS,
        )
        for record in ("traces", "moments")
    }  # fmt: skip
    for name in observables:
        traces, moments = (sltfast.block_moments(tree, name, "task", num_blocks=4) for tree in kept.values())
        assert traces.phi_level == moments.phi_level
        for field in FIELDS:
            # the same float32 losses, joined in another order: levels of 4 nats rounded in float64, some ten times
            np.testing.assert_allclose(getattr(traces, field), getattr(moments, field), rtol=1e-9, atol=1e-14)


def test_devinterps_trees_are_centred_by_their_own_means():
    losses, at_init = drawn_losses()
    tree = native_tree(losses, at_init, dtype=np.float64)
    ours, theirs = (sltfast.block_moments(one, "other", "task") for one in (tree, devinterp_tree(tree)))
    assert (theirs.method, theirs.phi_level) == ("init_batches", 1.5)
    np.testing.assert_allclose(theirs.level, losses["other"].mean((0, 1)), rtol=1e-14)
    np.testing.assert_allclose(theirs.mean + theirs.level, ours.mean + ours.level, rtol=1e-13)
    np.testing.assert_allclose(theirs.comoment, ours.comoment, atol=1e-13)


def test_padding_stays_nan_and_nothing_else_does():
    losses, at_init = drawn_losses()
    losses["other"][:, :, 1, 3:] = at_init["other"][1, 3:] = np.nan
    for tree in (native_tree(losses, at_init), devinterp_tree(native_tree(losses, at_init))):
        found = sltfast.block_moments(tree, "other", "task")
        for field in ("mean", "m2", "comoment"):
            np.testing.assert_array_equal(
                np.isnan(getattr(found, field)), np.broadcast_to(np.isnan(at_init["other"]), found.mean.shape)
            )
        assert np.isfinite(found.phi).all()


def test_dead_chains_are_left_out_loudly():
    losses, at_init = drawn_losses()
    whole = native_tree(losses, at_init, dtype=np.float64)
    for name in losses:
        losses[name][1, 7:] = np.nan
    without = whole.dataset.isel(chain=[0, 2])
    for tree in (
        native_tree(losses, at_init, alive=[True, False, True], dtype=np.float64),
        devinterp_tree(native_tree(losses, at_init, dtype=np.float64)),
    ):
        with pytest.warns(sltfast.ChainDiverged, match=r"chains \[1\] of 3 died"):
            found = sltfast.block_moments(tree, "other", "task")
        assert found.chains.tolist() == [0, 2]
        expected = sltfast.block_moments(without, "other", "task")
        np.testing.assert_allclose(found.comoment, expected.comoment, atol=1e-14)
    dead = native_tree(losses, at_init, alive=[False] * 3)
    with pytest.raises(sltfast.AllChainsDied, match="no chain lived") as error:
        sltfast.block_moments(dead, "other", "task")
    assert error.value.samples is dead


def test_an_interrupted_run_gives_the_draws_that_it_made():
    losses, at_init = drawn_losses(draws=12)
    for name in losses:
        losses[name][2, 5:] = np.nan
    with pytest.warns(UserWarning, match="only 29 of 36 draws of an interrupted run are used"):
        found = sltfast.block_moments(native_tree(losses, at_init, dtype=np.float64), "other", "task", num_blocks=4)
    assert found.draws[2].tolist() == [3, 2, 0, 0]
    y = losses["other"] - at_init["other"]
    np.testing.assert_allclose(found.mean[2, 1], y[2, 3:5].mean(0), atol=1e-14)
    assert not found.mean[2, 2:].any()
    assert np.isfinite(found.mean).all()


def test_what_is_not_there_is_said():
    losses, at_init = drawn_losses()
    tree = native_tree(losses, at_init)
    with pytest.raises(ValueError, match=r"neither losses nor moments of the observable 'code': there are \['other'"):
        sltfast.block_moments(tree, "code", "task")
    with pytest.raises(ValueError, match="num_blocks must be a whole number >= 1, got 0"):
        sltfast.block_moments(tree, "other", "task", num_blocks=0)
    with pytest.raises(TypeError, match=r"samples must be a tree from .* got dict"):
        sltfast.block_moments({}, "other", "task")
    with pytest.raises(ValueError, match="no loss at w"):
        sltfast.block_moments(xr.DataTree(tree.dataset[["loss_task", "loss_other"]]), "other", "task")
    moments = sltfast.sample(
        tiny_neox(),
        token_rows(),
        {"a": token_rows(), "b": token_rows()},
        record="moments",
        sampling_task="a",
        **SETTINGS,
    )
    with pytest.raises(ValueError, match="moments with φ of sampling_task 'a', not of 'b'"):
        sltfast.block_moments(moments, "a", "b")


def test_an_interrupted_run_says_how_much_of_it_there_is():
    losses, levels = drawn_losses(0)
    whole = native_tree(losses, levels).to_dataset()
    partial = whole.copy(deep=True)
    partial.attrs |= {"completed": 0, "metadata": {"config": {"sampler": {"n_beta": 1.0}}}}
    for name in partial.data_vars:
        if "draw" in partial[name].dims:
            partial[name].values[:, 3:] = np.nan
    count = 3 * whole.sizes["chain"]
    message = f"{count} of {whole.sizes['chain'] * whole.sizes['draw']} draws of an interrupted run"
    with pytest.warns(UserWarning, match=f"only {message} are used"):
        sltfast.block_moments(xr.DataTree(partial), "other", "task")
    with pytest.warns(UserWarning, match=f"only {message} are used"):
        sltfast.compute_token_llc(xr.DataTree(partial), "other")
    with pytest.warns(UserWarning, match=r"the runs \['full'\] were interrupted"):
        sltfast.compute_susceptibilities({"full": xr.DataTree(partial)}, "task")
    for name in partial.data_vars:
        if "draw" in partial[name].dims:
            partial[name].values[:] = np.nan
    with pytest.raises(ValueError, match="no draws were recorded yet: let the run go on"):
        sltfast.compute_bif(xr.DataTree(partial))
