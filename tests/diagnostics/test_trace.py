"""R̂, ESS and τ of many traces at once, against ArviZ one by one and against closed forms."""

import math
import warnings

import numpy as np
import pytest
from arviz_stats.base import array_stats
from autoregressive import ar1

from sltfast import diagnostics
from sltfast.diagnostics import autocorrelation, suggested_steps, trace_diagnostics


def one_by_one(trace):
    """ArviZ's numbers of a single trace [chain, draw]."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return {
            "rhat": array_stats.rhat(trace, **axes) if len(trace) > 1 else math.nan,
            "ess": array_stats.ess(trace, method="mean", **axes),
            "ess_bulk": array_stats.ess(trace, method="bulk", **axes),
            "ess_tail": array_stats.ess(trace, method="tail", prob=(0.05, 0.95), **axes),
            "mcse": array_stats.mcse(trace, method="mean", **axes),
        }


@pytest.mark.parametrize(("chains", "draws"), [(4, 200), (3, 63), (1, 50), (2, 4), (2, 5), (5, 9), (2, 16)])
def test_all_at_once_is_arviz_one_by_one(chains, draws):
    kinds = [ar1(rho, chains, draws, (2, 1), seed=k) for k, rho in enumerate((-0.7, 0.0, 0.6, 0.99))]
    apart = ar1(0.3, chains, draws, (2, 1)) + 2.0 * np.arange(chains)[:, None, None, None]
    trace = np.concatenate([*kinds, apart], axis=3)  # [chain, draw, 2, 5]
    found = trace_diagnostics(trace)
    assert found.mean.shape == (2, 5)
    for index in np.ndindex(2, 5):
        for name, value in one_by_one(trace[:, :, *index]).items():
            # both are sums of the same few hundred numbers in float64, in another order
            assert getattr(found, name)[index] == pytest.approx(value, rel=1e-9, nan_ok=True), (name, index)


def test_items_do_not_depend_on_their_company(monkeypatch):
    trace = ar1(0.5, 3, 40, (23,))
    together = trace_diagnostics(trace)
    monkeypatch.setattr("sltfast.diagnostics.trace.CHUNK", 5 * 120)  # 23 items in chunks of 5
    apart = trace_diagnostics(trace)
    for name in together._fields:
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), rtol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_integrated_time_is_that_of_the_process(rho):
    found = trace_diagnostics(ar1(rho, 4, 2000, (40,)), ranks=False)
    exact = (1 + rho) / (1 - rho)
    errors = (found.tau - exact) / found.tau_se
    # 40 independent traces: their mean within 4 of its own standard errors, and a tenth of τ for Geyer's rule, which
    # stops where the noise tells it to. The spread is the one told to a factor: τ's error is asymptotic.
    assert abs(found.tau.mean() - exact) < 4 * found.tau.std(ddof=1) / math.sqrt(40) + 0.1 * exact
    assert 0.4 < errors.std(ddof=1) < 1.6
    assert np.isnan(found.rhat).all()
    assert np.isnan(found.ess_bulk).all()


def test_the_autocorrelation_is_that_of_the_process():
    draws, rho = 8000, 0.8
    found = autocorrelation(ar1(rho, 4, draws, (3,)), max_lag=20)
    assert found.shape == (21, 3)
    exact = rho ** np.arange(21)
    # Bartlett: Var ρ̂_t <= (1 + 2Σρ^2s)/N for the traces that are averaged here
    bound = 5 * math.sqrt((1 + rho**2) / (1 - rho**2) / (4 * draws))
    assert np.abs(found - exact[:, None]).max() < bound
    np.testing.assert_array_equal(found[0], 1.0)


def test_chains_that_disagree_stay_correlated():
    apart = ar1(0.0, 4, 500) + 5.0 * np.arange(4)[:, None]
    assert autocorrelation(apart, max_lag=100)[50] > 0.9
    found = trace_diagnostics(apart)
    assert found.tau > 50
    assert found.rhat > 1.5


@pytest.mark.parametrize("rho", [0.3, 0.9, 0.97])
def test_suggested_steps_leave_a_twentieth(rho):
    steps = float(suggested_steps((1 + rho) / (1 - rho)))
    assert rho**steps <= 0.05 < rho ** (steps - 1)
    # the same process read at every third step
    kept = rho**3
    thinned = float(suggested_steps((1 + kept) / (1 - kept), steps_between=3))
    assert thinned == max(steps, 3.0)


def test_independent_draws_need_no_more_steps():
    assert float(suggested_steps(1.0, 7)) == 7.0
    assert float(suggested_steps(0.4, 7)) == 7.0  # antithetic
    assert math.isnan(float(suggested_steps(math.nan, 7)))
    with pytest.raises(ValueError, match="steps_between must be a whole number >= 1, got 0"):
        suggested_steps(1.0, 0)


def test_padding_and_constants_are_told_from_the_rest():
    trace = ar1(0.2, 3, 60, (4,))
    trace[1, 5, 1] = math.nan
    trace[:, :, 2] = 3.0
    found = trace_diagnostics(trace)
    assert np.isnan([getattr(found, name)[1] for name in found._fields]).all()
    assert (found.mean[2], found.se[2]) == (3.0, 0.0)
    assert math.isnan(found.tau[2])
    assert math.isnan(found.rhat[2])
    alone = trace_diagnostics(trace[:, :, [0, 3]])
    np.testing.assert_allclose(found.ess[[0, 3]], alone.ess)
    assert np.isnan(autocorrelation(trace)[:, [1, 2]]).any(axis=0).all()
    few = trace_diagnostics(trace[:, :3])
    assert np.isfinite(few.mean[[0, 2, 3]]).all()
    assert np.isnan(few.se).all()


def test_single_precision_is_read_in_double():
    trace = ar1(0.5, 2, 100, (3,)).astype(np.float32)
    np.testing.assert_array_equal(trace_diagnostics(trace).ess, trace_diagnostics(trace.astype(np.float64)).ess)


def test_as_a_dataset():
    found = trace_diagnostics(ar1(0.0, 2, 30, (2, 3)))
    table = found.to_dataset(("item", "token_pos"), {"item": ["a", "b"]})
    assert table["rhat"].sel(item="b").dims == ("token_pos",)
    np.testing.assert_array_equal(table["tau"], found.tau)
    np.testing.assert_allclose(found.signal_to_noise, np.abs(found.mean) / found.se)


@pytest.mark.parametrize("shape", [(5,), (2, 0), (2, 5, 0)])
def test_no_trace(shape):
    for function in (trace_diagnostics, autocorrelation):
        with pytest.raises(ValueError, match=r"a trace must have shape \[chain, draw, …\]"):
            function(np.zeros(shape))


def test_lags_that_are_not_there():
    with pytest.raises(ValueError, match="max_lag must be a whole number from 0 to 9"):
        autocorrelation(np.zeros((2, 10)), max_lag=10)
    with pytest.raises(ValueError, match="at least 2 draws"):
        autocorrelation(np.zeros((2, 1)))


def test_every_public_name_is_there():
    assert [name for name in diagnostics.__all__ if not hasattr(diagnostics, name)] == []
