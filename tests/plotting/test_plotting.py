"""Figures show what the result holds, in axes that say so, and leave matplotlib's global state alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure

from sltfast import plotting

CHAINS, STEPS, BURNIN, N_BETA = 4, 60, 20, 50.0


def result(*, dead: int | None = None) -> xr.Dataset:
    """An estimate as compute_llc returns it: four chains that rise to 0.2 and stay there."""
    generator = np.random.Generator(np.random.Philox(7))
    rise = 0.2 * (1 - np.exp(-np.arange(STEPS) / 5))
    excess = rise + 0.02 * generator.standard_normal((CHAINS, STEPS))
    alive = np.ones(CHAINS, bool)
    death = np.full(CHAINS, -1)
    if dead is not None:
        excess[dead, 28:31] = [3.0, 400.0, 1e30]
        excess[dead, 31:] = np.nan
        alive[dead], death[dead] = False, 31
    kept = excess[alive, BURNIN:]
    per_chain = np.full(CHAINS, np.nan)
    per_chain[alive] = N_BETA * kept.mean(axis=1)
    return xr.Dataset(
        {
            "llc_mean": N_BETA * kept.mean(),
            "llc_se": 0.15,
            "llc_per_chain": ("chain", per_chain),
            "rhat": 1.01,
            "ess": 130.0,
            "excess_trace": (("chain", "step"), excess),
            "alive": ("chain", alive),
            "death_step": ("chain", death),
        },
        attrs={"n_beta": N_BETA, "num_burnin_steps": BURNIN, "verdict": "converged", "advice": "no change needed"},
    )


def curves(axes: matplotlib.axes.Axes) -> list[matplotlib.lines.Line2D]:
    return [line for line in axes.lines if line.get_label().startswith("chain")]


def test_trace_draws_every_chain_and_its_running_estimate() -> None:
    given = result()
    figure = plotting.plot_trace(given)
    above, below = figure.axes
    assert len(curves(above)) == len(curves(below)) == CHAINS
    for chain, line in enumerate(curves(above)):
        np.testing.assert_array_equal(line.get_ydata(), given["excess_trace"].values[chain])
    for chain, line in enumerate(curves(below)):
        assert line.get_xdata()[0] == BURNIN
        # a running mean ends at the mean; both sum the same 40 numbers, in another order at most
        np.testing.assert_allclose(line.get_ydata()[-1], given["llc_per_chain"].values[chain], rtol=1e-12)
    assert "nats" in above.get_ylabel()
    assert "λ̂" in below.get_ylabel()
    assert below.get_xlabel() == "step"


def test_trace_shades_burnin_and_the_error_band() -> None:
    above, below = plotting.plot_trace(result()).axes
    shaded = above.patches[0].get_extents().transformed(above.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((0, BURNIN))
    boxes = [patch.get_extents().transformed(below.transData.inverted()) for patch in below.patches]
    band = min(boxes, key=lambda box: box.height)
    mean = float(result()["llc_mean"])
    assert (band.y0, band.y1) == pytest.approx((mean - 0.15, mean + 0.15))


def test_trace_heading_says_the_estimate_and_the_verdict() -> None:
    heading = plotting.plot_trace(result()).get_suptitle()
    assert "R̂ = 1.010" in heading
    assert "ESS = 130" in heading
    assert "converged" in heading
    assert plotting.plot_trace(result(), title="mine").get_suptitle() == "mine"


def test_a_dead_chain_is_marked_and_does_not_flatten_the_others() -> None:
    above, below = plotting.plot_trace(result(dead=2)).axes
    assert [text.get_text() for text in above.texts] == ["chain 2 died"]
    crosses = [line for line in above.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[30]]
    assert -1 < above.get_ylim()[0] < above.get_ylim()[1] < 5
    assert [line.get_label() for line in curves(below)] == ["chain 0", "chain 1", "chain 3"]
    assert 0 < below.get_ylim()[0] < below.get_ylim()[1] < 3 * float(result()["llc_mean"])


def test_several_traces_have_a_panel_each() -> None:
    figure = plotting.plot_traces([result(), result(dead=0), result()], ["a", "b", "c"], columns=2)
    assert [axes.get_title() for axes in figure.axes if axes.axison] == ["a", "b", "c"]


def test_several_traces_want_a_title_each() -> None:
    with pytest.raises(ValueError, match="one title is needed for each result, got 1 and 2"):
        plotting.plot_traces([result()], ["a", "b"])


def test_llc_over_training_shares_a_logarithmic_axis() -> None:
    steps, losses, llcs, ses = [1, 10, 100], [5.0, 3.0, 2.0], [-1.0, 4.0, 20.0], [0.5, 0.2, 0.3]
    figure = plotting.plot_llc_over_training(steps, losses, llcs, ses, trusted=[False, True, True])
    above, below = figure.axes
    assert above.get_xscale() == below.get_xscale() == "log"
    (loss,) = [line for line in above.lines if line.get_label() == "checkpoints"]
    assert list(loss.get_ydata()) == losses
    (container,) = below.containers
    centre, _, (bars,) = container.lines
    assert list(centre.get_ydata()) == llcs
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, np.array([np.subtract(llcs, ses), np.add(llcs, ses)]).T)
    assert [list(line.get_xdata()) for line in below.lines if line.get_label() == "not converged"] == [[1]]
    assert "loss" in above.get_ylabel()
    assert "λ̂" in below.get_ylabel()


@pytest.mark.parametrize(("steps", "match"), [([1, 2], r"one length >= 1, got \[1, 2\]"), ([-1], "steps must be >= 0")])
def test_llc_over_training_refuses(steps: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        plotting.plot_llc_over_training(steps, [1.0], [1.0], [1.0])


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_figure_is_saved(tmp_path: Path, suffix: str) -> None:
    path = plotting.save(plotting.plot_trace(result()), tmp_path / f"trace{suffix}")
    assert path.stat().st_size > 1000


def test_no_global_state_is_touched() -> None:
    before = dict(matplotlib.rcParams)
    figure = plotting.plot_trace(result())
    assert isinstance(figure, Figure)
    assert dict(matplotlib.rcParams) == before
    assert not Gcf.figs  # pyplot's list of the figures it keeps
