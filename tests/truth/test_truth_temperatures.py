"""The slope of E[L] against 1/nβ is the learning coefficient; WBIC of a quadratic."""

import math

import numpy as np
import pytest
import torch
from potentials import ROWS, Means, Potential, Quadratic, per_row, same_for_every_row

import sltfast
from sltfast.theory import quadratic_llc, quadratic_llc_sgld, quadrature_llc_sgld

N_BETAS = [20.0, 40.0, 80.0, 160.0]


def at_temperatures(model, **settings):
    return sltfast.llc_temperatures(
        model, ROWS, loss_fn=same_for_every_row, batch_size=4, n_betas=N_BETAS, num_chains=4, progress=False, **settings
    )


def slope_of(points, errors):
    """The weighted least-squares slope of exact points, an independent way to it."""
    x = 1 / np.array(N_BETAS)
    return np.polyfit(x, points, 1, w=1 / errors)[0]


def test_the_slope_of_a_quadratic_is_half_its_rank():
    h, copies, lr = (0.0, 0.0, 0.5, 1.0, 2.0), 100, 1e-3
    result = at_temperatures(
        Quadratic(torch.tensor(h, dtype=torch.float64).repeat(copies), dtype=torch.float64),
        lr=lr,
        num_draws=1500,
        num_burnin_steps=1000,  # 2/(ε nβ h) ≤ 200 steps
    )
    expected = [copies * quadratic_llc_sgld(h, n_beta, 0.0, lr) / n_beta for n_beta in N_BETAS]
    exact = slope_of(expected, result["mean_excess_se"].values)
    slope, error = float(result["slope"]), float(result["slope_se"])
    assert abs(slope - exact) < 4 * error
    # A step's bias of ε h/8 is the same at every temperature: the intercept has it, and the slope only its square.
    assert abs(exact - copies * 3 / 2) < 0.003 * copies * 3 / 2
    assert abs(slope - copies * 3 / 2) < 4 * error + 0.003 * copies * 3 / 2
    assert error < 0.03 * slope
    assert abs(float(result["intercept"]) - copies * lr * sum(h) / 8) < 4 * float(result["intercept_se"]) + 1e-3
    np.testing.assert_allclose(result["mean_excess"], expected, atol=4.5 * result["mean_excess_se"].values.max())


def quartic(n_beta, lr):
    radius = (100 / n_beta) ** 0.25  # where the density has fallen by e^−50
    return quadrature_llc_sgld(lambda w: 0.5 * w**4, lambda w: 2 * w**3, n_beta, 0.0, lr, radius=radius)


def test_the_slope_of_a_quartic_is_a_quarter():
    copies, lr = 400, 5e-4
    result = at_temperatures(
        Potential(torch.zeros(copies, dtype=torch.float64), lambda w: 0.5 * (w**4).sum()),
        lr=lr,
        num_draws=2500,
        num_burnin_steps=2000,  # the density is 0.4 wide at nβ = 20 and w diffuses √(ε t): 0.4²/ε = 320 steps relax it
    )
    expected = [copies * quartic(n_beta, lr) / n_beta for n_beta in N_BETAS]
    exact = slope_of(expected, result["mean_excess_se"].values)
    slope, error = float(result["slope"]), float(result["slope_se"])
    assert abs(slope - exact) < 4 * error
    assert abs(exact - copies / 4) < 0.01 * copies / 4
    assert error < 0.05 * copies / 4  # ½, a regular coordinate's, is 20 errors away


def test_a_wrong_level_moves_the_intercept_alone():
    # λ̂ at each temperature is measured from w*, half a loss above the minimum; the slope does not know of it.
    d, curvature, apart, lr = 300, 2.0, 0.05, 1e-3
    y = torch.zeros(4, d, dtype=torch.float64)
    result = sltfast.llc_temperatures(
        Means(torch.full((d,), curvature, dtype=torch.float64), torch.full((d,), apart, dtype=torch.float64)),
        y,
        loss_fn=per_row,
        lr=lr,
        n_betas=N_BETAS,
        batch_size=4,
        num_chains=4,
        num_draws=1200,
        num_burnin_steps=600,  # 2/(ε nβ h) ≤ 50 steps
        progress=False,
    )
    level = -0.5 * curvature * d * apart**2 + d * lr * curvature / 8
    assert abs(float(result["intercept"]) - level) < 4 * float(result["intercept_se"]) + 1e-3
    expected = [d * quadratic_llc_sgld([curvature], n_beta, 0.0, lr) / n_beta for n_beta in N_BETAS]
    exact = slope_of(expected, result["mean_excess_se"].values)
    assert abs(float(result["slope"]) - exact) < 4 * float(result["slope_se"])
    assert abs(level) > 20 * float(result["intercept_se"])


@pytest.mark.parametrize("n", [None, 5000])
def test_wbic_of_a_quadratic(n):
    generator = torch.Generator().manual_seed(3)
    rows, d, lr, gamma = 400, 40, 2e-3, 5.0
    y = torch.randn(rows, d, generator=generator, dtype=torch.float64)
    h = torch.linspace(0.2, 1.5, d, dtype=torch.float64)
    model = Means(h, y.mean(0))
    result = sltfast.wbic(
        model, y, n=n, lr=lr, localization=gamma, loss_fn=per_row, batch_size=rows, num_chains=4, num_draws=1000,
        num_burnin_steps=300, progress=False,
    )  # fmt: skip
    count = rows if n is None else n
    level = float(0.5 * (h * (y - y.mean(0)) ** 2).sum(-1).mean())
    n_beta = count / math.log(count)
    expected = count * level + math.log(count) * quadratic_llc_sgld(h.numpy(), n_beta, gamma, lr)
    assert float(result["n_beta"]) == pytest.approx(n_beta)
    assert abs(float(result["wbic"]) - expected) < 4 * float(result["wbic_se"])
    # the learning coefficient's part is resolved, so neither it nor log n can be missing
    assert float(result["wbic_se"]) < 0.03 * math.log(count) * quadratic_llc(h.numpy(), n_beta, gamma)
