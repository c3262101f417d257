"""One step of SGLD or RMSprop-SGLD in the order of operations, and from the noise stream, that devinterp 2.0.1 has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sltfast.ops import METRICS

NORMS = METRICS[:6]
Coefficient = float | Tensor


@dataclass(frozen=True)
class Settings:
    """Of a step: ε, nβ, γ, λ, σ, the box's half width b (None: no box) and, with ``rmsprop``, α and eps."""

    lr: float
    n_beta: float
    localization: float = 0.0
    weight_decay: float = 0.0
    noise_level: float = 1.0
    box: float | None = None
    rmsprop: bool = False
    alpha: float = 0.99
    eps: float = 0.1
    save_metrics: bool = False


@dataclass
class Moved:
    """A parameter that moves: its mask m (float32, 1.0 where there is none), w* and, for RMSprop, V."""

    weight: Tensor
    mask: Coefficient
    start: Tensor | None
    square: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)


class ExactLangevin:
    """w ← w − (ε/2)·m·G·[nβ·g + λw + γ(w − w*)];  w ← w + √ε·√G·m·ξ;  w ← clamp(w, w* − b, w* + b).

    Every bracket, product and sum is an operation of torch of its own, in devinterp's order, so that each rounding is
    devinterp's too. ξ ~ N(0, σ²) comes from torch's global generator in its default precision, parameter by parameter.
    G = 1, or 1/(√V + eps) with V ← αV + (1 − α)g². A parameter without gradient stands still and draws no noise.

    Args:
        weights: the parameters, in the order in which they draw noise; w* is where they stand now.
        masks: of their shapes, or None.
        settings: of the step.

    Raises:
        ValueError: no parameter, or a mask of another shape than its parameter's.

    Source: Welling & Teh 2011; Li et al. 1512.07666; Lau et al. 2308.12108; devinterp 2.0.1's ``SGMCMC``.
    """

    def __init__(self, weights: Sequence[Tensor], masks: Sequence[Tensor | None], settings: Settings) -> None:
        if not weights:
            raise ValueError("optimizer got an empty parameter list: name at least one parameter in param_masks")
        self.settings = settings
        keeps_start = bool(settings.localization or settings.save_metrics or settings.box is not None)
        self.moved = []
        for weight, mask in zip(weights, masks, strict=True):
            if mask is not None and mask.shape != weight.shape:
                raise ValueError(
                    f"Mask shape {tuple(mask.shape)} does not match parameter shape {tuple(weight.shape)}: give one "
                    "value a coordinate"
                )
            start = weight.detach().clone() if keeps_start else None
            self.moved.append(Moved(weight, 1.0 if mask is None else mask.float(), start))

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for one in self.moved:
            one.metrics = {}
            if one.weight.grad is not None:
                self._move(one, one.weight.grad)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for one in self.moved:
            if set_to_none:
                one.weight.grad = None
            elif one.weight.grad is not None:
                one.weight.grad.zero_()

    def _move(self, one: Moved, gradient: Tensor) -> None:
        s, weight = self.settings, one.weight.data
        shape = self._preconditioner(one, gradient)
        drift = shape * gradient.mul(s.n_beta)
        decay, pull = self._prior(one)
        drift.add_(shape * (decay + pull))
        drift = one.mask * drift
        distance = weight - one.start if s.save_metrics and one.start is not None else None
        weight.add_(drift, alpha=-0.5 * s.lr)
        noise = torch.normal(mean=0.0, std=s.noise_level, size=drift.size(), device=drift.device)
        noise = one.mask * noise
        root = shape.sqrt() if isinstance(shape, Tensor) else 1.0
        weight.add_(root * noise, alpha=s.lr**0.5)
        if s.box is not None and one.start is not None:
            torch.clamp_(weight, min=one.start - s.box, max=one.start + s.box)
        if distance is not None:
            half = 0.5 * s.lr
            prior = half * shape * one.mask
            one.metrics = _metrics(
                scaled_grad=half * (one.mask * (shape * gradient.mul(s.n_beta))),
                unscaled_grad=half * gradient.mul(s.n_beta),
                localization=prior * pull,
                weight_decay=prior * decay,
                noise=(s.lr**0.5) * root * noise,
                distance=distance,
            )

    def _preconditioner(self, one: Moved, gradient: Tensor) -> Coefficient:
        s = self.settings
        if not s.rmsprop:
            return 1.0
        if one.square is None:
            one.square = torch.zeros_like(gradient)
        one.square.mul_(s.alpha).addcmul_(gradient, gradient, value=1 - s.alpha)
        return 1.0 / (torch.sqrt(one.square) + s.eps)

    def _prior(self, one: Moved) -> tuple[Tensor, Tensor]:
        """λw and γ(w − w*), zeros where there is none (adding them turns −0 into 0, as devinterp's sum does)."""
        s, weight = self.settings, one.weight.data
        decay, pull = torch.zeros_like(weight), torch.zeros_like(weight)
        if s.weight_decay > 0:
            decay += s.weight_decay * weight
        if s.localization > 0 and one.start is not None:
            pull += s.localization * (weight - one.start)
        return decay, pull

    def get_metrics(self) -> dict[str, Tensor]:
        """Norms and inner products of the last step's parts over all parameters, float32 [] by name.

        Raises:
            RuntimeError: they were not asked for.
        """
        if not self.settings.save_metrics:
            raise RuntimeError("Metrics not enabled: set save_metrics=True")
        total = {name: torch.zeros(()) for name in METRICS}
        for one in self.moved:
            for name, value in one.metrics.items():
                total[name] += value.cpu().square() if name in NORMS else value.cpu()
        return {name: value.sqrt() if name in NORMS else value for name, value in total.items()}


def _metrics(**parts: Tensor) -> dict[str, Tensor]:
    """Norms of the parts of one parameter's step, and the products of gradient, prior and noise."""
    norms: dict[str, Any] = {name: part.float().square().sum().sqrt() for name, part in parts.items()}
    gradient, noise = parts["scaled_grad"].float(), parts["noise"].float()
    prior = (parts["localization"] + parts["weight_decay"]).float()
    return norms | {
        "dot_grad_prior": (gradient * prior).sum(),
        "dot_grad_noise": (gradient * noise).sum(),
        "dot_prior_noise": (prior * noise).sum(),
    }
