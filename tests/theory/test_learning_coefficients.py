"""Closed-form learning coefficients against each other and against the values the papers quote."""

from fractions import Fraction
from itertools import combinations, product
from math import ceil

import pytest

from sltfast.theory import (
    dln_learning_coefficient,
    monomial_learning_coefficient,
    rrr_learning_coefficient,
    separable_learning_coefficient,
)


def test_deep_linear_network_of_two_layers_is_reduced_rank_regression():
    cases = 0
    for M, H, N in product(range(1, 9), repeat=3):
        for r in range(min(M, H, N) + 1):
            assert dln_learning_coefficient([M, H, N], r) == rrr_learning_coefficient(M, H, N, r), (
                M,
                H,
                N,
                r,
            )
            cases += 1
    assert cases == 1808


@pytest.mark.parametrize(
    ("widths", "rank", "expected"),
    [
        ([5, 3, 5], 2, (9.5, 2)),
        ([10, 10, 10], 4, (45.5, 1)),
        ([2, 2, 2], 1, (2.0, 2)),
        ([1, 1, 1], 0, (0.5, 2)),
        ([1] * 5, 0, (0.5, 4)),
        ([6, 6, 6], 3, (17.0, 2)),
        ([4, 4, 4, 4], 2, (7.5, 3)),
        ([4] * 5, 2, (7.5, 5)),
        ([5, 5, 5, 5], 2, (11.0, 1)),
        ([10, 8, 6, 8, 10], 3, (32.0, 2)),
        ([20, 20, 20, 20], 5, (162.5, 1)),
        ([3, 2, 3], 1, (3.5, 2)),
    ],
)
def test_deep_linear_network_values(widths, rank, expected):
    assert dln_learning_coefficient(widths, rank) == expected


def aoyagi_by_search(widths, rank):
    """The theorem as printed: search every Σ, not only sorted prefixes; all Σ found must agree."""
    excess = [width - rank for width in widths]
    found = set()
    for size in range(2, len(widths) + 1):
        for chosen in combinations(range(len(widths)), size):
            inside = [excess[s] for s in chosen]
            outside = [excess[s] for s in range(len(widths)) if s not in chosen]
            layers, total = size - 1, sum(inside)
            if total < layers * max(inside):
                continue
            if outside and not (max(inside) < min(outside) and total < layers * min(outside)):
                continue
            a = total - (ceil(Fraction(total, layers)) - 1) * layers
            value = Fraction(-rank * rank + rank * (widths[0] + widths[-1]), 2)
            value += Fraction(a * (layers - a), 4 * layers)
            value -= Fraction(layers * (layers - 1), 4) * Fraction(total, layers) ** 2
            value += Fraction(sum(x * y for x, y in combinations(inside, 2)), 2)
            found.add((float(value), a * (layers - a) + 1))
    assert len(found) == 1, (widths, rank, found)
    return found.pop()


def test_sorted_prefix_finds_the_set_of_the_theorem():
    for depth in (2, 3, 4, 5):
        for widths in product(range(1, 5), repeat=depth):
            for rank in range(min(widths) + 1):
                assert dln_learning_coefficient(widths, rank) == aoyagi_by_search(widths, rank), (
                    widths,
                    rank,
                )


def test_one_layer_is_a_regular_model_of_all_its_weights():
    for n_in, n_out, rank in product(range(1, 5), range(1, 5), range(2)):
        assert dln_learning_coefficient([n_in, n_out], rank) == (n_in * n_out / 2, 1)


def test_reversing_the_layers_changes_nothing():
    for widths in product(range(1, 5), repeat=4):
        assert dln_learning_coefficient(widths, 1) == dln_learning_coefficient(widths[::-1], 1)


@pytest.mark.parametrize(
    ("M", "H", "N", "expected"), [(5, 3, 5, 6.5), (5, 4, 5, 8), (4, 3, 8, 6), (8, 3, 4, 6), (3, 8, 4, 6)]
)
def test_reduced_rank_regression_at_rank_zero(M, H, N, expected):
    assert rrr_learning_coefficient(M, H, N, 0)[0] == expected


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        ([0, 1], (0.5, 1)),
        ([1, 1], (0.5, 2)),
        ([1, 2], (0.25, 1)),
        ([2, 2], (0.25, 2)),
        ([1, 3], (1 / 6, 1)),
        ([2, 3], (1 / 6, 1)),
    ],
)
def test_monomial_values(k, expected):
    assert monomial_learning_coefficient(k) == expected


def test_monomial_with_a_jacobian():
    # (h + 1)/(2k): 3/2, 2/4, 1/2.
    assert monomial_learning_coefficient([1, 2, 1], [2, 1, 0]) == (0.5, 2)


def test_separable_values():
    assert separable_learning_coefficient([2]) == (0.5, 1)
    assert separable_learning_coefficient([2, 4, 6]) == (float(Fraction(11, 12)), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dln_learning_coefficient([3], 0), "at least an input and an output"),
        (lambda: dln_learning_coefficient([3, 0, 3], 0), "widths must be >= 1, got"),
        (lambda: dln_learning_coefficient([3, 2, 3], 3), r"rank must be in 0 … 2 .* got 3"),
        (lambda: rrr_learning_coefficient(0, 1, 1, 0), "M, H and N must be >= 1"),
        (lambda: rrr_learning_coefficient(4, 2, 4, -1), r"r must be in 0 … 2 .* got -1"),
        (lambda: monomial_learning_coefficient([0, 0]), "at least one k_i must be > 0"),
        (lambda: monomial_learning_coefficient([1, -1]), "exponents must be >= 0"),
        (lambda: monomial_learning_coefficient([1, 1], [0]), "one entry per coordinate, got 2 and 1"),
        (lambda: separable_learning_coefficient([]), "at least one coordinate"),
        (lambda: separable_learning_coefficient([3]), r"even and >= 2 .* got \[3\]"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_fractional_sizes_are_refused():
    with pytest.raises(TypeError):
        dln_learning_coefficient([3.0, 2, 3], 1)
