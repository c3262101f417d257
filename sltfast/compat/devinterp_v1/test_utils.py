"""Small models with known geometry, by the names of devinterp 1.3.2."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PASSES_BEFORE_NAN = 100


class Polynomial(nn.Module):
    """f(x) = x·Π_i w_i^{k_i}, started at w = 0.

    Args:
        powers: k, one a weight.
    """

    def __init__(self, powers: Sequence[int] = (1, 1)) -> None:
        super().__init__()
        self.powers = torch.tensor(list(powers))
        self.weights = nn.Parameter(torch.zeros(len(self.powers), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] times the monomial."""
        return x * (self.weights**self.powers).prod()


class LinePlusDot(nn.Module):
    """f(x) = x·(w_0 − 1)·(|w|²)²: a line of minima and a point, started at the point.

    Args:
        dim: weights.
    """

    def __init__(self, dim: int = 2) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(dim, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] times the polynomial."""
        return x * (self.weights[0] - 1) * self.weights.square().sum() ** 2


class ReducedRankRegressor(nn.Module):
    """f(x) = W₂·W₁·x with ``h`` hidden units.

    Args:
        m: inputs.
        h: hidden units, the rank.
        n: outputs.
    """

    def __init__(self, m: int, h: int, n: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(m, h, bias=False)
        self.fc2 = nn.Linear(h, n, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, m] to [B, n]."""
        hidden: Tensor = self.fc1(x)
        output: Tensor = self.fc2(hidden)
        return output


class DummyNaNModel(nn.Module):
    """A linear map whose weights turn infinite after a hundred forwards: what a diverged chain looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.counter = 0
        with torch.no_grad():
            self.linear.weight.fill_(1.0)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2] to [B, 1]."""
        self.counter += 1
        if self.counter > PASSES_BEFORE_NAN:
            with torch.no_grad():
                self.linear.weight.fill_(float("inf"))
        output: Tensor = self.linear(x)
        return output
