"""compute_llc: pairing, burn-in, error bars, devinterp's trees; llc: what it skips."""

import numpy as np
import pytest
import torch
import xarray as xr
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

SMALL = {
    "lr": 1e-3,
    "n_beta": 10.0,
    "localization": 5.0,
    "num_chains": 3,
    "num_draws": 40,
    "num_burnin_steps": 10,
    "batch_size": 8,
    "progress": False,
}


def samples(**changes):
    return sltfast.sample(Mlp(), regression_data(), **{"loss_fn": regression_loss, **SMALL, **changes})


def test_the_estimate_is_the_mean_paired_difference_after_burnin():
    tree = samples()
    result = sltfast.compute_llc(tree)
    paired = 10.0 * (tree["loss"].values - tree["init_loss_trace"].values)
    np.testing.assert_allclose(result["llc_per_chain"], paired[:, 10:].mean(1))
    assert float(result["llc_mean"]) == pytest.approx(paired[:, 10:].mean())
    assert float(result["llc_std"]) == pytest.approx(paired[:, 10:].mean(1).std())
    np.testing.assert_allclose(result["excess_trace"], paired / 10.0)
    np.testing.assert_array_equal(result["loss_trace"], tree["loss"])
    with_burnin = sltfast.compute_llc(tree, include_burnin=True)
    assert float(with_burnin["llc_mean"]) == pytest.approx(paired.mean())


def test_the_error_is_the_larger_of_two_and_the_interval_follows():
    result = sltfast.compute_llc(samples())
    between = float(result["llc_per_chain"].std(ddof=1)) / 3**0.5
    assert float(result["llc_se"]) == pytest.approx(max(between, float(result["llc_mcse"])))
    mean, error = float(result["llc_mean"]), float(result["llc_se"])
    np.testing.assert_allclose(result["llc_ci"], [mean - 1.96 * error, mean + 1.96 * error])
    assert result["llc_ci"].sel(bound="upper") > mean


def test_pairing_takes_the_batches_own_level_out_of_the_error():
    tree = samples(num_draws=300, localization=500.0)  # close to w*: the chain moves little, the batches much
    paired, unpaired = sltfast.compute_llc(tree), sltfast.compute_llc(tree, init_loss="init_batches")
    assert float(paired["llc_se"]) < 0.5 * float(unpaired["llc_se"])
    assert float(paired["rhat"]) == float(unpaired["rhat"])  # of the paired trace, whatever the level


def test_the_loss_over_the_whole_data_set_as_the_reference():
    data = regression_data()
    with torch.no_grad():
        exact = float(regression_loss(Mlp(), data).double().mean())
    result = sltfast.llc(Mlp(), data, loss_fn=regression_loss, init_loss="dataset", **SMALL)
    assert float(result["init_loss"]) == pytest.approx(exact, rel=1e-6)
    level = 10.0 * (result["loss_trace"].values[:, 10:].mean() - exact)
    assert float(result["llc_mean"]) == pytest.approx(level, rel=1e-6)


@pytest.mark.parametrize("reference", ["dataset", "init_batches"])
def test_a_reference_that_was_not_recorded_is_asked_for(reference):
    tree = samples(num_init_loss_batches=0)
    with pytest.raises(ValueError, match=f"init_loss='{reference}' needs samples"):
        sltfast.compute_llc(tree, init_loss=reference)
    with pytest.raises(ValueError, match="init_loss must be one of"):
        sltfast.compute_llc(tree, init_loss="mean")


def test_llc_is_sample_and_compute_and_evaluates_no_observable():
    calls = []

    def counted(model, batch):
        calls.append(torch.is_grad_enabled())
        return regression_loss(model, batch)

    x, y = regression_data()
    direct = sltfast.llc(Mlp(), (x, y), {"o": (x, y)}, loss_fn=counted, **SMALL, engine="sequential")
    # one trial, one gradient a step and chain; at w* each of 40 rows once (5 batches), the trial's among other rows
    assert calls.count(True) == 1 + 3 * 50
    assert calls.count(False) == 5
    stored = sltfast.compute_llc(samples())
    # chains together round otherwise
    assert float(direct["llc_mean"]) == pytest.approx(float(stored["llc_mean"]), rel=1e-4)
    with pytest.raises(TypeError, match="observables must be a mapping"):
        sltfast.llc(Mlp(), (x, y), [1], loss_fn=counted, **SMALL)


def test_the_result_names_its_settings_and_verdict():
    result = sltfast.llc(
        Quadratic(torch.ones(6)), ONES, loss_fn=quadratic_loss, **{**SMALL, "lr": 0.02, "num_draws": 400}
    )
    assert result.attrs["verdict"] == "converged"
    assert result.attrs["n_beta"] == 10.0
    assert result.attrs["localization"] == 5.0
    assert float(result["rhat"]) < 1.1
    assert float(result["ess"]) > 100


def test_devinterps_own_tree_is_read(tmp_path):
    """A tree with devinterp's variables alone: its unpaired reference is used."""
    tree = samples()
    names = ["sampling_loss_micro", "init_loss"]
    bare = xr.DataTree(tree.dataset[names].assign_attrs(tree.attrs))
    result = sltfast.compute_llc(bare, include_burnin=True)
    micro = tree["sampling_loss_micro"].values.astype(np.float64).mean((2, 3))
    assert float(result["llc_mean"]) == pytest.approx(10.0 * (micro.mean() - float(tree["init_loss"].mean())), rel=1e-5)


def test_levels_count_padding_as_the_trace_does():
    """One batch an epoch: every level is then the same number, whichever way it is had."""
    ids = token_rows(tokens=6)
    mask = torch.ones(24, 6)
    mask[4:, 3:] = 0
    data = {"input_ids": ids, "attention_mask": mask}
    settings = {**SMALL, "batch_size": 24, "num_init_loss_batches": 2}
    levels = [
        float(sltfast.llc(tiny_neox(), data, init_loss=how, **settings)["init_loss"])
        for how in ("paired", "dataset", "init_batches")
    ]
    assert levels == pytest.approx([levels[0]] * 3, rel=1e-6)


def test_the_error_of_a_level_joins_in_and_shared_batches_count_once():
    """With the chain held at w* the level is all that varies: the claimed error is that of a mean over the steps."""
    settings = {**SMALL, "num_draws": 200, "num_burnin_steps": 0, "localization": 1e3, "shuffle": True}
    errors = []
    for matched in (True, False):
        settings["match_sampling_input_ids_across_chains"] = matched
        result = sltfast.llc(Mlp(), regression_data(4000), loss_fn=regression_loss, init_loss="dataset", **settings)
        paired = sltfast.llc(Mlp(), regression_data(4000), loss_fn=regression_loss, **settings)
        level = (float(result["llc_se"]) ** 2 - float(paired["llc_se"]) ** 2) ** 0.5
        spread = 10.0 * float((result["loss_trace"] - result["excess_trace"]).std())
        independent = 200 * (1 if matched else 3)
        # an MCSE from 200 to 600 independent batches is itself good to about 10 %
        assert level == pytest.approx(spread / independent**0.5, rel=0.3)
        errors.append(level)
    assert errors[0] > errors[1]


def test_devinterp_reads_our_tree():
    """Its estimators take every variable that begins with loss_ for an observable."""
    ids = token_rows()
    tree = sltfast.sample(tiny_neox(), ids, {"o": (ids, 1)}, **SMALL)
    observables = [name for name in tree.dataset.data_vars if name.startswith("loss_")]
    assert observables == ["loss_o"]  # and none of mean_loss_o, init_loss_o


def test_no_temperature_no_complexity():
    result = sltfast.llc(Mlp(), regression_data(), loss_fn=regression_loss, **{**SMALL, "n_beta": 0.0})
    assert float(result["llc_mean"]) == 0.0
    assert "0 by definition" in result.attrs["advice"]


def test_what_is_no_tree_is_refused():
    with pytest.raises(ValueError, match="samples must be a tree"):
        sltfast.compute_llc(xr.DataTree(xr.Dataset({"loss": ("chain", [1.0])})))


def test_padding_does_not_count():
    ids = token_rows(tokens=6)
    padded = {
        "input_ids": torch.cat([ids, torch.zeros(24, 4, dtype=torch.int64)], dim=1),
        "attention_mask": torch.cat([torch.ones(24, 6), torch.zeros(24, 4)], dim=1),
    }
    plain, with_padding = (sltfast.llc(tiny_neox(), data, **SMALL) for data in (ids, padded))
    # the same chain up to fp32 rounding of other matrix shapes
    np.testing.assert_allclose(with_padding["loss_trace"], plain["loss_trace"], rtol=1e-4)


def test_default_nbeta():
    assert sltfast.default_nbeta(32) == pytest.approx(32 / np.log(32))
    assert sltfast.default_nbeta(8, gradient_accumulation_steps=4) == sltfast.default_nbeta(32)
    loader = torch.utils.data.DataLoader(ONES, batch_size=4)
    assert sltfast.default_nbeta(loader) == sltfast.default_nbeta(4)
    with pytest.warns(UserWarning, match="undefined"):
        assert sltfast.default_nbeta(1) == 1.0
    for bad in (0, -2, 2.5, True, None):
        with pytest.raises(ValueError, match="whole number"):
            sltfast.default_nbeta(bad)
