"""The distribution of the noise. Every bound is k standard errors of the statistic under N(0, 1), k = 5."""

import math

import numpy as np
import pytest
from scipy import stats

from sltfast import _C

COUNT = 1 << 22
K = 5.0


def draw(count: int = COUNT, *, seed: int = 2024, stream: int = 0, step: int = 0, chain: int = 0) -> np.ndarray:
    normals = _C.normals(seed=seed, stream=stream, step=step, chain=chain, first=0, count=count)
    return normals.astype(np.float64)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return draw()


# E x^{2k} = (2k − 1)!!, and Var x^m = E x^{2m} − (E x^m)²
@pytest.mark.parametrize(("power", "mean", "variance"), [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)])
def test_moments(sample, power, mean, variance) -> None:
    assert abs(np.mean(sample**power) - mean) < K * math.sqrt(variance / COUNT)


def test_kolmogorov_smirnov(sample) -> None:
    # p = 5.7e-7 is the two-sided tail of 5 standard errors
    assert stats.kstest(sample, "norm").pvalue > 5.7e-7


@pytest.mark.parametrize("position", range(4))
def test_each_word_of_a_counter_alone(sample, position) -> None:
    assert stats.kstest(sample[position::4], "norm").pvalue > 5.7e-7


@pytest.mark.parametrize("threshold", [2.0, 3.0, 4.0, 4.5])
@pytest.mark.parametrize("sign", [1, -1])
def test_tails(sample, threshold, sign) -> None:
    expected = COUNT * stats.norm.sf(threshold)
    found = np.count_nonzero(sign * sample > threshold)
    assert abs(found - expected) < K * math.sqrt(expected)


def test_never_beyond_the_largest_radius(sample) -> None:
    # u >= 2^-32: |ξ| <= √(64 ln 2)
    assert np.isfinite(sample).all()
    assert np.abs(sample).max() <= math.sqrt(64 * math.log(2))


PAIRS = {
    "element": (draw(1 << 20)[:-1], draw(1 << 20)[1:]),
    "group": (draw(1 << 20)[:-4], draw(1 << 20)[4:]),
    "step": (draw(1 << 20), draw(1 << 20, step=1)),
    "chain": (draw(1 << 20), draw(1 << 20, chain=1)),
    "stream": (draw(1 << 20), draw(1 << 20, stream=1)),
    "seed": (draw(1 << 20), draw(1 << 20, seed=2025)),
    "step against chain": (draw(1 << 20, step=1), draw(1 << 20, chain=1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_independent_across(name: str) -> None:
    x, y = PAIRS[name]
    # E xy = 0 with variance 1; E (x² − 1)(y² − 1) = 0 with variance 4: linear dependence and dependence of scale
    assert abs(np.mean(x * y)) < K / math.sqrt(len(x))
    assert abs(np.mean((x * x - 1) * (y * y - 1))) < K * 2 / math.sqrt(len(x))


def test_pair_of_one_box_muller_transform_is_isotropic(sample) -> None:
    cosine, sine = sample[0::4], sample[1::4]
    turn = np.arctan2(sine, cosine) / (2 * np.pi) + 0.5
    assert stats.kstest(turn, "uniform").pvalue > 5.7e-7
    assert stats.kstest((cosine**2 + sine**2) / 2, "expon").pvalue > 5.7e-7
