"""λ̂ of deep linear networks against Aoyagi's learning coefficient.

nβ = 10⁴, ε = 10⁻⁵, γ = 1: at this finite nβ λ̂ sits within a few percent of λ. The step adds ε nβ h/4 ≈ 2.5 % a unit of
curvature h; the finite nβ and the slow filling of flat directions (2/(ε γ) = 2·10⁵ steps) take some away, more at
rank 0, where log nβ enters. Hence |λ̂ − λ| ≤ 4 SE + 0.04 λ for r > 0, 4 SE + 0.10 λ for r = 0. The burn-in is what the
stiff directions need: 2/(ε nβ h) = 20 steps a unit of curvature, hundreds for the weakly curved.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from potentials import ROWS, same_for_every_row
from torch import nn

import sltfast
from sltfast.theory import dln_learning_coefficient

SETTINGS = {"n_beta": 1e4, "localization": 1.0, "lr": 1e-5, "progress": False}


def layers_at_rank(widths, rank):
    """Layers whose product has `rank` singular values 1 and no others, in random orthogonal bases; balanced."""
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.standard_normal((width, width)))[0] for width in widths]
    return [
        torch.tensor(after[:, :rank] @ before[:, :rank].T, dtype=torch.float32) for before, after in pairwise(bases)
    ]


class StackedDeepLinear(nn.Module):
    """Population loss ½ |B_L ⋯ B_1 − B*|² of R independent copies, E x xᵀ = 1: their λ̂ add up."""

    def __init__(self, widths, rank, copies):
        super().__init__()
        start = layers_at_rank(widths, rank)
        self.layers = nn.ParameterList([layer.expand(copies, -1, -1).clone() for layer in start])
        self.register_buffer("target", self.product()[0].detach().clone())

    def product(self):
        product = self.layers[0]
        for layer in list(self.layers)[1:]:
            product = torch.bmm(layer, product)
        return product

    def forward(self):
        return 0.5 * (self.product() - self.target).square().sum()


def check(widths, rank, copies, *, burnin, draws, chains=2):
    result = sltfast.llc(
        StackedDeepLinear(widths, rank, copies), ROWS, loss_fn=same_for_every_row, batch_size=4, num_chains=chains,
        num_burnin_steps=burnin, num_draws=draws, **SETTINGS,
    )  # fmt: skip
    exact, _ = dln_learning_coefficient(widths, rank)
    estimate, error = float(result["llc_mean"]) / copies, float(result["llc_se"]) / copies
    slack = (0.04 if rank else 0.10) * exact
    assert abs(estimate - exact) < 4 * error + slack, (estimate, error, exact)
    # Guard: the tolerance must stay a statement about λ.
    assert error < 0.02 * exact


@pytest.mark.parametrize(("widths", "rank"), [([5, 3, 5], 2), ([6, 6, 6], 3), ([10, 10, 10], 4), ([5, 3, 5], 0)])
def test_two_layers(widths, rank):
    check(widths, rank, copies=24, burnin=3000, draws=5000)


def test_three_layers():
    check([5, 5, 5, 5], 2, copies=40, burnin=6000, draws=6000)


@pytest.mark.soak
@pytest.mark.parametrize(("widths", "rank"), [([3, 2, 3], 1), ([6, 6, 6], 3), ([4, 4, 4, 4], 2), ([5, 5, 5, 5], 2)])
def test_longer_runs(widths, rank):
    check(widths, rank, copies=64, burnin=10_000, draws=10_000, chains=4)


def test_ordinary_network_on_data():
    # nn.Linear layers, noise-free targets, mini-batches of an ordinary data set: the true map is a minimum of every
    # batch, and whitened inputs make E x xᵀ = 1, so λ is Aoyagi's again.
    widths, rank, n = [5, 3, 5], 2, 2048
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))
    with torch.no_grad():
        for layer, weight in zip(model, layers_at_rank(widths, rank), strict=True):
            layer.weight.copy_(weight)
        x = torch.randn(n, widths[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        x = (x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / n)).T).float()
        y = model(x)

    def squared_error(model, batch):
        inputs, targets = batch
        return 0.5 * (model(inputs) - targets).square().sum(-1)

    result = sltfast.llc(
        model,
        (x, y),
        loss_fn=squared_error,
        batch_size=128,
        num_chains=4,
        num_burnin_steps=2000,
        num_draws=4000,
        **SETTINGS,
    )
    exact, _ = dln_learning_coefficient(widths, rank)
    error = float(result["llc_se"])
    # Batches of 128 add ε nβ h d/(4 b) ≈ 0.1 % more to the step bias than full ones.
    assert abs(float(result["llc_mean"]) - exact) < 4 * error + 0.04 * exact
    assert error < 0.06 * exact
