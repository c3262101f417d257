"""The cell to take: converged, on a plateau in the step size, then well mixed; or none, and why."""

import numpy as np
import pytest
import xarray as xr

from sltfast.estimators.recommendation import recommend

DIMS = ("lr", "n_beta", "localization")


def grid(llc, *, se=0.1, ess=100.0, verdict="converged", n_beta=(10.0,), **attrs) -> xr.Dataset:
    """λ̂ [lr, n_beta], one localization."""
    llc = np.asarray(llc, float)[..., None]
    shape = llc.shape
    full = {name: np.broadcast_to(np.asarray(v, float).reshape(-1, 1, 1), shape) for name, v in (("s", se), ("e", ess))}
    words = np.broadcast_to(np.asarray(verdict, object).reshape(-1, 1, 1), shape)
    return xr.Dataset(
        {"llc_mean": (DIMS, llc), "llc_se": (DIMS, full["s"]), "ess": (DIMS, full["e"]), "verdict": (DIMS, words)},
        coords={"lr": 10.0 ** np.arange(-4, shape[0] - 4), "n_beta": list(n_beta), "localization": [1.0]},
        attrs=attrs,
    )


def chosen(result: xr.Dataset) -> tuple[float | None, str]:
    choice = recommend(result, DIMS)
    if choice.cell is None:
        assert not choice.marked.any()
        return None, choice.why
    assert choice.marked.sum() == 1
    assert bool(result["llc_mean"].copy(data=choice.marked).sel(choice.cell))
    return choice.cell["lr"], choice.why


def test_the_best_mixed_cell_of_a_plateau() -> None:
    lr, why = chosen(grid([[5.0], [5.1], [5.2], [6.0]], ess=[20, 50, 90, 400]))
    assert lr == pytest.approx(1e-2)
    assert "the most effective draws (90) of 3 such cells" in why


def test_a_step_is_held_against_the_next_smaller_one_that_converged() -> None:
    verdicts = ["drifting", "converged", "converged", "diverged"]
    lr, _ = chosen(grid([[1.0], [5.0], [5.1], [np.nan]], ess=[900, 50, 90, 900], verdict=verdicts))
    assert lr == pytest.approx(1e-2)


def test_a_cell_without_a_neighbour_comes_after_those_of_a_plateau() -> None:
    alone = ["converged", "drifting", "converged", "converged"]
    lr, _ = chosen(grid([[5.0], [5.0], [7.0], [7.1]], ess=[900, 1, 50, 60], verdict=alone))
    assert lr == pytest.approx(1e-1)
    lr, why = chosen(grid([[5.0], [5.0]], ess=[30, 40], verdict=["drifting", "converged"]))
    assert lr == pytest.approx(1e-3)
    assert "a plateau in lr could not be tested" in why


def test_none_where_every_comparison_fails() -> None:
    lr, why = chosen(grid([[5.0], [6.0], [7.0]]))
    assert lr is None
    assert "in each of the 3 that converged" in why
    assert "add smaller values of lr" in why


def test_none_where_none_converged() -> None:
    lr, why = chosen(grid([[5.0], [np.nan]], verdict=["drifting", "diverged"]))
    assert lr is None
    assert "none converged (1 diverged, 1 drifting)" in why


def test_what_is_no_coefficient_is_not_recommended() -> None:
    choice = recommend(grid([[0.0, 5.0], [0.0, 5.0]], n_beta=(0.0, 10.0), ess=[10, 20]), DIMS)
    assert choice.cell == {"lr": pytest.approx(1e-3), "n_beta": 10.0, "localization": 1.0}
    assert "noise_level" in chosen(grid([[5.0], [5.0]], noise_level=0.5))[1]
