"""Priors of the weights, which in devinterp 1.3.2 also say how far the weights are from their centre."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor

from sltfast.compat.devinterp.optim import prior as newer
from sltfast.compat.devinterp.optim.prior import Prior, State, UniformPrior

__all__ = ["CompositePrior", "GaussianPrior", "Prior", "UniformPrior"]


class GaussianPrior(newer.GaussianPrior):
    """−∇ log p(w) = γ (w − c): a Gaussian of precision γ around c.

    Args:
        localization: γ.
        center: c: ``"initial"``, None (the origin), or one tensor a parameter.
        key: of c in the optimiser's state.
    """

    def __init__(
        self,
        localization: float,
        center: Literal["initial"] | Iterable[Tensor] | float | None = "initial",
        key: str = "prior_center",
    ) -> None:
        super().__init__(localization, center)
        self.key = key

    def initialize(self, params: Iterable[Tensor]) -> dict[Tensor, State]:
        """The centre of each parameter, by parameter."""
        return super().initialize(list(params))

    def distance_sq(self, param: Tensor, state: State, scale: float | Tensor = 1.0) -> Tensor:
        """Σ (scale · (w − c))²."""
        center = state[self.key]
        return ((scale * (param if center is None else param - center)) ** 2).sum()


class CompositePrior(newer.CompositePrior):
    """A product of priors: their gradients add. The distance, and what else is asked, is the last one's.

    What is left of one alone, without the uniform ones, is that one, and of none the uniform prior.
    """

    def __new__(cls, priors: Sequence[Prior]) -> Any:
        """The composite, or the one that is left."""
        left = [prior for prior in priors if not isinstance(prior, UniformPrior)]
        if len(left) < 2:
            return left[0] if left else UniformPrior()
        return super().__new__(cls)

    def grad(self, param: Tensor, state: State) -> Tensor:
        """Gradient at ``param``, of its shape."""
        first, *others = (prior.grad(param, state) for prior in self.priors)
        return sum(others, start=first)

    def distance_sq(self, param: Tensor, state: State, scale: float | Tensor = 1.0) -> Tensor:
        """Σ (scale · (w − c))² of the last prior."""
        return self.priors[-1].distance_sq(param, state, scale)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """Of the last prior."""
        if name == "priors":
            raise AttributeError(name)
        return getattr(self.priors[-1], name)
