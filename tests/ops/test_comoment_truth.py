"""The posterior covariance of losses where it is known: linear regression, whose posterior is a Gaussian."""

import pytest
import torch
from comoment_cases import BACKENDS

from sltfast import ops

N_BETA, GAMMA, DRAWS = 50.0, 3.0, 20_000


@pytest.mark.parametrize("backend", BACKENDS)
def test_covariance_of_losses_of_a_linear_regression(backend) -> None:
    # ℓ_i = ½(x_i·w − y_i)², w − w* ~ N(0, S), S = (nβ·H + γ)⁻¹, H = XᵀX/n:
    # Cov(ℓ_i, ℓ_j) = e_i e_j s_ij + ½ s_ij²  with s_ij = x_iᵀ S x_j and e_i the residual at w*
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(12, 4)
    y = x @ normal(4) + 0.3 * normal(12)
    optimum = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    sigma = torch.linalg.inv(N_BETA * x.T @ x / 12 + GAMMA * torch.eye(4, dtype=torch.float64))
    residual, s = x @ optimum - y, x @ sigma @ x.T
    expected = torch.outer(residual, residual) * s + 0.5 * s**2

    w = optimum + normal(DRAWS, 4) @ torch.linalg.cholesky(sigma).T
    losses = 0.5 * (w @ x.T - y) ** 2 + 1e4  # the offset must not matter
    state = ops.comoments(4, 12)  # four chains
    for draws in losses.view(4, 50, DRAWS // 200, 12).unbind(1):
        ops.comoment_(state, draws, backend=backend)
    pooled, rest = ops.Comoments(*(_one(t, 0) for t in state)), range(1, 4)
    for g in rest:
        ops.comoment_merge_(pooled, ops.Comoments(*(_one(t, g) for t in state)), backend=backend)
    covariance = ops.comoment_covariance(pooled)[0]

    # the standard error of a covariance of independent draws: √(Var[(ℓ_i − ℓ̄_i)(ℓ_j − ℓ̄_j)] / draws)
    centred = losses - losses.mean(0)
    error = (centred[:, :, None] * centred[:, None, :]).std(0) / DRAWS**0.5
    score = (covariance - expected) / error
    assert score.abs().max() < 4.5  # 78 different entries: exceeded by chance once in 2,000 seeds
    # they share draws, so their signs go together; a factor of 1.03 in one term would still be seen
    assert (score**2).mean().sqrt() < 2.0
    correlation = ops.comoment_correlation(pooled)[0]
    root = expected.diagonal().sqrt()
    assert (correlation - expected / torch.outer(root, root)).abs().max() < 4.5 * 2 / DRAWS**0.5  # |d r| ≤ 2/√draws


def _one(tensor: torch.Tensor | None, group: int) -> torch.Tensor | None:
    return None if tensor is None else tensor[group : group + 1].clone()
