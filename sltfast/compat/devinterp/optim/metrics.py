"""Norms and inner products of the parts of a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor


def _zero() -> Tensor:
    return torch.zeros(1, dtype=torch.float32)


@dataclass
class Metrics:
    """Of a step Δw = −(scaled_grad + localization + weight_decay) + noise, each float32 [1].

    ``scaled_grad`` = |(ε/2) G nβ ∇L|, ``unscaled_grad`` = |(ε/2) nβ ∇L|, ``localization`` = |(ε/2) G γ (w − w*)|,
    ``weight_decay`` = |(ε/2) G λ w|, ``noise`` = |√(εG) ξ|, ``distance`` = |w − w*| before the step; ``dot_*`` are the
    inner products of gradient, prior (localization + weight_decay) and noise; ``numel`` counts what moves.

    An optimiser's group has one on its device: ``zero_`` at the start of a step, ``add_sum_squared_`` and
    ``add_dot_products_`` for each parameter, ``sqrt_norms_`` at the end; ``aggregate`` puts groups together.
    """

    NORM_FIELDS: ClassVar[tuple[str, ...]] = (
        "scaled_grad",
        "unscaled_grad",
        "localization",
        "weight_decay",
        "noise",
        "distance",
    )
    DOT_FIELDS: ClassVar[tuple[str, ...]] = ("dot_grad_prior", "dot_grad_noise", "dot_prior_noise")

    scaled_grad: Tensor = field(default_factory=_zero)
    unscaled_grad: Tensor = field(default_factory=_zero)
    localization: Tensor = field(default_factory=_zero)
    weight_decay: Tensor = field(default_factory=_zero)
    noise: Tensor = field(default_factory=_zero)
    distance: Tensor = field(default_factory=_zero)
    dot_grad_prior: Tensor = field(default_factory=_zero)
    dot_grad_noise: Tensor = field(default_factory=_zero)
    dot_prior_noise: Tensor = field(default_factory=_zero)
    numel: int = 0

    @property
    def prior(self) -> Tensor:
        """√(localization² + weight_decay²)."""
        return (self.localization.square() + self.weight_decay.square()).sqrt()

    def to(self, device: str | torch.device | int) -> Metrics:
        """A copy on another device."""
        names = (*self.NORM_FIELDS, *self.DOT_FIELDS)
        return Metrics(**{name: getattr(self, name).to(device) for name in names}, numel=self.numel)

    def zero_(self) -> None:
        """Everything 0, in place."""
        for name in (*self.NORM_FIELDS, *self.DOT_FIELDS):
            getattr(self, name).zero_()
        self.numel = 0

    def add_sum_squared_(
        self,
        scaled_grad: Tensor,
        unscaled_grad: Tensor,
        localization: Tensor,
        weight_decay: Tensor,
        noise: Tensor,
        distance: Tensor,
    ) -> None:
        """Add one parameter's sums of squares, taken in float32."""
        parts = (scaled_grad, unscaled_grad, localization, weight_decay, noise, distance)
        for name, part in zip(self.NORM_FIELDS, parts, strict=True):
            total = getattr(self, name)
            total += part.float().square().sum()

    def add_dot_products_(self, scaled_grad: Tensor, prior: Tensor, noise: Tensor) -> None:
        """Add one parameter's inner products, taken in float32."""
        gradient, prior, noise = scaled_grad.float(), prior.float(), noise.float()
        self.dot_grad_prior += (gradient * prior).sum()
        self.dot_grad_noise += (gradient * noise).sum()
        self.dot_prior_noise += (prior * noise).sum()

    def sqrt_norms_(self) -> None:
        """Sums of squares become norms."""
        for name in self.NORM_FIELDS:
            setattr(self, name, getattr(self, name).sqrt())

    @staticmethod
    def aggregate(group_metrics: Iterable[Metrics]) -> Metrics:
        """Those of disjoint groups of parameters as one, on the CPU: |(a, b)|² = |a|² + |b|², products add."""
        result = Metrics()
        for one in group_metrics:
            here = one.to("cpu")
            for name in Metrics.NORM_FIELDS:
                total = getattr(result, name)
                total += getattr(here, name).square()
            for name in Metrics.DOT_FIELDS:
                total = getattr(result, name)
                total += getattr(here, name)
            result.numel += here.numel
        result.sqrt_norms_()
        return result
