"""The fit over temperatures: its errors know that chains share noise; dead temperatures are left out; bad input."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss

import sltfast
from sltfast.estimators.temperatures import _line

SHORT = {"lr": 1e-3, "num_chains": 2, "num_draws": 20, "num_burnin_steps": 4, "batch_size": 8, "progress": False}


def mlp(**changes):
    kept = {"loss_fn": regression_loss, "n_betas": [5.0, 10.0, 20.0], **SHORT, **changes}
    return sltfast.llc_temperatures(Mlp(), regression_data(), **kept)


def test_the_error_of_the_slope_counts_what_temperatures_share():
    d, n_betas, groups, each = 40, [10.0, 20.0, 40.0], 24, 4
    model = Quadratic(torch.full((d,), 1.0, dtype=torch.float64), dtype=torch.float64)
    result = sltfast.llc_temperatures(
        model, ONES, n_betas=n_betas, loss_fn=quadratic_loss, batch_size=4, lr=4e-3, num_chains=groups * each,
        num_draws=400, num_burnin_steps=150, progress=False,
    )  # fmt: skip
    traces = result["excess_trace"].values[..., 150:]
    x, y = 1 / np.array(n_betas), traces.reshape(3, groups, each, -1).mean(axis=(2, 3))
    lines = [_line(x, y[:, g], traces[:, g * each : (g + 1) * each]) for g in range(groups)]
    for name in ("slope", "intercept"):
        found = np.array([getattr(line, name) for line in lines])
        claimed = np.array([getattr(line, f"{name}_se") for line in lines])
        ratio = found.std(ddof=1) / np.sqrt((claimed**2).mean())
        # a standard deviation of 24 is known to 1/√46 = 0.15; the larger of two errors claims somewhat too much
        assert 0.5 < ratio < 1.6, name


def test_each_temperature_is_its_own_run():
    result = mlp()
    assert result["llc_mean"].dims == ("n_beta",)
    for n_beta in (5.0, 10.0, 20.0):
        alone = sltfast.llc(Mlp(), regression_data(), loss_fn=regression_loss, n_beta=n_beta, **SHORT)
        cell = result.sel(n_beta=n_beta)
        # float32 products summed in another order, over 24 steps
        np.testing.assert_allclose(cell["llc_mean"], alone["llc_mean"], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(cell["mean_excess"] * n_beta, cell["llc_mean"], rtol=1e-12)
    assert result.attrs["lr"] == 1e-3
    assert bool(result["fitted"].all())


def test_the_level_of_the_loss_does_not_matter_to_the_slope():
    paired, other = mlp(), mlp(init_loss="dataset")
    np.testing.assert_allclose(paired["slope"], other["slope"], rtol=1e-9)
    np.testing.assert_allclose(paired["slope_se"], other["slope_se"], rtol=1e-9)
    assert float(paired["intercept"]) != float(other["intercept"])


def test_saved_samples_give_the_same(tmp_path):
    first = mlp(output_path=tmp_path / "run.zarr", include_burnin=True)
    read = sltfast.compute_llc_temperatures(sltfast.open(tmp_path / "run.zarr"), include_burnin=True)
    assert first.identical(read)


def test_a_temperature_with_a_dead_chain_is_left_out():
    model = Quadratic(torch.ones(3, dtype=torch.float64), dtype=torch.float64)
    given = {"loss_fn": quadratic_loss, "batch_size": 4, "lr": 0.1, "num_chains": 2, "progress": False}
    # ε nβ h/2 = 250 at nβ = 5000: every step multiplies w by −249
    with pytest.warns(sltfast.ChainDiverged, match="2 chains in 1 of 3 cells"):
        result = sltfast.llc_temperatures(model, ONES, n_betas=[5.0, 10.0, 5000.0], num_draws=600, **given)
    assert result["fitted"].values.tolist() == [True, True, False]
    assert np.isfinite(result["slope"])
    assert np.isnan(result["llc_mean"].sel(n_beta=5000.0))
    x, y = [1 / 5, 1 / 10], result["mean_excess"].values[:2]
    np.testing.assert_allclose(result["slope"], (y[0] - y[1]) / (x[0] - x[1]))
    with pytest.warns(sltfast.ChainDiverged) as told:
        result = sltfast.llc_temperatures(model, ONES, n_betas=[5.0, 5000.0], num_draws=600, **given)
    assert "only 1 of 2 temperatures kept all their chains" in str(told[-1].message)
    assert np.isnan(result["slope"])
    assert np.isnan(result["slope_se"])


def test_a_constant_loss_has_slope_zero():
    def constant(model, batch):
        return 0.0 * quadratic_loss(model, batch) + 1.0

    model = Quadratic(torch.ones(3))
    result = sltfast.llc_temperatures(model, ONES, n_betas=[1.0, 2.0], loss_fn=constant, **SHORT)
    assert float(result["slope"]) == 0.0
    assert float(result["slope_se"]) == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_betas": [5.0]}, "two or more different"),
        ({"n_betas": [5.0, 5.0]}, "two or more different"),
        ({"n_betas": 5.0}, "two or more different"),
        ({"n_betas": [0.0, 5.0]}, "finite and > 0"),
        ({"n_betas": [float("inf"), 5.0]}, "finite and > 0"),
        ({"lr": [1e-3, 1e-4]}, "lr must be one number"),
        ({"llc_weight_decay": [1.0, 2.0]}, "llc_weight_decay must be one number"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        mlp(**changes)


def test_a_sweep_of_more_than_temperatures_is_refused(tmp_path):
    path = tmp_path / "run.zarr"
    sltfast.sweep(
        Mlp(), regression_data(), loss_fn=regression_loss, n_beta=[5.0, 10.0], output_path=path,
        **{**SHORT, "lr": [1e-3, 1e-4]},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"differ in more than n_beta: \{'lr': 2, 'localization': 1\} values"):
        sltfast.compute_llc_temperatures(sltfast.open(path))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n": 1}, ValueError, "n must be a number of observations > 1, got 1"),
        ({"n": float("nan")}, ValueError, "n must be a number of observations > 1"),
        ({"n": True}, ValueError, "n must be a number of observations > 1"),
        ({"n_beta": 3.0}, TypeError, "wbic samples at n_beta = n / log n"),
        ({"draws": 3}, TypeError, "unexpected keyword argument 'draws'"),
    ],
)
def test_bad_input_of_wbic(changes, error, message):
    with pytest.raises(error, match=message):
        sltfast.wbic(Mlp(), regression_data(), loss_fn=regression_loss, **SHORT, **changes)


def test_wbic_is_made_of_the_level_and_the_coefficient():
    rows = regression_data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows), batch_size=8)
    result = sltfast.wbic(Mlp(), loader, loss_fn=regression_loss, **{**SHORT, "batch_size": None})
    assert float(result["n"]) == 40
    n_beta = 40 / np.log(40)
    alone = sltfast.llc(Mlp(), rows, loss_fn=regression_loss, n_beta=n_beta, **SHORT)
    level = regression_loss(Mlp(), rows).mean().item()
    np.testing.assert_allclose(result["init_loss_dataset"], level, rtol=1e-6)
    np.testing.assert_allclose(result["wbic"], 40 * level + np.log(40) * alone["llc_mean"], rtol=1e-6)
    np.testing.assert_allclose(result["wbic_se"], np.log(40) * alone["llc_se"], rtol=1e-4)
