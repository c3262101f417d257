"""Quadratures against closed forms, against quoted values, and the step bias of SGLD in one dimension."""

import numpy as np
import pytest

from sltfast.theory import quadratic_llc, quadratic_llc_sgld, quadrature_llc, quadrature_llc_sgld


@pytest.mark.parametrize(
    ("power", "gamma", "expected"),
    [
        (2, 1, 0.49657),
        (2, 10, 0.46769),
        (2, 100, 0.29572),
        (4, 1, 0.24030),
        (4, 10, 0.17064),
        (4, 100, 0.01793),
        (6, 1, 0.15441),
        (6, 10, 0.07829),
        (6, 100, 0.00104),
    ],
)
def test_localized_monomials(power, gamma, expected):
    value = quadrature_llc(lambda w: 0.5 * w**power, 144.765, gamma)
    assert abs(value - expected) < 6e-6  # quoted to five digits


@pytest.mark.parametrize(
    ("p", "q", "values"),
    [
        (2, 2, (0.3614, 0.3903, 0.4271, 0.4515)),
        (2, 4, (0.2095, 0.2249, 0.2420, 0.2486)),
        (4, 4, (0.1505, 0.1652, 0.1884, 0.2067)),
    ],
)
def test_normal_crossings(p, q, values):
    for n_beta, expected in zip((145.0, 1e3, 1e5, 1e8), values, strict=True):
        value = quadrature_llc(lambda x, y: x**p * y**q, n_beta, 1.0, center=(0.0, 0.0))
        assert abs(value - expected) < 1e-4  # quoted to four digits, the last one rounded


@pytest.mark.parametrize("n_beta", [1.0, 145.0, 1e5, 1e8])
def test_crossing_with_one_coordinate_integrated_out(n_beta):
    # ∫ dw2 e^{−nβ w1² w2² − γ w2²/2} = √(2π/(2 nβ w1² + γ)) leaves a ratio of integrals over w1 = e^u.
    gamma = 2.0
    u = np.linspace(-40.0, 3.5, 400_001)
    square = np.exp(2 * u)
    density = np.exp(u - gamma * square / 2) / np.sqrt(2 * n_beta * square + gamma)
    expected = np.sum(density * n_beta * square / (2 * n_beta * square + gamma)) / np.sum(density)
    value = quadrature_llc(lambda x, y: x**2 * y**2, n_beta, gamma, center=(0.0, 0.0))
    assert abs(value - expected) < 1e-5


@pytest.mark.parametrize("power", [2, 4, 6])
@pytest.mark.parametrize("n_beta", [10.0, 1e4])
def test_without_localization_a_monomial_gives_one_over_its_power(power, n_beta):
    # The mass beyond |w| = 4 is < e^{−10·4²/2}.
    value = quadrature_llc(lambda w: 0.5 * w**power, n_beta, radius=4.0)
    assert abs(value - 1 / power) < 1e-5


def test_two_dimensional_quadratic_is_the_closed_form():
    value = quadrature_llc(lambda x, y: 0.5 * (3 * (x - 1) ** 2 + 0.1 * (y + 2) ** 2), 50.0, 4.0, center=(1, -2))
    assert abs(value - quadratic_llc([3.0, 0.1], 50.0, 4.0)) < 1e-6


def test_ridge_away_from_the_coordinate_axes():
    # A regular point of the hyperbola w1 w2 = 1: rank-one Hessian, λ → ½ with corrections of order 1/nβ.
    value = quadrature_llc(lambda x, y: 0.5 * (x * y - 1) ** 2, 1e4, 1.0, center=(1.0, 1.0))
    assert abs(value - 0.5) < 1e-3


@pytest.mark.parametrize("lr", [2e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("gamma", [1.0, 10.0])
def test_discrete_chain_on_a_parabola_is_the_closed_form(lr, gamma):
    value = quadrature_llc_sgld(lambda w: 0.5 * w**2, lambda w: w, 144.765, gamma, lr)
    assert abs(value - quadratic_llc_sgld([1.0], 144.765, gamma, lr)) < 1e-8


@pytest.mark.parametrize("power", [4, 6])
def test_discrete_chain_tends_to_the_continuum_linearly_in_the_step(power):
    def chain(lr):
        return quadrature_llc_sgld(lambda w: 0.5 * w**power, lambda w: power / 2 * w ** (power - 1), 144.765, 1.0, lr)

    exact = quadrature_llc(lambda w: 0.5 * w**power, 144.765, 1.0)
    bias = [chain(lr) - exact for lr in (4e-4, 2e-4, 1e-4)]
    assert bias[0] > bias[1] > bias[2] > 0
    # Halving ε halves the bias up to a relative O(ε nβ); 5 % covers the next order here.
    assert abs(bias[0] / bias[1] - 2) < 0.1
    assert abs(bias[1] / bias[2] - 2) < 0.1


def test_discrete_chain_against_a_simulation():
    n_beta, gamma, lr, chains, steps = 144.765, 1.0, 2e-3, 4000, 3000
    rng = np.random.default_rng(0)
    w = np.zeros(chains)
    trace = np.zeros(chains)
    for step in range(steps):
        if step >= 1000:  # ten times the slowest relaxation of ½w⁴ at this nβ
            trace += n_beta * 0.5 * w**4
        w = w - lr / 2 * (n_beta * 2 * w**3 + gamma * w) + np.sqrt(lr) * rng.standard_normal(chains)
    means = trace / (steps - 1000)
    expected = quadrature_llc_sgld(lambda w: 0.5 * w**4, lambda w: 2 * w**3, n_beta, gamma, lr)
    assert abs(means.mean() - expected) < 4 * means.std(ddof=1) / np.sqrt(chains)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: quadrature_llc(np.square, -3.0, 1.0),
            r"n_beta must be finite and >= 0, got -3.0 \(use sltfast",
        ),
        (lambda: quadrature_llc(np.square, 10.0), "radius must be given when localization is 0"),
        (lambda: quadrature_llc(np.square, 10.0, 1.0, center=(0, 0, 0)), "one number or two"),
        (lambda: quadrature_llc(np.square, 10.0, 1.0, radius=0.0), "radius must be finite and > 0, got 0.0"),
        (lambda: quadrature_llc(lambda w: np.where(w > 1, np.nan, w), 10.0, 1.0), "not finite on the domain"),
        (
            lambda: quadrature_llc_sgld(np.square, lambda w: 2 * w, 10.0, 1.0, 0.0),
            "lr must be finite and > 0",
        ),
        (lambda: quadrature_llc_sgld(np.square, lambda w: 2 * w, 10.0, 1.0, 1e-9), "grid points over"),
        (lambda: quadrature_llc_sgld(lambda w: w**4, lambda w: 4 * w**3, 1e3, 1.0, 1e-2), "overshoots"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_potential_too_rough_for_the_rule_is_refused():
    with pytest.raises(ArithmeticError, match="did not reach tolerance"):
        quadrature_llc(lambda w: 0.5 * np.abs(np.sin(1e7 * w)), 50.0, 1.0, tolerance=1e-12)
