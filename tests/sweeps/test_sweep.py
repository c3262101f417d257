"""A sweep is its cells' own runs in one stack; it reports what fails, refuses nonsense, and resumes bit for bit."""

import warnings

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

import sltfast
from sltfast.sampler import flight
from sltfast.sampler.run import Run

GRID = {"lr": [1e-3, 3e-4], "n_beta": [5.0, 20.0], "localization": [1.0, 10.0]}
SHORT = {"num_chains": 2, "num_draws": 20, "num_burnin_steps": 4, "batch_size": 8, "progress": False}
ESTIMATED = ("llc_mean", "llc_se", "llc_per_chain", "loss_trace", "excess_trace", "init_loss")
# float32 losses: products summed in another order (the stack's) round apart by some 1e-6 of themselves at each of 24
# steps; a difference of losses of order 1 keeps that as an absolute error, times nβ <= 20 in λ̂
CLOSE = {"rtol": 1e-4, "atol": 1e-3}


def mlp_sweep(**changes):
    return sltfast.sweep(Mlp(), regression_data(), loss_fn=regression_loss, **{**GRID, **SHORT, **changes})


def mlp_llc(**settings):
    return sltfast.llc(Mlp(), regression_data(), loss_fn=regression_loss, **{**SHORT, **settings})


@pytest.mark.parametrize("matched", [True, False])
def test_each_cell_is_its_own_run(matched):
    changes = {"match_sampling_input_ids_across_chains": matched}
    result = mlp_sweep(**changes)
    assert result["llc_mean"].dims == ("lr", "n_beta", "localization")
    assert result["loss_trace"].dims == ("lr", "n_beta", "localization", "chain", "step")
    assert result["lr"].values.tolist() == [3e-4, 1e-3]
    for lr in GRID["lr"]:
        for n_beta in GRID["n_beta"]:
            for localization in GRID["localization"]:
                cell = {"lr": lr, "n_beta": n_beta, "localization": localization}
                alone, of_sweep = mlp_llc(**cell, **changes), result.sel(cell)
                for name in ESTIMATED:
                    np.testing.assert_allclose(of_sweep[name].values, alone[name].values, **CLOSE, err_msg=name)
                assert str(of_sweep["verdict"].values) == alone.attrs["verdict"]


def test_cells_in_double_precision_agree_to_rounding():
    given = {"lr": [1e-3, 1e-2], "n_beta": 10.0, "localization": [1.0, 3.0], "num_chains": 2, "num_draws": 40}
    model, kept = (
        Quadratic(torch.linspace(0.5, 2, 7), dtype=torch.float64),
        {"loss_fn": quadratic_loss, "batch_size": 4},
    )
    result = sltfast.sweep(model, ONES, **given, **kept, progress=False)
    for lr in given["lr"]:
        for localization in given["localization"]:
            cell = {**given, "lr": lr, "localization": localization}
            alone = sltfast.llc(model, ONES, **cell, **kept, progress=False)
            of_cell = result.sel(lr=lr, n_beta=10.0, localization=localization)
            # 40 steps of contracting updates: rounding of float64 stays within a few hundred units
            np.testing.assert_allclose(of_cell["loss_trace"].values, alone["loss_trace"].values, rtol=1e-13, atol=1e-15)


def test_a_language_model_and_a_restriction():
    rows, given = token_rows(), {"num_chains": 2, "num_draws": 6, "batch_size": 4, "progress": False}
    kept = {"param_masks": "*.layers.1.*", **given}
    result = sltfast.sweep(tiny_neox(), rows, lr=[1e-4, 1e-3], n_beta=[10.0], localization=100.0, **kept)
    for lr in (1e-4, 1e-3):
        alone = sltfast.llc(tiny_neox(), rows, lr=lr, n_beta=10.0, localization=100.0, **kept)
        of_sweep = result.sel(lr=lr, n_beta=10.0, localization=100.0)
        np.testing.assert_allclose(of_sweep["loss_trace"].values, alone["loss_trace"].values, rtol=1e-5)


def test_other_settings_are_dimensions_where_they_are_sequences():
    result = mlp_sweep(
        lr=1e-3, n_beta=np.array([5.0, 20.0]), localization=range(1, 3), llc_weight_decay=(0.0, 1.0),
        bounding_box_size=[None, 0.01],
    )  # fmt: skip
    assert result["llc_mean"].dims == ("lr", "n_beta", "localization", "llc_weight_decay", "bounding_box_size")
    assert result["llc_mean"].shape == (1, 2, 2, 2, 2)
    assert result["bounding_box_size"].values.tolist() == [0.01, np.inf]
    cell = {"lr": 1e-3, "n_beta": 20.0, "localization": 2.0, "llc_weight_decay": 1.0}
    for box, coordinate in ((None, np.inf), (0.01, 0.01)):
        of_sweep = result.sel(**cell, bounding_box_size=coordinate)
        alone = mlp_llc(**cell, bounding_box_size=box)
        np.testing.assert_allclose(of_sweep["loss_trace"].values, alone["loss_trace"].values, **CLOSE)


def test_a_setting_given_as_one_number_is_no_dimension():
    result = mlp_sweep(llc_weight_decay=2.0, bounding_box_size=0.5)
    assert result["llc_mean"].dims == ("lr", "n_beta", "localization")
    assert result.attrs["llc_weight_decay"] == 2.0
    assert "lr" not in result.attrs


@pytest.mark.parametrize("init_loss", ["dataset", "init_batches"])
def test_other_levels_of_the_loss(init_loss):
    cell = {"lr": 1e-3, "n_beta": 5.0, "localization": 1.0}
    of_sweep = mlp_sweep(init_loss=init_loss, include_burnin=True).sel(cell)
    alone = mlp_llc(init_loss=init_loss, include_burnin=True, **cell)
    assert of_sweep.attrs["init_loss_method"] == init_loss
    np.testing.assert_allclose(of_sweep["llc_mean"].values, alone["llc_mean"].values, **CLOSE)


def quadratic_sweep(**changes):
    """Curvatures h of 0.5 … 4 at nβ = 30: SGLD is stable where ε·(nβ·h + γ)/2 < 2, so for ε below 0.03."""
    given = {"lr": [1e-6, 3e-3, 1.0], "n_beta": 30.0, "localization": 1.0, "num_chains": 3, "num_draws": 500}
    kept = {"num_burnin_steps": 100, "batch_size": 4, "loss_fn": quadratic_loss, "progress": False}
    return sltfast.sweep(Quadratic(torch.linspace(0.5, 4, 20)), ONES, **{**given, **kept, **changes})


def test_a_cell_whose_chains_die_is_nan_and_diverged_and_the_others_are_as_they_were():
    with pytest.warns(sltfast.ChainDiverged, match="3 chains in 1 of 3 cells") as told:
        result = quadratic_sweep()
    assert len(told) == 1
    dead = result.sel(lr=1.0).squeeze()
    for name in ("llc_mean", "llc_se", "llc_mcse", "llc_per_chain", "rhat", "ess", "drift"):
        assert np.isnan(dead[name].values).all(), name
    assert str(dead["verdict"].values) == "diverged"
    assert (int(dead["chains_alive"]), int(dead["chains_diverged"])) == (0, 3)
    assert (dead["death_step"].values > 0).all()
    # a chain is recorded until it dies
    first_nan = np.isnan(dead["loss_trace"].values).argmax(axis=-1)
    assert (first_nan > 0).all()
    living = quadratic_sweep(lr=[1e-6, 3e-3])
    for name in ESTIMATED[:-1]:
        np.testing.assert_allclose(result[name].values[:2], living[name].values, rtol=1e-5, err_msg=name)


def test_recommended_is_what_neither_diverges_nor_creeps():
    with pytest.warns(sltfast.ChainDiverged):
        result = quadratic_sweep()
    assert result["verdict"].values.squeeze().tolist() == ["drifting", "converged", "diverged"]
    assert result.attrs["recommended"] == {"lr": 3e-3, "n_beta": 30.0, "localization": 1.0}
    assert "could not be tested" in result.attrs["recommendation"]
    assert result["recommended"].values.squeeze().tolist() == [False, True, False]
    chosen = result.sel(result.attrs["recommended"])
    h = torch.linspace(0.5, 4, 20).double().numpy()
    # SGLD's stationary variance with precision a = nβ·h + γ is 1/(a·(1 − εa/4)), so λ̂ = Σ nβ·h/(2a(1 − εa/4))
    a = 30.0 * h + 1.0
    exact = float((30.0 * h / (2 * a * (1 - 3e-3 * a / 4))).sum())
    assert abs(float(chosen["llc_mean"]) - exact) < 4 * float(chosen["llc_se"])


def test_all_cells_dead_is_an_error_with_the_samples():
    with pytest.raises(sltfast.AllChainsDied) as caught:
        quadratic_sweep(lr=[1.0, 2.0])
    assert caught.value.samples.sizes["chain"] == 6
    with pytest.raises(sltfast.AllChainsDied, match="no chain of any cell"):
        sltfast.compute_sweep(caught.value.samples)


def test_a_sweep_on_disk_is_resumed_bit_for_bit_and_not_run_again(tmp_path, monkeypatch):
    path, whole = tmp_path / "sweep", mlp_sweep(num_draws=60)
    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(flight, "STATE_COST", 0.0)
    step = flight.Flight.step

    def interrupted(self, at):
        if at == 33:
            raise KeyboardInterrupt
        step(self, at)

    with monkeypatch.context() as patch:
        patch.setattr(flight.Flight, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mlp_sweep(num_draws=60, output_path=path)
    resumed = mlp_sweep(num_draws=60, output_path=path, lr=sorted(GRID["lr"]))
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name].values, whole[name].values, err_msg=str(name))
    with monkeypatch.context() as patch:
        patch.setattr(Run, "chains", None)  # to sample again would fail
        again = mlp_sweep(num_draws=60, output_path=path)
    read = sltfast.compute_sweep(sltfast.open(path))
    for found in (again, read):
        assert found.equals(resumed)
        assert found.attrs == resumed.attrs
    with pytest.raises(sltfast.OutputMismatch, match="cells"):
        mlp_sweep(num_draws=60, output_path=path, n_beta=[5.0, 30.0])


def test_a_sweep_s_samples_are_not_taken_for_one_setting_s(tmp_path):
    mlp_sweep(output_path=tmp_path / "sweep")
    with pytest.raises(ValueError, match=r"8 cells of a sweep: use sltfast\.compute_sweep"):
        sltfast.compute_llc(sltfast.open(tmp_path / "sweep"))
    x, y = regression_data()
    samples = sltfast.sample(Mlp(), (x, y), loss_fn=regression_loss, lr=1e-3, n_beta=5.0, **SHORT)
    with pytest.raises(ValueError, match=r"use sltfast\.compute_llc"):
        sltfast.compute_sweep(samples)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": []}, "lr is an empty sequence"),
        ({"n_beta": [1.0, 2.0, 1]}, "n_beta holds 1 more than once"),
        ({"localization": [1.0, "2"]}, "localization must be a finite number or a sequence of them, got '2'"),
        ({"lr": "1e-3"}, "lr must be a number or a sequence of numbers, got '1e-3'"),
        ({"lr": [1e-3, True]}, "got True"),
        ({"lr": [1e-3, float("nan")]}, "got nan"),
        ({"lr": [[1e-3], [1e-4]]}, r"got \[0.001\]"),
        ({"lr": [1e-3, -1e-3]}, "lr must be > 0, got -0.001"),
        ({"localization": [-1.0, 1.0]}, "localization must be >= 0, got -1"),
        ({"n_beta": None}, "n_beta must be a finite number"),
        ({"bounding_box_size": [None, 0.0]}, "bounding_box_size must be > 0, got 0"),
        ({"num_chains": 0}, "num_chains must be a whole number >= 1, got 0"),
        ({"init_loss": "mean"}, "init_loss must be one of"),
    ],
)
def test_nonsense_is_refused_before_the_first_step(change, says, monkeypatch):
    monkeypatch.setattr("sltfast.chains.prepared.structural_clone", None)
    with pytest.raises(ValueError, match=says):
        mlp_sweep(**change)


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="there is no keyword 'num_drawz': did you mean 'num_draws'"):
        mlp_sweep(num_drawz=3)
    with pytest.raises(TypeError, match="observables must be a mapping"):
        sltfast.sweep(Mlp(), regression_data(), [1], loss_fn=regression_loss, **GRID)


def test_cells_that_sample_no_posterior_are_told_and_not_recommended():
    with pytest.warns(UserWarning, match="noise_level 0.5 is not 1"):
        result = mlp_sweep(noise_level=[0.5, 1.0], num_draws=40)
    assert not result["recommended"].sel(noise_level=0.5).any()


def test_the_caller_s_world_is_left_alone():
    model = Mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sltfast.sweep(model, regression_data(), loss_fn=regression_loss, **GRID, **SHORT)
    assert told == []
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
