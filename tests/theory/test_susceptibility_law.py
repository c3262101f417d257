"""χ of linear regression in closed form, against its definition over exact draws."""

import numpy as np
import pytest

from sltfast.theory import LinearRegression, quadratic_llc_sgld, regression_covariance, regression_susceptibility

MOVES = np.array([True, False, True, True])
LAW = {"n_beta": 40.0, "localization": 6.0, "lr": 0.01}


def regression(seed=0, n=30, d=4):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.linspace(0.5, 1.5, d)
    return LinearRegression(x, x @ rng.standard_normal(d) + 0.6 * rng.standard_normal(n))


@pytest.mark.parametrize("estimator", ["two_chain", "single_chain"])
def test_it_is_the_definition_over_exact_draws(estimator):
    fit, rng = regression(), np.random.default_rng(1)
    draws = {}
    for run, moves in (("C", MOVES), ("F", None)):
        covariance = regression_covariance(fit, **LAW, moves=moves)
        away = rng.multivariate_normal(np.zeros(4), covariance, size=200_000, method="eigh")
        draws[run] = 0.5 * ((fit.optimum + away) @ fit.x.T - fit.y) ** 2  # [draws, rows] losses
    losses, full = draws["C"], draws["F"]
    mean = losses.mean(1)
    phi = mean - (0.5 * fit.residuals**2).mean()
    if estimator == "two_chain":
        values = phi[:, None] * (mean[:, None] - losses - (full.mean() - full.mean(0)))
        # the full run's own error joins: E_C[φ] times that of E_F[ℓ_i − L]
        of_full = phi.mean() * (full.mean(1)[:, None] - full).std(0)
    else:
        values, of_full = -(phi - phi.mean())[:, None] * (losses - mean[:, None]), 0.0
    error = np.hypot(values.std(0), of_full) / np.sqrt(len(values))
    expected = regression_susceptibility(fit, fit.x, **LAW, moves=MOVES, estimator=estimator)
    # 30 rows: 4.5 standard errors are passed by one in 5 000 of such tests
    assert (np.abs(values.mean(0) - expected) < 4.5 * error).all()
    assert np.abs(expected).max() > 20 * error.max()


def test_the_mean_over_the_fits_own_rows_is_zero():
    fit = regression()
    for estimator in ("two_chain", "single_chain"):
        chi = regression_susceptibility(fit, fit.x, **LAW, moves=MOVES, estimator=estimator)
        assert abs(chi.mean()) < 1e-14 * np.abs(chi).max() * len(chi)


def test_the_estimators_differ_for_a_part_and_agree_for_the_whole():
    fit = regression()
    one, other = (
        regression_susceptibility(fit, fit.x, **LAW, moves=MOVES, estimator=e) for e in ("two_chain", "single_chain")
    )
    assert np.abs(one - other).max() > 0.5 * np.abs(other).max()
    whole = [regression_susceptibility(fit, fit.x, **LAW, estimator=e) for e in ("two_chain", "single_chain")]
    np.testing.assert_array_equal(*whole)


def test_the_covariance_is_that_of_the_learning_coefficient():
    fit = regression()
    covariance = regression_covariance(fit, **LAW)
    h = np.linalg.eigvalsh(fit.hessian)
    expected = quadratic_llc_sgld(h, LAW["n_beta"], LAW["localization"], LAW["lr"])
    assert 0.5 * LAW["n_beta"] * np.trace(fit.hessian @ covariance) == pytest.approx(expected, rel=1e-12)
    part = regression_covariance(fit, **LAW, moves=MOVES)
    assert not part[1].any()
    assert not part[:, 1].any()
    assert not regression_covariance(fit, **LAW, moves=[False] * 4).any()


def test_bad_arguments():
    fit = regression()
    with pytest.raises(ValueError, match=r"moves must have shape \(4,\)"):
        regression_covariance(fit, 1.0, 1.0, moves=[True])
    with pytest.raises(ValueError, match="must lie in"):
        regression_covariance(fit, 0.0, 0.0)
    with pytest.raises(ValueError, match="must lie in"):
        regression_covariance(fit, 100.0, 1.0, lr=1.0)
    with pytest.raises(ValueError, match=r"x must be \[m, 4\], got shape \(4,\)"):
        regression_susceptibility(fit, np.zeros(4), **LAW)
    with pytest.raises(ValueError, match="estimator must be"):
        regression_susceptibility(fit, fit.x, **LAW, estimator="three_chain")
