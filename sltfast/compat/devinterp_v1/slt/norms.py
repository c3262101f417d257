"""Norms of weights, gradients and noise at every draw, by the names of devinterp 1.3.2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback


def norm_of(tensors: Iterable[Tensor], p: float, device: torch.device | str) -> Tensor:
    """The p-norm of all coordinates of some tensors."""
    parts = [torch.linalg.vector_norm(tensor, ord=p).to(device) for tensor in tensors]
    if not parts:
        return torch.zeros((), device=device)
    if p in (1, float("inf")):
        return torch.linalg.vector_norm(torch.stack(parts), ord=p)
    total = torch.zeros((), device=device)
    for part in parts:
        total += torch.square(part) if p == 2 else part**p
    return torch.pow(total, 1 / p)


class _Norm(SamplerCallback):
    """One norm at every draw: the attribute ``<what>s``, float32 [C, D]."""

    what: ClassVar[str]

    def __init__(self, num_chains: int, num_draws: int, p_norm: float = 2, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_chains, self.num_draws, self.p_norm = num_chains, num_draws, p_norm
        setattr(self, f"{self.what}s", torch.zeros((num_chains, num_draws), dtype=torch.float32, device=device))

    def get_results(self) -> dict[str, Any]:
        """After a run: "<what>/trace" [C, D]."""
        return {f"{self.what}/trace": getattr(self, f"{self.what}s").cpu().numpy()}


class WeightNorm(_Norm):
    """|w|_p over all parameters, after the step of the draw.

    Args:
        num_chains: C, as in ``sample``.
        num_draws: D, as in ``sample``.
        p_norm: p.
        device: where the numbers are kept.
    """

    what = "weight_norm"
    weight_norms: Tensor

    def __call__(self, chain: int, draw: int, model: nn.Module, **kwargs: Any) -> None:
        """Read a draw."""
        self.update(chain, draw, model)

    def update(self, chain: int, draw: int, model: nn.Module) -> None:
        """Read a model."""
        self.weight_norms[chain, draw] = norm_of((p.detach() for p in model.parameters()), self.p_norm, self.device)


class GradientNorm(_Norm):
    """|(ε/2)·g|_p over all parameters that have a gradient, g of the mean mini-batch loss (without nβ).

    Args: as ``WeightNorm``.
    """

    what = "gradient_norm"
    gradient_norms: Tensor

    def __call__(self, chain: int, draw: int, optimizer: Any, **kwargs: Any) -> None:
        """Read a draw."""
        self.update(chain, draw, optimizer.param_groups)

    def update(self, chain: int, draw: int, param_groups: list[dict[str, Any]]) -> None:
        """Read an optimiser's groups."""
        scaled = (
            parameter.grad * 0.5 * group["lr"]
            for group in param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        )
        self.gradient_norms[chain, draw] = norm_of(scaled, self.p_norm, self.device)


class NoiseNorm(_Norm):
    """|√ε·ξ|_p over all parameters.

    Args: as ``WeightNorm``.
    """

    what = "noise_norm"
    noise_norms: Tensor

    def __call__(self, chain: int, draw: int, optimizer: Any, **kwargs: Any) -> None:
        """Read a draw."""
        self.update(chain, draw, optimizer)

    def update(self, chain: int, draw: int, optimizer: Any) -> None:
        """Read the noise of an optimiser's last step."""
        kept = optimizer.noise
        by_group = kept if isinstance(kept, dict) else {0: kept}
        scaled = (
            noise * optimizer.param_groups[index]["lr"] ** 0.5 for index, noises in by_group.items() for noise in noises
        )
        self.noise_norms[chain, draw] = norm_of(scaled, self.p_norm, self.device)
