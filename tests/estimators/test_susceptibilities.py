"""χ from recorded runs: its definition, devinterp's values and form, padding, dead chains, refusals."""

import numpy as np
import pytest
import torch
import xarray as xr
from models import tiny_neox, token_rows
from synthetic_runs import devinterp_tree, drawn_losses, mean_of, native_tree

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 3, "num_draws": 21, "num_burnin_steps": 2,
    "batch_size": 4, "batches_per_draw": 2, "progress": False,
}  # fmt: skip
OBSERVABLES = {"pile": token_rows(seed=5), "code": token_rows(seed=6), "a b": token_rows(seed=7)}
RESTRICTIONS = {"l0h0": "l0h0", "full": None, "l1 mlp": "l1 mlp"}
RUNS = ("full", "part", "other part")


@pytest.fixture(scope="module")
def runs():
    return sltfast.sample_restrictions(tiny_neox(), token_rows(), OBSERVABLES, RESTRICTIONS, **SETTINGS)


def synthetic(**options):
    """Three runs around one w*: their float64 losses, and their trees."""
    drawn = {name: drawn_losses(seed) for seed, name in enumerate(RUNS)}
    trees = {name: native_tree(*one, dtype=np.float64, **options) for name, one in drawn.items()}
    return {name: losses for name, (losses, _) in drawn.items()}, trees


def by_definition(losses, wr, observable, level):
    """(two-chain, single-chain) χ of every item in the words of the definition."""
    mean, full_mean = mean_of(losses[wr]["task"]), mean_of(losses["full"]["task"])
    items, full_items = losses[wr][observable], losses["full"][observable]
    phi = mean - level
    expected_product = np.einsum("cd,cdij->ij", phi, items) / phi.size
    gap = full_mean.mean() - full_items.mean((0, 1))
    two = (phi * mean).mean() - expected_product - phi.mean() * gap
    single = -(expected_product - phi.mean() * items.mean((0, 1))) + (phi * mean).mean() - phi.mean() * mean.mean()
    return two, single


def items_of(result, variable, name, wr, shape):
    node = result["susceptibilities"].to_dataset()
    of_dataset = node["dataset_id"].values == node.attrs["dataset_id_to_name"].index(name)
    return node[variable].sel(wr=wr).values[of_dataset].reshape(shape)


@pytest.mark.parametrize("init_loss", ["paired", "init_batches"])
def test_both_estimators_are_what_they_are_defined_to_be(init_loss):
    losses, trees = synthetic()
    level = float(trees["full"]["init_mean_loss_task"]) if init_loss == "paired" else 1.5
    for estimator, other in [("two_chain", "single_chain"), ("single_chain", "two_chain")]:
        result = sltfast.compute_susceptibilities(trees, "task", estimator=estimator, init_loss=init_loss)
        assert (result.attrs["estimator"], result.attrs["init_loss"]) == (estimator, init_loss)
        for wr in RUNS:
            for name, shape in [("other", (3, 5)), ("third", (2, 5))]:
                expected = dict(zip(("two_chain", "single_chain"), by_definition(losses, wr, name, level), strict=True))
                for variable, which in [("sus", estimator), (f"sus_{other}", other)]:
                    # the definition's products are of losses of 5 nats: 25 · 2⁻⁵³ a rounding, some ten of them
                    np.testing.assert_allclose(items_of(result, variable, name, wr, shape), expected[which], atol=5e-14)


def test_levels_of_the_losses_change_nothing():
    # ℓ + 10⁴: excesses lose 10⁴ · 2⁻⁵³ ≈ 10⁻¹² when they are recorded, products of losses would lose 10⁸ · 2⁻⁵³
    drawn = {name: drawn_losses(seed) for seed, name in enumerate(RUNS)}
    found = []
    for level in (0.0, 1e4):
        shifted = {
            name: native_tree(
                {k: v + level for k, v in losses.items()}, {k: v + level for k, v in init.items()}, dtype=np.float64
            )
            for name, (losses, init) in drawn.items()
        }
        found.append(sltfast.compute_susceptibilities(shifted, "task")["susceptibilities"]["sus"].values)
    np.testing.assert_allclose(found[0], found[1], atol=3e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_devinterp_finds_the_same_in_the_same_trees(runs, dtype):
    from devinterp.slt.susceptibilities import compute_susceptibilities

    trees = {name: devinterp_tree(tree, dtype) for name, tree in runs.items()}
    theirs = compute_susceptibilities(trees, "pile", include_sampling_task=True)
    ours = sltfast.compute_susceptibilities(trees, "pile", include_sampling_task=True)
    assert ours.attrs["init_loss"] == "init_batches"
    expected = theirs["susceptibilities"].to_dataset()
    found = ours["susceptibilities"].to_dataset().sel(wr=expected["wr"].values)
    # three means of 63 products φ·ℓ, |φ| < 1 and ℓ < 8 nats: 3 · 8 · (2 + log₂ 63) roundings of 2⁻²⁴ or 2⁻⁵³
    tolerance = 3 * 8 * 8 * float(np.finfo(dtype).eps) / 2
    np.testing.assert_allclose(found["sus"].values, expected["sus"].values, rtol=0, atol=tolerance)
    assert float(np.abs(expected["sus"]).max()) > 100 * tolerance
    # the run's own tree has the mean of init_loss in float64, and says the same to float32's rounding
    own = sltfast.compute_susceptibilities(runs, "pile", None, True, init_loss="init_batches")["susceptibilities"]
    in_float32 = 3 * 8 * 8 * 2.0**-24
    np.testing.assert_allclose(
        own["sus"].sel(wr=expected["wr"].values).values, expected["sus"].values, rtol=0, atol=in_float32
    )


def test_the_tree_reads_as_devinterps(runs):
    from devinterp.slt.susceptibilities import compute_susceptibilities

    theirs = compute_susceptibilities(runs, "pile")
    ours = sltfast.compute_susceptibilities(runs, "pile")
    assert ours["susceptibilities"]["wr"].values.tolist() == ["l0h0", "full", "l1 mlp"]
    for node in ("susceptibilities", "context"):
        expected, found = theirs[node].to_dataset(), ours[node].to_dataset()
        assert found.attrs == expected.attrs
        for name, coordinate in expected.variables.items():
            if name not in ("sus", "wr"):
                assert found[name].dims == coordinate.dims
                np.testing.assert_array_equal(found[name].values, coordinate.values)
    assert ours["susceptibilities"]["sus"].dims == theirs["susceptibilities"]["sus"].dims == ("sus_flat", "wr")
    assert {"sus", "se", "se_chains", "se_batch_means", "sus_single_chain", "se_single_chain"} == set(
        ours["susceptibilities"].data_vars
    )


def test_streamed_moments_and_traces_say_the_same(runs):
    streamed = sltfast.sample_restrictions(
        tiny_neox(), token_rows(), OBSERVABLES, RESTRICTIONS, record="moments", sampling_task="pile", **SETTINGS
    )
    one, other = (sltfast.compute_susceptibilities(trees, "pile", None, True) for trees in (runs, streamed))
    for node in ("susceptibilities", "datasets", "components"):
        for name, values in one[node].data_vars.items():
            if values.dtype.kind == "f" and name != "density_deviation":
                # both of the same float32 losses; float64 joins of 5 nats in another order
                np.testing.assert_allclose(other[node][name].values, values.values, rtol=1e-9, atol=1e-14)
    assert "loss_code" not in streamed["full"].dataset
    for result in (one, other):
        assert result.attrs["density_deviation"] < 1e-9


def test_items_make_up_their_data_set():
    losses, trees = synthetic()
    result = sltfast.compute_susceptibilities(trees, "task", include_sampling_task=True, estimator="single_chain")
    datasets = result["datasets"].to_dataset()
    for wr in RUNS:
        for name, shape in [("other", (3, 5)), ("third", (2, 5)), ("task", (4, 5))]:
            items = items_of(result, "sus", name, wr, shape)
            assert items.mean() == pytest.approx(float(datasets["sus"].sel(wr=wr, dataset=name)), abs=1e-15)
        # the sampling task's χ is 0, to the rounding of its mean loss of 3 nats
        assert float(datasets["sus"].sel(wr=wr, dataset="task")) == 0.0
        assert abs(items_of(result, "sus", "task", wr, (4, 5)).sum()) < 1e-14
    assert result.attrs["density_deviation"] < 1e-13
    # a data set's error is that of its mean, not of its items: they move together
    mean_phi = mean_of(losses["part"]["task"]) - 3
    assert float(datasets["se"].sel(wr="part", dataset="other")) < mean_phi.var()
    # means that are not those of the items are seen
    spoilt = trees["part"].dataset.copy(deep=True)
    spoilt["mean_loss_other"] = 2 * spoilt["mean_loss_other"]
    wrong = sltfast.compute_susceptibilities({**trees, "part": xr.DataTree(spoilt)}, "task")
    assert wrong.attrs["density_deviation"] > 0.1


def test_unequal_weights_are_not_held_against_the_plain_mean():
    _, trees = synthetic()
    for tree in trees.values():
        tree["init_mean_loss_other"] = tree["init_mean_loss_other"] + 0.1
    deviation = sltfast.compute_susceptibilities(trees, "task")["datasets"]["density_deviation"]
    assert np.isnan(deviation.sel(dataset="other")).all()
    assert np.isfinite(deviation.sel(dataset="third")).all()


def test_padding_stays_nan():
    data = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9, dtype=torch.long)}
    data["attention_mask"][::3, 7:] = 0
    trees = sltfast.sample_restrictions(
        tiny_neox(), data, {"t": data, "o": data}, {"full": None, "h": "l0h0"}, **SETTINGS
    )
    result = sltfast.compute_susceptibilities(trees, "t")
    padded = np.isnan(trees["full"]["loss_o"].values[0, 0]).ravel()
    assert padded.any()
    for values in result["susceptibilities"].data_vars.values():
        np.testing.assert_array_equal(np.isnan(values.values), np.stack([padded] * 2, 1))
    assert result.attrs["density_deviation"] < 1e-6  # float32 means of float32 losses
    assert np.isfinite(result["datasets"]["se"]).all()


def test_dead_chains_are_left_out_and_a_dead_restriction_is_nan():
    drawn = {name: drawn_losses(seed) for seed, name in enumerate(RUNS)}
    fewer = {name: ({k: v[[0, 2]] for k, v in losses.items()}, init) for name, (losses, init) in drawn.items()}
    for values in drawn["part"][0].values():
        values[1, 3:] = np.nan
    alive = {"part": [True, False, True], "other part": [False] * 3}
    trees = {name: native_tree(*one, alive=alive.get(name), dtype=np.float64) for name, one in drawn.items()}
    with pytest.warns(sltfast.ChainDiverged, match=r"left out: \[1\] of 'part'; all of 'other part' \(its χ is NaN\)"):
        result = sltfast.compute_susceptibilities(trees, "task")
    values = result["susceptibilities"].to_dataset()
    assert np.isfinite(values["sus"].sel(wr=["full", "part"])).all()
    assert np.isnan(values["sus"].sel(wr="other part")).all()
    assert result["components"]["chains_alive"].values.tolist() == [3, 2, 0]
    part = native_tree(*fewer["part"], dtype=np.float64)
    expected = sltfast.compute_susceptibilities({"full": trees["full"], "part": part}, "task")["susceptibilities"]
    for name in ("sus", "sus_single_chain", "se_single_chain"):
        np.testing.assert_allclose(values[name].sel(wr="part"), expected[name].sel(wr="part"), atol=1e-14)
    trees["full"] = trees["other part"]
    with pytest.raises(sltfast.AllChainsDied):
        sltfast.compute_susceptibilities(trees, "task")


def test_the_single_chain_estimator_needs_no_full_run():
    trees = {name: native_tree(*drawn_losses(seed), dtype=np.float64) for seed, name in enumerate(RUNS)}
    whole = sltfast.compute_susceptibilities(trees, "task", estimator="single_chain")["susceptibilities"].to_dataset()
    trees["full"] = native_tree(*drawn_losses(9), alive=[False] * 3, dtype=np.float64)
    parts = {name: trees[name] for name in ("full", "part", "other part")}
    parts["dead"] = parts.pop("full")
    with pytest.warns(sltfast.ChainDiverged, match="all of 'dead'"):
        alone = sltfast.compute_susceptibilities(
            {"dead": parts.pop("dead"), **parts}, "task", estimator="single_chain"
        )["susceptibilities"].to_dataset()
    assert alone["wr"].values.tolist() == ["dead", "part", "other part"]
    for wr in ("part", "other part"):
        for name in ("sus", "se", "se_chains", "se_batch_means"):
            np.testing.assert_array_equal(alone[name].sel(wr=wr), whole[name].sel(wr=wr))
    assert np.isnan(alone["sus_two_chain"]).all()
    assert np.isfinite(whole["sus_two_chain"]).all()
    with pytest.raises(ValueError, match="estimator='single_chain' needs none"):
        sltfast.compute_susceptibilities(parts, "task")


def test_interrupted_runs_are_used_loudly():
    _, trees = synthetic()
    trees["part"].attrs["completed"] = 0
    with pytest.warns(UserWarning, match=r"the runs \['part'\] were interrupted"):
        sltfast.compute_susceptibilities(trees, "task")


def test_a_component_says_its_learning_coefficient(runs):
    result = sltfast.compute_susceptibilities(runs, "pile")["components"]
    for wr, tree in runs.items():
        expected = sltfast.compute_llc(tree)
        here = result.to_dataset().sel(wr=wr)
        for name in ("llc_mean", "llc_se", "rhat", "ess"):
            assert float(here[name]) == float(expected[name])
        phi = tree["mean_loss_pile"].values - float(tree["init_mean_loss_pile"])
        assert float(here["phi_mean"]) == pytest.approx(phi.mean(), rel=1e-9)
        assert float(here["phi_se"]) >= float(phi.mean(1).std(ddof=1) / np.sqrt(3)) * (1 - 1e-9)


def test_what_cannot_be_computed_is_refused(runs):
    refused = [
        (ValueError, "no 'full'", {"wr_map": {"part": runs["l0h0"]}}),
        (TypeError, "wr_map must be a mapping", {"wr_map": [runs["full"]]}),
        (ValueError, "estimator must be one of two_chain, single_chain, got 'both'", {"estimator": "both"}),
        (ValueError, "init_loss must be one of paired, init_batches, got 'dataset'", {"init_loss": "dataset"}),
        (ValueError, "observable 'prose'", {"sampling_task": "prose"}),
        (ValueError, r"observables \['prose'\] were not recorded", {"observable_names": ["code", "prose"]}),
        (ValueError, "observable_names must be None or a list", {"observable_names": "code"}),
        (ValueError, "num_blocks must be", {"num_blocks": 0}),
    ]
    for kind, message, change in refused:
        given = {"wr_map": runs, "sampling_task": "pile", **change}
        with pytest.raises(kind, match=message):
            sltfast.compute_susceptibilities(**given)
    alone = {name: xr.DataTree(tree.dataset.drop_vars(["loss_code", "loss_a_b"])) for name, tree in runs.items()}
    with pytest.raises(ValueError, match="include_sampling_task=True"):
        sltfast.compute_susceptibilities(alone, "pile")
    without = {
        name: xr.DataTree(tree.dataset.drop_vars(["init_loss", "init_loss_mean"])) for name, tree in runs.items()
    }
    with pytest.raises(ValueError, match="num_init_loss_batches > 0"):
        sltfast.compute_susceptibilities(without, "pile", init_loss="init_batches")
    stranger = runs["l0h0"].dataset.copy(deep=True)
    stranger["input_ids_code"] = stranger["input_ids_code"] + 1
    with pytest.raises(ValueError, match="'l0h0' and 'full' differ in input_ids_code"):
        sltfast.compute_susceptibilities({**runs, "l0h0": xr.DataTree(stranger)}, "pile")
