"""Preconditioners, by the factors that they put before gradient, prior and noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.absent import Absent

Factor = float | Tensor
State = dict[str, Any]


def scaled(factor: Factor, values: Tensor) -> Tensor:
    """``factor · values``; the values themselves where the factor is the number 1, which changes no bit."""
    return values if isinstance(factor, float) and factor == 1.0 else factor * values


class PreconditionerCoefs(NamedTuple):
    """Factors of one parameter's step.

    Attributes:
        grad_coef: of nβ ∇L.
        prior_coef: of the prior's gradient.
        noise_coef: of the noise: √ of the others.
        overall_coef: of drift and noise alike (a mask).
        grad_correction: a term with momentum; adds where coefficients multiply.
    """

    grad_coef: Factor
    prior_coef: Factor
    noise_coef: Factor
    overall_coef: Factor
    grad_correction: Factor | None = None

    def combine_with(self, other: PreconditionerCoefs) -> PreconditionerCoefs:
        """Both, one after the other: factors multiply, corrections add."""
        corrections = [one.grad_correction for one in (self, other) if one.grad_correction is not None]
        return PreconditionerCoefs(
            self.grad_coef * other.grad_coef,
            self.prior_coef * other.prior_coef,
            self.noise_coef * other.noise_coef,
            self.overall_coef * other.overall_coef,
            reduce(lambda a, b: a + b, corrections) if corrections else None,
        )

    @classmethod
    def combine(cls, *coefs: PreconditionerCoefs) -> PreconditionerCoefs:
        """All, from left to right."""
        return reduce(lambda a, b: a.combine_with(b), coefs)


class Preconditioner(ABC):
    """G(w), diagonal."""

    @abstractmethod
    def get_coefficients(self, param: Tensor, grad: Tensor, state: State) -> PreconditionerCoefs:
        """The factors of this step; ``state`` is the optimiser's state of the parameter, kept between steps."""


class IdentityPreconditioner(Preconditioner):
    """G = 1."""

    def get_coefficients(self, param: Tensor, grad: Tensor, state: State) -> PreconditionerCoefs:
        """Factors of this step."""
        return PreconditionerCoefs(1.0, 1.0, 1.0, 1.0)

    def __repr__(self) -> str:
        return "IdentityPreconditioner()"


class MaskPreconditioner(Preconditioner):
    """A mask before drift and noise: what is 0 stands still.

    Args:
        masks: one a parameter of the group, of its shape, or a number.
    """

    def __init__(self, masks: Sequence[Factor]) -> None:
        self.masks = masks

    def get_coefficients(self, param: Tensor, grad: Tensor, state: State) -> PreconditionerCoefs:
        """Factors of this step."""
        if "param_idx" not in state:
            raise ValueError("param_idx not found in state dict: a mask needs the parameter's place in its group there")
        return PreconditionerCoefs(1.0, 1.0, 1.0, self.masks[state["param_idx"]])

    def __repr__(self) -> str:
        return f"MaskPreconditioner(masks={self.masks})"


class CompositePreconditioner(Preconditioner):
    """Several, whose factors multiply. What is left of one alone is that one, and of none the identity."""

    preconditioners: list[Preconditioner]

    def __new__(cls, preconditioners: Sequence[Preconditioner]) -> Any:
        """The composite, or the one that is left."""
        left = [one for one in preconditioners if not isinstance(one, IdentityPreconditioner)]
        if len(left) < 2:
            return left[0] if left else IdentityPreconditioner()
        composite = super().__new__(cls)
        composite.preconditioners = left
        return composite

    def get_coefficients(self, param: Tensor, grad: Tensor, state: State) -> PreconditionerCoefs:
        """Factors of this step."""
        return PreconditionerCoefs.combine(*(one.get_coefficients(param, grad, state) for one in self.preconditioners))

    def __repr__(self) -> str:
        return f"CompositePreconditioner({', '.join(map(repr, self.preconditioners))})"


class RMSpropPreconditioner(Preconditioner):
    """G = 1/(√V + eps) with V ← αV + (1 − α) g², V = 0 at first, g the gradient of the batch's mean loss.

    Raises:
        Absent: ``add_grad_correction=True``; natively, rmsprop_kwargs of sltfast's samplers have the drift's term.

    Source: Li et al. 1512.07666.
    """

    def __init__(self, alpha: float = 0.99, eps: float = 1e-1, add_grad_correction: bool = False) -> None:
        self.alpha, self.eps, self.add_grad_correction = alpha, eps, add_grad_correction
        if add_grad_correction:
            raise Absent("Gradient correction not yet implemented for RMSprop: give add_grad_correction=False")

    def get_coefficients(self, param: Tensor, grad: Tensor, state: State) -> PreconditionerCoefs:
        """Factors of this step."""
        if "square_avg" not in state:
            state["square_avg"] = torch.zeros_like(grad)
        state["square_avg"].mul_(self.alpha).addcmul_(grad, grad, value=1 - self.alpha)
        shape = 1.0 / (torch.sqrt(state["square_avg"]) + self.eps)
        return PreconditionerCoefs(shape, shape, torch.sqrt(shape), 1.0)

    def __repr__(self) -> str:
        kept = f"alpha={self.alpha}, eps={self.eps}, add_grad_correction={self.add_grad_correction}"
        return f"RMSpropPreconditioner({kept})"


class NHTPreconditioning(Preconditioner):
    """The thermostat as devinterp has it: it watches a momentum that never moves, and its friction is not applied.

    Args:
        diffusion_factor: A; the noise is √(2A) N(0, ε).
        eps: of no effect.
    """

    def __init__(self, diffusion_factor: float = 0.01, eps: float = 1e-8) -> None:
        self.diffusion_factor, self.eps = diffusion_factor, eps

    def get_coefficients(self, param: Tensor, grad: Tensor, state: State) -> PreconditionerCoefs:
        """Factors of this step."""
        if "thermostat" not in state:
            state["thermostat"] = torch.tensor(self.diffusion_factor, device=param.device)
        drawn = torch.randn_like(param.data)  # devinterp draws it at every step and keeps the first
        momentum = state.setdefault("momentum", drawn)
        correction = -state["thermostat"] * momentum
        energy = torch.sum(momentum * momentum, dtype=torch.float32) / momentum.numel()
        state["thermostat"] += energy - 1.0
        return PreconditionerCoefs(1.0, 1.0, torch.tensor(2.0 * self.diffusion_factor).sqrt(), 1.0, correction)

    def __repr__(self) -> str:
        return f"NHTPreconditioning(diffusion_factor={self.diffusion_factor}, eps={self.eps})"
