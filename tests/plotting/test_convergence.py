"""Autocorrelation and pair plots show what the traces hold."""

import numpy as np
import pytest
import xarray as xr
from autoregressive import ar1

from sltfast import plotting
from sltfast.diagnostics import autocorrelation, trace_diagnostics

CHAINS, DRAWS, BETWEEN, BURNIN = 3, 80, 4, 20
STEPS = BURNIN + DRAWS * BETWEEN


def samples(*, dead=None):
    """A run's tree: AR(1) losses, and three observables of which two go together."""
    loss = 2.0 + 0.1 * ar1(0.8, CHAINS, STEPS, seed=1)
    code = 0.2 + 0.05 * ar1(0.5, CHAINS, DRAWS, seed=2)
    variables = {
        "loss": (("chain", "step"), loss),
        "init_loss_trace": (("chain", "step"), np.full((CHAINS, STEPS), 1.8)),
        "alive": ("chain", np.ones(CHAINS, bool)),
        "death_step": ("chain", np.full(CHAINS, -1)),
    }
    for name, trace in (("code", code), ("prose", 2 * code), ("numbers", 0.1 * ar1(0.0, CHAINS, DRAWS, seed=3))):
        variables[f"mean_loss_{name}"] = (("chain", "draw"), 3.0 + trace)
        variables[f"init_mean_loss_{name}"] = ((), 3.0)
    if dead is not None:
        variables["loss"][1][dead, 50:] = np.nan
        variables["mean_loss_code"][1][dead, 10:] = np.nan
        variables["death_step"][1][dead], variables["alive"][1][dead] = 50, False
    sampler = {"n_beta": 10.0, "num_burnin_steps": BURNIN, "num_steps_bw_draws": BETWEEN}
    return xr.DataTree(xr.Dataset(variables, attrs={"metadata": {"config": {"sampler": sampler}}, "completed": 1}))


def test_every_trace_has_its_autocorrelation():
    tree = samples()
    figure = plotting.plot_autocorrelation(tree, max_lag=12)
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in drawn] == ["sampled loss", "code", "prose", "numbers"]
    loss = (tree["loss"] - tree["init_loss_trace"]).values[:, BURNIN:]
    code = tree["mean_loss_code"].values - 3.0
    for axes, values, spacing in ((drawn[0], loss, 1), (drawn[1], code, BETWEEN)):
        (pooled,) = [line for line in axes.lines if line.get_label() == "pooled"]
        np.testing.assert_array_equal(pooled.get_xdata(), spacing * np.arange(13))
        np.testing.assert_allclose(pooled.get_ydata(), autocorrelation(values, 12), atol=1e-12)
        own = [line for line in axes.lines if line.get_label().startswith("chain")]
        assert len(own) == CHAINS
        np.testing.assert_allclose(own[1].get_ydata(), autocorrelation(values[1:2], 12), atol=1e-12)
        steps = float(trace_diagnostics(values).suggested_steps(spacing))
        assert any(list(line.get_xdata()) == [steps, steps] for line in axes.lines)
        assert f"{steps:.0f} steps" in axes.texts[0].get_text()
    assert figure.get_supxlabel() == "lag (steps)"


def test_by_default_five_autocorrelation_times_are_drawn():
    tree = samples()
    axes = plotting.plot_autocorrelation(tree, title="mine").axes[0]
    tau = float(trace_diagnostics((tree["loss"] - tree["init_loss_trace"]).values[:, BURNIN:]).tau)
    assert axes.get_xlim()[1] == np.ceil(5 * tau)
    assert plotting.plot_autocorrelation(tree, title="mine").get_suptitle() == "mine"


def test_a_lag_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="max_lag must be a whole number from 0 to 79"):
        plotting.plot_autocorrelation(samples(), max_lag=100)


def test_pairs_draw_each_draw_of_each_chain():
    tree = samples()
    figure = plotting.plot_pairs(tree)
    grid = np.array(figure.axes).reshape(3, 3)
    clouds = [line for line in grid[1, 0].lines if line.get_label().startswith("chain")]
    assert len(clouds) == CHAINS
    for chain, cloud in enumerate(clouds):
        np.testing.assert_allclose(cloud.get_xdata(), tree["mean_loss_code"].values[chain] - 3.0)
        np.testing.assert_allclose(cloud.get_ydata(), tree["mean_loss_prose"].values[chain] - 3.0)
    means = [line for line in grid[1, 0].lines if line.get_marker() == "P"]
    assert means[2].get_xdata()[0] == pytest.approx(tree["mean_loss_code"].values[2].mean() - 3.0)
    assert [axes.get_xlabel() for axes in grid[2]] == ["code", "prose", "numbers"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["", "prose", "numbers"]
    assert not grid[0, 1].axison
    counted = sum(patch.get_data().values.sum() for patch in grid[0, 0].patches)
    assert counted == CHAINS * DRAWS


def test_a_dead_chain_is_not_drawn():
    figure = plotting.plot_pairs(samples(dead=1), ["code", "numbers"])
    clouds = [line for line in figure.axes[2].lines if line.get_label().startswith("chain")]
    assert len(clouds) == CHAINS - 1


@pytest.mark.parametrize("names", [["code"], ["code", "verse"]])
def test_pairs_want_two_observables_that_are_there(names):
    with pytest.raises(ValueError, match=r"observables must be at least two of \['code', 'prose', 'numbers'\]"):
        plotting.plot_pairs(samples(), names)
