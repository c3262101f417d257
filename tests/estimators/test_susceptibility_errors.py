"""Standard errors of χ against the scatter of many simulated runs."""

import numpy as np
import pytest
from scipy.signal import lfilter
from synthetic_runs import native_tree

from sltfast.estimators.blocks import BlockReader
from sltfast.estimators.susceptibility.chi import FullRun, susceptibility

REPLICATES, CHAINS, DRAWS, MEMORY = 600, 4, 160, 0.4


def correlated(rng):
    """[C, D] AR(1) of variance 1; its correlation time is some two draws, a tenth of a block."""
    noise = rng.standard_normal((CHAINS, DRAWS + 50)) * np.sqrt(1 - MEMORY**2)
    return lfilter([1.0], [1.0, -MEMORY], noise, axis=1)[:, 50:]


def run_of(phi, difference):
    """A run of one item whose mean loss moves by φ and whose item by φ − d, about levels of 2."""
    losses = {"task": (2 + phi)[..., None, None], "item": (2 + phi - difference)[..., None, None]}
    return BlockReader(native_tree(losses, {name: np.full((1, 1), 2.0) for name in losses}, dtype=np.float64), "task")


@pytest.fixture(scope="module", params=["independent", "shared"])
def simulated(request):
    """By estimator, (χ̂, se, se by chain, se by batch means) of many runs, and χ.

    φ = 3 + a in C, where d = 1 + a/2 + b; d = c in the full run, c = 0.9 b + … where they share their noise: then the
    errors of E_C[d] and E_F[d] take each other away.
    """
    rng, found = np.random.default_rng(4), {"two_chain": [], "single_chain": []}
    for _ in range(REPLICATES):
        a, b, c = (correlated(rng) for _ in range(3))
        if request.param == "shared":
            c = 0.9 * b + np.sqrt(1 - 0.81) * c
        part, full = run_of(3 + a, 1 + a / 2 + b), run_of(5 + c, c)
        for name, estimate in susceptibility(part.items("item"), FullRun.of(full.items("item")), 2.0).items():
            found[name].append([float(field[0, 0]) for field in estimate])
    return {name: np.array(rows) for name, rows in found.items()}, {"single_chain": 0.5, "two_chain": 0.5 + 3 * 1.0}


def variance_of_means(estimator, noise, length):
    """Var χ̂ as means of ``length`` draws tell it, to first order.

    The error of χ̂ is the mean of a²/2 + ab in C, of correlation ρ²ᵏ, and for two chains of 2.5 a + 3 b in C − 3 c in F,
    of correlation ρᵏ. A mean of n draws of variance 1 and correlation rᵏ has n times its variance
    (1 + r)/(1 − r) − 2 r (1 − rⁿ)/(n (1 − r)²).
    """

    def times_variance(r):
        return (1 + r) / (1 - r) - 2 * r * (1 - r**length) / (length * (1 - r) ** 2)

    linear = {"independent": 2.5**2 + 3**2 + 3**2, "shared": 2.5**2 + 3**2 * (0.1**2 + 0.19)}[noise]
    products = (0.5 + 1.0) * times_variance(MEMORY**2)
    linear *= times_variance(MEMORY) if estimator == "two_chain" else 0
    return (linear + products) / (CHAINS * DRAWS)


@pytest.mark.parametrize("estimator", ["two_chain", "single_chain"])
def test_the_errors_are_the_scatter(simulated, estimator, request):
    found, truth = simulated
    value, se, by_chain, by_batches = found[estimator].T
    scatter = value.std(ddof=1)
    # the pooled covariance is small by 1/(draws/τ) = 1/270 of itself, beside the error of the mean of 600
    assert abs(value.mean() - truth[estimator]) < 4 * scatter / np.sqrt(REPLICATES) + 0.5 / 270
    # Both squared errors estimate the variance; the scatter's own error is √(2/600). A block holds nine times the
    # correlation time, (1 + ρ)/(1 − ρ), of which batch means miss a twentieth: ρ/((1 − ρ²)·20)·2.
    exact = variance_of_means(estimator, request.node.callspec.params["simulated"], DRAWS)
    assert abs(scatter**2 / exact - 1) < 4 * np.sqrt(2 / REPLICATES) + 2 / 270
    for error, length in ((by_chain, DRAWS), (by_batches, DRAWS // 8)):
        # against the closed form their own scatter over the replicates is all there is: 13 % for 3 degrees of freedom,
        # 4 % for 31, so that a divisor of C for C − 1 (a quarter) or noise counted twice is seen
        ratio = error**2 / variance_of_means(estimator, request.node.callspec.params["simulated"], length)
        assert abs(ratio.mean() - 1) < 4 * ratio.std(ddof=1) / np.sqrt(REPLICATES) + 2 / 270
        assert 1 - 4 * np.sqrt(2 / REPLICATES) - 0.05 < np.mean(error**2) / scatter**2 < 1 + 4 * np.sqrt(2 / REPLICATES)
    np.testing.assert_array_equal(se, np.maximum(by_chain, by_batches))
    # the nominal 95 % interval covers 95 % at least, to 4 binomial errors
    covered = np.mean(np.abs(value - truth[estimator]) < 1.96 * se)
    assert covered > 0.95 - 4 * np.sqrt(0.95 * 0.05 / REPLICATES)


def test_the_full_runs_error_joins_and_shared_noise_takes_it_away(simulated, request):
    found, _ = simulated
    scatter = found["two_chain"][:, 0].std(ddof=1)
    # E_C[φ] = 3 times the error of E_F[d], from 640 draws of variance 1 and correlation time (1 + ρ)/(1 − ρ)
    of_full = 3 * np.sqrt((1 + MEMORY) / (1 - MEMORY) / (CHAINS * DRAWS))
    shared = "shared" in request.node.callspec.id
    assert (scatter < of_full) if shared else (scatter > 1.3 * of_full)


def test_one_chain_has_batch_means_alone():
    rng = np.random.default_rng(0)
    a, b = correlated(rng)[:1], correlated(rng)[:1]
    part, full = run_of(3 + a, 1 + b), run_of(b, b)
    for estimate in susceptibility(part.items("item"), FullRun.of(full.items("item")), 2.0).values():
        assert np.isnan(estimate.se_chains).all()
        np.testing.assert_array_equal(estimate.se, estimate.se_batch_means)
        assert np.isfinite(estimate.se).all()
