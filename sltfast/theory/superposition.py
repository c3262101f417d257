"""The toy model of superposition: its population loss in closed form, and its critical polygons."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Polygon", "superposition_hessian_rank", "superposition_loss", "superposition_polygon"]


class Polygon(NamedTuple):
    """A critical point: columns of W on a regular k-gon, the others 0.

    Attributes:
        weight: W [2, c] float64.
        bias: b [c] float64.
    """

    weight: Tensor
    bias: Tensor


def superposition_loss(weight: Tensor, bias: Tensor) -> Tensor:
    """L(W, b) = E|x − ReLU(WᵀWx + b)|² of x = μ·e_i, i uniform over c features and μ over [0, 1], exactly.

    With G = WᵀW, output j of input i is ReLU(μ·G_ij + b_j), at work on an interval [l, u] of μ, so that

        L = (1/c) Σ_ij { δ_ij/3 + ∫_l^u (μG_ij + b_j)² − 2δ_ij·μ·(μG_ij + b_j) dμ },

    a polynomial in l and u. It is differentiable, piecewise: where no output sits on its kink.

    Args:
        weight: W [2, c], or [h, c].
        bias: b [c].

    Returns:
        L, a scalar of the weights' type.

    Raises:
        ValueError: shapes that do not fit each other.

    Source: Chen et al. 2310.06301, of Elhage et al. 2209.10652's model.
    """
    if weight.ndim != 2 or bias.shape != weight.shape[1:]:
        raise ValueError(f"weight must be [h, c] and bias [c], got {tuple(weight.shape)} and {tuple(bias.shape)}")
    features = weight.shape[1]
    slope = weight.T @ weight  # [c, c]
    level = bias.expand_as(slope)
    safe = torch.where(slope == 0, torch.ones_like(slope), slope)
    kink = (-level / safe).clamp(0, 1)
    nothing, all_of_it = torch.zeros_like(kink), torch.ones_like(kink)
    constant = torch.where(level > 0, nothing, all_of_it)
    lower = torch.where(slope > 0, kink, torch.where(slope == 0, constant, nothing))
    upper = torch.where(slope < 0, kink, all_of_it)
    # of μ^0, μ^1, μ^2 over [l, u]
    zeroth, first, second = ((upper**power - lower**power) / power for power in (1, 2, 3))
    squares = slope**2 * second + 2 * slope * level * first + level**2 * zeroth
    crosses = slope * second + level * first
    own = torch.eye(features, dtype=weight.dtype, device=weight.device)
    return (own / 3 + squares - 2 * own * crosses).sum() / features


def superposition_polygon(corners: int, features: int = 6, spare_bias: float = -1.0) -> Polygon:
    """The k-gon with its radius l and bias at the minimum of their loss; features beyond k have W_i = 0.

    A spare feature with b < 0 is dead: its output is 0, whatever its input. With b = 1/(2c), its mean, it is the best
    constant: the k⁺-gon.

    Args:
        corners: k >= 5. (Outputs of smaller polygons sit on their kinks, where the loss has no Hessian.)
        features: c >= k.
        spare_bias: b of the features beyond k.

    Returns:
        The point, to rounding.

    Raises:
        ValueError: k or c as above.

    Source: Chen et al. 2310.06301, §3.
    """
    if not 5 <= corners <= features:
        raise ValueError(f"corners must be in 5 … features={features}, got {corners}")
    angle = 2 * math.pi * torch.arange(corners, dtype=torch.float64) / corners
    circle = torch.stack([angle.cos(), angle.sin()])

    def placed(radius: Tensor, bias: Tensor) -> Polygon:
        spare = features - corners
        weight = torch.cat([radius * circle, torch.zeros(2, spare, dtype=torch.float64)], dim=1)
        return Polygon(weight, torch.cat([bias.expand(corners), torch.full((spare,), spare_bias, dtype=torch.float64)]))

    point = torch.tensor([1.17, -0.3], dtype=torch.float64)
    for _ in range(50):  # Newton's method in (l, b)
        at = point.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(superposition_loss(*placed(at[0], at[1])), at)
        curvature = torch.autograd.functional.hessian(lambda p: superposition_loss(*placed(p[0], p[1])), point)
        step = torch.linalg.solve(curvature, gradient)
        point = point - step.clamp(-0.1, 0.1)
        if float(step.abs().max()) < 1e-14:
            break
    return placed(point[0], point[1])


def superposition_hessian_rank(point: Polygon, tolerance: float = 1e-8) -> int:
    """Rank of the Hessian of L at a point; where the flat directions are a manifold of minima, λ = rank/2.

    Args:
        point: a critical point.
        tolerance: an eigenvalue below this share of the largest counts as 0.

    Returns:
        The number of eigenvalues above it.

    Raises:
        ValueError: no minimum: an eigenvalue below −tolerance of the largest.
    """
    size = point.weight.numel()

    def loss(flat: Tensor) -> Tensor:
        return superposition_loss(flat[:size].view_as(point.weight), flat[size:])

    at = torch.cat([point.weight.flatten(), point.bias])
    eigenvalues = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, at))
    floor = tolerance * float(eigenvalues[-1])
    if float(eigenvalues[0]) < -floor:
        raise ValueError(f"the point is no minimum: its Hessian has the eigenvalue {float(eigenvalues[0]):.3g}")
    return int((eigenvalues > floor).sum())
