"""diagnose: of a run's loss and observables, against the traces themselves."""

import numpy as np
import pytest
import torch
import xarray as xr
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss

import sltfast
from sltfast.diagnostics import diagnose, trace_diagnostics
from sltfast.ops import METRICS

SETTINGS = {
    "lr": 2e-3,
    "n_beta": 10.0,
    "localization": 5.0,
    "num_chains": 3,
    "num_draws": 60,
    "num_burnin_steps": 10,
    "num_steps_bw_draws": 2,
    "batch_size": 8,
    "progress": False,
}


def samples(**changes):
    probe = regression_data(16, seed=4)
    observables = {"train": regression_data(), "probe": (probe, 2)}
    return sltfast.sample(Mlp(), regression_data(), observables, loss_fn=regression_loss, **{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def tree():
    return samples(save_metrics=True)


def test_every_row_is_its_traces(tree):
    found = diagnose(tree)
    assert list(found["observable"].values) == ["sampled loss", "train", "probe"]
    excess = (tree["loss"] - tree["init_loss_trace"]).values[:, 10:]
    # what is read of an observable is weighed alike here, and its mean at w* is that of the first batch of losses
    probe = (tree["loss_probe"].mean(("batch_probe", "token_pos"), dtype=np.float64)
             - tree["init_loss_probe"].mean()).values  # fmt: skip
    for name, values, spacing in (("sampled loss", excess, 1), ("probe", probe, 2)):
        one, row = trace_diagnostics(values), found.sel(observable=name)
        assert row["entries"] == values.shape[1]
        # the losses of items are recorded in float32, and their mean in float64
        assert float(row["mean"]) == pytest.approx(float(one.mean), abs=1e-6)
        assert float(row["ess_bulk"]) == pytest.approx(float(one.ess_bulk), rel=1e-3)
        assert float(row["rhat"]) == pytest.approx(float(one.rhat), rel=1e-4)
        assert float(row["tau"]) == pytest.approx(spacing * float(one.tau), rel=1e-3)
        assert float(row["signal_to_noise"]) == pytest.approx(abs(float(one.mean)) / float(one.se), rel=1e-3)
        assert float(row["suggested_steps_bw_draws"]) == pytest.approx(float(one.suggested_steps(spacing)), abs=1)
    llc = sltfast.compute_llc(tree)
    assert float(found["rhat"][0]) == float(llc["rhat"])
    assert float(found["tau"][0]) == float(llc["tau"])
    assert float(found["suggested_steps_bw_draws"][0]) == float(llc["suggested_steps_bw_draws"])
    assert float(found["drift"][0]) == float(llc["drift"])
    assert found["verdict"].values[0] == llc.attrs["verdict"]


def test_the_norms_of_a_step_are_averaged_after_burnin(tree):
    found = diagnose(tree)
    names = list(found["metric"].values)
    assert names == list(METRICS)
    kept = tree["metrics_noise"].values[:, 10:]
    assert float(found["metric_mean"].sel(metric="noise")) == pytest.approx(kept.astype(np.float64).mean(), rel=1e-6)
    assert float(found["metric_sd"].sel(metric="noise")) == pytest.approx(kept.astype(np.float64).std(), rel=1e-4)
    # √ε·|ξ| over d = 26 coordinates, |ξ|² ~ χ²_d: mean √ε·√d·(1 − 1/4d) and its error over 360 steps
    d = sum(p.numel() for p in Mlp().parameters())
    mean = (2e-3 * d) ** 0.5 * (1 - 1 / (4 * d))
    assert abs(float(found["metric_mean"].sel(metric="noise")) - mean) < 4 * (2e-3 / 2 / 360) ** 0.5
    assert "metric" not in diagnose(samples(num_draws=5)).dims


def test_a_dead_chain_is_left_out_and_told():
    curved = torch.tensor([1.0])
    observables = {"o": (ONES, 1)}
    settings = {**SETTINGS, "lr": 0.05, "num_chains": 2, "init_noise": 0.1}
    tree = sltfast.sample(Quadratic(curved), ONES, observables, loss_fn=quadratic_loss, **settings)
    broken = tree.dataset.copy(deep=True)
    broken["loss"][1, 30:] = np.nan
    broken["mean_loss_o"][1, 15:] = np.nan
    broken["death_step"][1], broken["alive"][1] = 30, False
    found = diagnose(xr.DataTree(broken))
    assert (found.attrs["chains"], found.attrs["chains_died"]) == (1, 1)
    assert set(found["verdict"].values) == {"diverged"}
    assert found.attrs["verdict"] == "diverged"
    assert "1 chain(s) met NaN" in found.attrs["advice"]
    alone = trace_diagnostics((tree["loss"] - tree["init_loss_trace"]).values[:1, 10:])
    assert float(found["mean"][0]) == pytest.approx(float(alone.mean))
    assert np.isnan(float(found["rhat"][0]))


def test_devinterps_tree_has_no_level_of_its_observables(tree):
    bare = tree.dataset[["sampling_loss_micro", "init_loss", "loss_probe"]].assign_attrs(tree.attrs)
    found = diagnose(xr.DataTree(bare))
    assert list(found["observable"].values) == ["sampled loss", "probe"]
    assert float(found["mean"].sel(observable="probe")) == pytest.approx(
        float(tree["mean_loss_probe"].mean()), rel=1e-5
    )
    assert np.isnan(float(found["signal_to_noise"].sel(observable="probe")))
    assert float(found["ess"].sel(observable="probe")) > 1


def test_an_interrupted_run_is_read_as_far_as_every_chain_has_it(tree):
    cut = tree.dataset.copy(deep=True).assign_attrs({**tree.attrs, "completed": 0})
    for chain, step in ((0, 70), (1, 60), (2, 80)):
        cut["loss"][chain, step:] = np.nan
        cut["mean_loss_probe"][chain, (step - 10) // 2 :] = np.nan
    with pytest.warns(UserWarning, match="interrupted"):
        found = diagnose(xr.DataTree(cut))
    assert list(found.sel(observable=["sampled loss", "probe"])["entries"].values) == [50, 25]


def test_what_is_no_tree_is_refused():
    with pytest.raises(ValueError, match="samples must be a tree"):
        diagnose(xr.DataTree())
