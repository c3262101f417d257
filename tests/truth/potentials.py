"""Models whose λ̂ is known, and one way to run them.

Independent copies of a potential stacked in one parameter add: L = Σ_r L(w_r) has λ̂ = R · λ̂ of one copy. A copy costs a
coordinate and not a forward pass, so the tests use many copies where others would use many chains.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import sltfast

ROWS = torch.zeros(4, 1)  # data for losses that do not look at the data


class Potential(nn.Module):
    """A loss L(w) of one parameter, started at w*."""

    def __init__(self, w_star: Tensor, potential: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(w_star.clone())
        self.potential = potential

    def forward(self) -> Tensor:
        return self.potential(self.w)


class Quadratic(nn.Module):
    """L(w) = ½ Σ h_i (w_i − w*_i)², in fp32 at least, whatever the parameter's precision."""

    def __init__(self, h: Tensor, w_star: float | Tensor = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        start = torch.as_tensor(w_star, dtype=dtype).expand(h.shape).clone()
        self.w = nn.Parameter(start)
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        self.register_buffer("h", h.to(compute))
        self.register_buffer("w_star", start.to(compute))

    def forward(self) -> Tensor:
        return 0.5 * (self.h * (self.w.to(self.h.dtype) - self.w_star) ** 2).sum()


class Means(nn.Module):
    """ℓ_i(w) = ½ Σ_j h_j (w_j − y_ij)²: every batch has the same Hessian, so only the gradient's mean is noisy."""

    def __init__(self, h: Tensor, w_star: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w_star.clone())
        self.register_buffer("h", h)

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * (self.h * (self.w - y) ** 2).sum(-1)


def same_for_every_row(model: nn.Module, batch: Tensor) -> Tensor:
    """L(w) as the loss of each of the four rows: their mean is L(w) without rounding."""
    return model().expand(len(batch))


def per_row(model: nn.Module, batch: Tensor) -> Tensor:
    """The model's own losses per row."""
    return model(batch)


def potential_llc(model: nn.Module, **settings: Any) -> Any:
    """`sltfast.llc` of a loss that does not depend on the data."""
    return sltfast.llc(model, ROWS, loss_fn=same_for_every_row, batch_size=4, progress=False, **settings)
