"""What compute_weight_covariance makes of recorded weights, against plain numpy; and what it refuses."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss

import sltfast
from sltfast.estimators import weight_covariance as estimator
from sltfast.theory import quadratic_covariance_sgld

SHORT = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 3, "num_draws": 21, "batch_size": 8, "progress": False}


def covariance(weights="first.*", **changes):
    return sltfast.weight_covariance(Mlp(), regression_data(), weights, loss_fn=regression_loss, **{**SHORT, **changes})


def test_against_numpy():
    samples = sltfast.sample(Mlp(), regression_data(), record_weights="first.*", loss_fn=regression_loss, **SHORT)
    result = sltfast.compute_weight_covariance(samples, num_components=4)
    draws = samples["displacement"].values.astype(np.float64).reshape(-1, 20)
    plain = np.cov(draws.T)
    np.testing.assert_allclose(result["covariance"], plain, rtol=1e-9, atol=1e-12 * np.abs(plain).max())
    np.testing.assert_allclose(result["mean"], draws.mean(0), rtol=1e-9)
    vectors, values = result["eigenvector"].values, result["eigenvalue"].values
    np.testing.assert_allclose(plain @ vectors.T, vectors.T * values, atol=1e-9 * values[0])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-12)
    assert (vectors.max(axis=1) == np.abs(vectors).max(axis=1)).all()
    assert set(result["parameter"].values.tolist()) == {"first.weight", "first.bias"}
    assert result.attrs["num_draws"] == 21
    assert result.equals(covariance(num_components=4))


def test_one_chain_has_errors_by_batch_means_alone():
    result = covariance(num_chains=1)
    assert np.isfinite(result["covariance_se"]).all()
    assert np.isfinite(result["mean_se"]).all()


@pytest.mark.filterwarnings("ignore::sltfast.ChainDiverged")
def test_dead_chains_are_left_out():
    samples = sltfast.sample(
        Mlp(), regression_data(), record_weights="first.*", loss_fn=regression_loss, **SHORT
    ).dataset.copy(deep=True)
    samples["death_step"].values[1] = 10
    samples["displacement"].values[1, 10:] = np.nan
    with pytest.warns(sltfast.ChainDiverged, match="1 of 3 chains died"):
        result = sltfast.compute_weight_covariance(samples)
    kept = sltfast.compute_weight_covariance(samples.isel(chain=[0, 2]))
    np.testing.assert_array_equal(result["covariance"], kept["covariance"])
    assert result["alive"].values.tolist() == [True, False, True]
    samples["death_step"].values[:] = 10
    with pytest.raises(sltfast.AllChainsDied, match="no chain lived"):
        sltfast.compute_weight_covariance(samples)


def test_other_weights_stay_where_they_are():
    result = covariance("second.weight", param_masks="second.*")
    assert result.sizes["coordinate"] == 5
    with pytest.raises(ValueError, match="does not move"):
        covariance("first.weight", param_masks="second.*")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": None}, ValueError, r"weights must name the coordinates \('\*' for every parameter\), got None"),
        ({"num_components": 0}, ValueError, "num_components must be a whole number >= 1, got 0"),
        ({"record_weights": "*"}, TypeError, "give the coordinates once"),
        ({"num_draws": 1}, ValueError, "at least two draws a chain, got 1"),
        ({"weights": "third"}, ValueError, "names 'third'"),
    ],
)
def test_bad_input(changes, error, message):
    with pytest.raises(error, match=message):
        covariance(**changes)


def test_too_many_coordinates_are_refused_before_the_first_step(monkeypatch):
    monkeypatch.setattr(estimator, "MOST_COORDINATES", 19)
    with pytest.raises(ValueError, match="20 coordinates has 400 entries: choose at most 19"):
        covariance(num_draws=10**9)


def test_samples_without_weights_are_refused():
    samples = sltfast.sample(Quadratic(torch.ones(2)), ONES, loss_fn=quadratic_loss, **SHORT)
    with pytest.raises(ValueError, match="sample with record_weights"):
        sltfast.compute_weight_covariance(samples)


def test_samples_of_a_sweep_are_refused(tmp_path):
    given = {**SHORT, "n_beta": [5.0, 10.0], "record_weights": "w", "loss_fn": quadratic_loss}
    result = sltfast.sweep(Quadratic(torch.ones(2)), ONES, output_path=tmp_path / "run.zarr", **given)
    assert result.sizes["n_beta"] == 2
    with pytest.raises(ValueError, match="hold the 2 cells of a sweep, each with a covariance of its own"):
        sltfast.compute_weight_covariance(sltfast.open(tmp_path / "run.zarr"))


def test_the_law_refuses_what_has_none():
    np.testing.assert_allclose(quadratic_covariance_sgld([[2.0]], 3.0, 1.0, 1e-9), [[1 / 7]], rtol=1e-8)
    with pytest.raises(ValueError, match=r"eigenvalues in \(0, 4 / lr\) = \(0, 4\), got 0 to 1"):
        quadratic_covariance_sgld([[1.0, 0.0], [0.0, 0.0]], 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="symmetric matrix"):
        quadratic_covariance_sgld([[1.0, 2.0], [0.0, 1.0]], 1.0, 1.0)
