"""Exponents of volumes that are known."""

import numpy as np
import pytest

from sltfast.analysis import volume_exponent
from sltfast.theory import monomial_learning_coefficient

RANDOM = np.random.default_rng(1).uniform(0, 1, 1_000_000)


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_a_pure_power(power: float) -> None:
    """P(|w|^p < ε) = ε^(1/p), exactly."""
    fit = volume_exponent(RANDOM**power, smallest=1e-3)
    exact = 1 / power
    assert abs(fit.exponent - exact) < 4 * fit.se  # four standard errors
    assert fit.se < 0.03 * exact
    # V(ε) at its quantile: sqrt(V/N) relative, four of them at V = 1e-2
    assert fit.thresholds[-1] ** exact == pytest.approx(1e-2, rel=4 / np.sqrt(10_000))


@pytest.mark.parametrize("k", [(1, 1), (1, 2), (2, 2), (1, 3)])
def test_monomials(k: tuple[int, int]) -> None:
    w = np.random.default_rng(2).uniform(-1, 1, (2, 1_000_000))
    exact, m = monomial_learning_coefficient(k)
    fit = volume_exponent(w[0] ** (2 * k[0]) * w[1] ** (2 * k[1]), multiplicity=m, smallest=1e-3)
    # four standard errors; the constant beside the logarithm is of order 1 where the logarithm itself is > 5
    assert abs(fit.exponent - exact) < 4 * fit.se + 0.04 * exact * (m - 1)


def test_the_wrong_multiplicity_is_seen() -> None:
    w = np.random.default_rng(3).uniform(-1, 1, (2, 1_000_000))
    plain = volume_exponent(w[0] ** 2 * w[1] ** 2, smallest=1e-3)
    assert plain.exponent + 4 * plain.se < 0.5  # the logarithm makes the slope flatter


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"excess": [-1.0, 1.0]}, "subtract the least loss"),
        ({"excess": [np.nan, 1.0]}, "finite"),
        ({"excess": RANDOM, "multiplicity": 0}, "multiplicity must be >= 1, got 0"),
        ({"excess": RANDOM, "smallest": 0.1, "largest": 0.01}, "0 < smallest < largest"),
        ({"excess": RANDOM[:1000]}, "1000 draws are too few for volumes of 0.0001: give 10000000 draws"),
        ({"excess": 1000 * RANDOM, "multiplicity": 2, "smallest": 0.01, "largest": 0.1}, "below 1 with a multiplicity"),
        ({"excess": np.zeros(10_000), "smallest": 0.1, "largest": 0.2}, "must be > 0"),
    ],
)
def test_bad_input(arguments: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        volume_exponent(**arguments)
