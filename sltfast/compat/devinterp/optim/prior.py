"""Priors of the weights, by the gradient that they add to the drift."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor, zeros_like

from sltfast.compat.devinterp.optim.absent import Absent

State = dict[str, Any]


class Prior(ABC):
    """A prior p(w); ``key`` names what it keeps in the optimiser's state of each parameter."""

    key: str

    @abstractmethod
    def initialize(self, params: Sequence[Tensor]) -> dict[Tensor, State]:
        """What the prior keeps for each parameter, by parameter; parameters stand at w* now."""

    @abstractmethod
    def grad(self, param: Tensor, state: State) -> Tensor:
        """−∇ log p(w) at ``param``, of its shape; ``state`` is the optimiser's state of the parameter."""


class GaussianPrior(Prior):
    """−∇ log p(w) = γ (w − c): a Gaussian of precision γ around c.

    Args:
        localization: γ.
        center: c: ``"initial"`` (where the parameters stand when the optimiser is made), None (the origin), or one
            tensor a parameter.

    Raises:
        ValueError: from ``initialize``, where the tensors given do not fit the parameters in number or shape.
    """

    def __init__(
        self, localization: float, center: Literal["initial"] | Iterable[Tensor] | float | None = "initial"
    ) -> None:
        self.localization = localization
        self.key = "prior_center"
        kept_as_is = center is None or isinstance(center, (str, int, float))
        self.center: Any = center if kept_as_is else list(center)  # type: ignore[arg-type]

    def initialize(self, params: Sequence[Tensor]) -> dict[Tensor, State]:
        """What is kept, by parameter."""
        if isinstance(self.center, list):
            centers: list[Tensor | None] = self._given(params)
        elif self.center == "initial":
            centers = [param.detach().clone() for param in params]
        else:
            centers = [None] * len(params)
        return {param: {self.key: center} for param, center in zip(params, centers, strict=True)}

    def _given(self, params: Sequence[Tensor]) -> list[Tensor | None]:
        if len(self.center) != len(params):
            raise ValueError(
                f"Number of centers ({len(self.center)}) does not match number of parameters ({len(params)}): give one "
                "center a parameter, in the parameters' order"
            )
        for center, param in zip(self.center, params, strict=True):
            if center.shape != param.shape:
                raise ValueError(
                    f"Center shape {tuple(center.shape)} does not match parameter shape {tuple(param.shape)}: give "
                    "one value a coordinate"
                )
        return [center.detach().clone() for center in self.center]

    def grad(self, param: Tensor, state: State) -> Tensor:
        """Gradient at ``param``, of its shape."""
        center = state.get(self.key)
        return self.localization * (param if center is None else param - center)

    def __repr__(self) -> str:
        return f"GaussianPrior(localization={self.localization}, center={self.center})"


class UniformPrior(Prior):
    """The improper uniform prior, whose gradient is 0.

    Raises:
        Absent: a finite ``box_size``; ``bounding_box_size`` of the optimiser bounds the weights.
    """

    def __init__(self, box_size: float = math.inf) -> None:
        self.key = "uniform_prior_center"
        self.box_size = box_size
        if box_size != math.inf:
            raise Absent(
                f"Uniform prior with finite box size not implemented: box_size={box_size}; give the optimiser "
                "bounding_box_size instead"
            )

    def initialize(self, params: Sequence[Tensor]) -> dict[Tensor, State]:
        """What is kept, by parameter."""
        return {}

    def grad(self, param: Tensor, state: State) -> Tensor:
        """Gradient at ``param``, of its shape."""
        return zeros_like(param)


class CompositePrior(Prior):
    """A product of priors: their gradients add. Uniform ones are left out.

    Each member's key gets its place in the list appended: two Gaussians keep ``prior_center_0`` and
    ``prior_center_1``.
    """

    def __init__(self, priors: list[Prior]) -> None:
        self.key = "composite_prior"
        self.priors = [prior for prior in priors if not isinstance(prior, UniformPrior)]
        for place, prior in enumerate(self.priors):
            prior.key = f"{prior.key}_{place}"

    def initialize(self, params: Sequence[Tensor]) -> dict[Tensor, State]:
        """What is kept, by parameter."""
        together: dict[Tensor, State] = {}
        for prior in self.priors:
            for param, state in prior.initialize(params).items():
                together.setdefault(param, {}).update(state)
        return together

    def grad(self, param: Tensor, state: State) -> Tensor:
        """Gradient at ``param``, of its shape."""
        total = zeros_like(param)
        for prior in self.priors:
            total += prior.grad(param, state)
        return total

    def __repr__(self) -> str:
        return f"CompositePrior({self.priors})"
