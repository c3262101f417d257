"""The heat map of a sweep: a panel for each localization, what failed hatched, what is recommended framed."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sltfast import plotting

DIMS = ("lr", "n_beta", "localization")


def result(**attrs) -> xr.Dataset:
    """Three step sizes by two temperatures by two localizations; at γ = 10 the largest step diverged."""
    llc = np.arange(12.0).reshape(3, 2, 2)
    llc[2, :, 1] = np.nan
    verdict = np.full(llc.shape, "converged", object)
    verdict[0, :, :] = "drifting"
    verdict[2, :, 1] = "diverged"
    recommended = np.zeros(llc.shape, bool)
    recommended[1, 1, 0] = True
    cell = {"lr": 1e-3, "n_beta": 30.0, "localization": 1.0}
    return xr.Dataset(
        {
            "llc_mean": (DIMS, llc),
            "llc_se": (DIMS, np.full(llc.shape, 0.25)),
            "ess": (DIMS, np.full(llc.shape, 120.0)),
            "verdict": (DIMS, verdict),
            "recommended": (DIMS, recommended),
        },
        coords={"lr": [1e-4, 1e-3, 1e-2], "n_beta": [10.0, 30.0], "localization": [1.0, 10.0]},
        attrs={"recommended": cell, **attrs},
    )


def patches(axes: Axes, label: str) -> list[Rectangle]:
    return [patch for patch in axes.patches if patch.get_label() == label]


def centre(patch: Rectangle) -> tuple[float, float]:
    x, y = patch.get_center()
    return round(float(x)), round(float(y))


def test_a_panel_for_each_localization_with_every_cell_written_out() -> None:
    figure = plotting.sweep_heatmap(result())
    first, second = figure.axes[:2]
    assert [axes.get_title() for axes in (first, second)] == ["γ 1", "γ 10"]
    assert [label.get_text() for label in second.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["10", "30"]
    written = {text.get_position(): text.get_text() for text in first.texts}
    assert written[1, 1] == "6.00\n± 0.25"  # llc[1, 1, 0]
    assert len(written) == 6
    assert {text.get_position(): text.get_text() for text in second.texts}[2, 0] == "diverged"


def test_what_failed_is_hatched_and_what_is_recommended_framed() -> None:
    first, second = plotting.sweep_heatmap(result()).axes[:2]
    assert sorted(centre(patch) for patch in patches(first, "_drifting")) == [(0, 0), (0, 1)]
    assert sorted(centre(patch) for patch in patches(second, "_diverged")) == [(2, 0), (2, 1)]
    assert all(patch.get_hatch() for patch in patches(second, "_diverged") + patches(first, "_drifting"))
    assert not any(patch.get_hatch() for patch in patches(first, "_converged"))
    assert [centre(patch) for patch in patches(first, "_recommended")] == [(1, 1)]
    assert patches(second, "_recommended") == []


def test_the_heading_says_what_is_recommended() -> None:
    heading = plotting.sweep_heatmap(result()).get_suptitle()
    for part in ("ε 0.001", "nβ 30", "γ 1", "6.00 ± 0.25", "ESS 120"):
        assert part in heading
    assert plotting.sweep_heatmap(result(recommended=None)).get_suptitle() == "no cell is recommended"
    assert plotting.sweep_heatmap(result(), title="mine").get_suptitle() == "mine"


def test_a_grid_of_one_cell_and_one_where_nothing_lived_are_drawn(tmp_path) -> None:
    one = result(recommended=None).isel(lr=[1], n_beta=[0], localization=[0])
    dead = result(recommended=None)
    dead["llc_mean"] = dead["llc_mean"] * np.nan
    for number, given in enumerate((one, dead)):
        path = plotting.save(plotting.sweep_heatmap(given), tmp_path / f"{number}.png")
        assert path.stat().st_size > 1000


def test_other_dimensions_have_panels_too() -> None:
    more = xr.concat([result(), result()], "llc_weight_decay", join="outer").assign_coords(llc_weight_decay=[0.0, 1.0])
    figure = plotting.sweep_heatmap(more.transpose(*DIMS, "llc_weight_decay", ...).assign_attrs(recommended=None))
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles[:4] == ["γ 1, λ 0", "γ 1, λ 1", "γ 10, λ 0", "γ 10, λ 1"]


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be that of sltfast.sweep .* it has \['n_beta', 'localization'\]"):
        plotting.sweep_heatmap(result().isel(lr=0))
