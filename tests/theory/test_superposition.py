"""The toy model of superposition: its loss against quadrature, and its polygons against Chen et al. 2310.06301."""

import numpy as np
import pytest
import torch

from sltfast.theory import Polygon, superposition_hessian_rank, superposition_loss, superposition_polygon


def by_midpoints(point: Polygon, nodes: int) -> float:
    """E|x − ReLU(WᵀWx + b)|² with μ on a midpoint grid."""
    features = point.bias.numel()
    mu = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    x = (mu[:, None, None] * torch.eye(features, dtype=torch.float64)).reshape(-1, features)
    return float((torch.relu(x @ point.weight.T @ point.weight + point.bias) - x).square().sum(dim=1).mean())


@pytest.mark.parametrize("features", [1, 3, 6])
def test_the_loss_is_the_integral(features: int) -> None:
    generator = torch.Generator().manual_seed(features)
    weight = torch.randn(2, features, generator=generator, dtype=torch.float64)
    bias = torch.randn(features, generator=generator, dtype=torch.float64) / 2
    weight[:, 0] = 0  # outputs that no input moves
    point = Polygon(weight, bias)
    nodes = 20_000
    # the midpoint rule is off by h²/24 of the derivative's variation; here a few tens
    assert float(superposition_loss(*point)) == pytest.approx(by_midpoints(point, nodes), abs=100 / nodes**2)


def test_an_output_on_its_kink_is_zero_or_its_input() -> None:
    weight, bias = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert float(superposition_loss(weight, bias)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("corners", "spare", "loss", "radius", "rank"),
    [(5, -1.0, 0.06874, 1.1705, 14), (5, 1 / 12, 0.06180, 1.1705, 17), (6, -1.0, 0.04819, 1.3205, 17)],
)
def test_opposing_staircases(corners: int, spare: float, loss: float, radius: float, rank: int) -> None:
    point = superposition_polygon(corners, 6, spare)
    weight, bias = point.weight.clone().requires_grad_(True), point.bias.clone().requires_grad_(True)
    value = superposition_loss(weight, bias)
    gradients = torch.autograd.grad(value, (weight, bias))
    assert float(value.detach()) == pytest.approx(loss, abs=6e-6)  # five digits are given
    assert float(point.weight[:, 0].norm()) == pytest.approx(radius, abs=6e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-12
    assert superposition_hessian_rank(point) == rank


def test_a_saddle_has_no_rank() -> None:
    nothing = Polygon(torch.zeros(2, 6).double(), torch.full((6,), 1 / 12).double())  # the best constants
    with pytest.raises(ValueError, match=r"no minimum: its Hessian has the eigenvalue -"):
        superposition_hessian_rank(nothing)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"corners must be in 5 … features=6, got 4"):
        superposition_polygon(4)
    with pytest.raises(ValueError, match=r"corners must be in 5 … features=6, got 7"):
        superposition_polygon(7)
    with pytest.raises(ValueError, match=r"got \(2, 6\) and \(5,\)"):
        superposition_loss(torch.zeros(2, 6), torch.zeros(5))


def test_any_float_type() -> None:
    point = superposition_polygon(6)
    single = superposition_loss(point.weight.float(), point.bias.float())
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(float(superposition_loss(*point)), rel=1e-5)
    assert np.isfinite(float(single))
