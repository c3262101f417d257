"""How often a Metropolis step would accept the sampler's moves, by the names of devinterp 1.3.2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.compat.defects import warn_once
from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.compat.devinterp_v1.slt.llc import inverse_temperature


def mala_acceptance_probability(
    prev_params: Tensor | list[Tensor],
    prev_grads: Tensor | list[Tensor],
    prev_loss: Tensor,
    current_params: Tensor | list[Tensor],
    current_grads: Tensor | list[Tensor],
    current_loss: Tensor,
    learning_rate: float,
) -> Tensor | float:
    """min(1, exp(U(w) − U(w′))·q(w | w′)/q(w′ | w)) with q(w′ | w) = N(w − (ε/2)·∇U(w), ε).

    Args:
        prev_params: w, one tensor or a list.
        prev_grads: ∇U(w), likewise.
        prev_loss: U(w).
        current_params: w′.
        current_grads: ∇U(w′).
        current_loss: U(w′).
        learning_rate: ε.

    Returns:
        The probability; NaN where U(w′) is.
    """
    current_loss = torch.as_tensor(current_loss)
    if torch.isnan(current_loss):
        return math.nan
    before, slope_before = _listed(prev_params), _listed(prev_grads)
    after, slope_after = _listed(current_params), _listed(current_grads)
    forth: Any = 0
    back: Any = 0
    for w, g, moved, slope in zip(before, slope_before, after, slope_after, strict=True):
        back = back - ((w - moved + learning_rate * 0.5 * slope) ** 2).sum() / (2 * learning_rate)
        forth = forth - ((moved - w + learning_rate * 0.5 * g) ** 2).sum() / (2 * learning_rate)
    return torch.exp(back - forth + prev_loss - current_loss).clamp(max=1.0)


def _listed(value: Tensor | list[Tensor]) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


class MalaAcceptanceRate(SamplerCallback):
    """The acceptance probability of each move between draws; draws must follow each other step by step.

    Args:
        num_chains: C, as in ``sample``.
        num_draws: D, as in ``sample``.
        learning_rate: ε.
        device: where the numbers are kept.
        nbeta: nβ.
        temperature: its old name.

    Raises:
        ValueError: no ``nbeta``.
    """

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        learning_rate: float,
        device: torch.device | str = "cpu",
        nbeta: float | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__(device)
        self.num_chains, self.num_draws, self.learning_rate = num_chains, num_draws, learning_rate
        self.nbeta = inverse_temperature(nbeta, temperature)
        self.mala_acceptance_rate = torch.zeros((num_chains, num_draws - 1), dtype=torch.float32, device=device)
        self.prev_params: list[Tensor] = []
        self.prev_grads: list[Tensor] = []
        self.prev_mala_loss: Any = 0.0
        self.current_params: list[Tensor] = []
        self.current_grads: list[Tensor] = []

    def __call__(self, chain: int, draw: int, model: nn.Module, loss: Any, optimizer: Any, **kwargs: Any) -> None:
        """Judge the move that led to this draw's loss."""
        self.update(chain, draw, model, loss, optimizer)

    def update(self, chain: int, draw: int, model: nn.Module, loss: Any, optimizer: Any) -> None:
        """Judge the move w → w′; loss and gradients are at w′, ``model`` is one step further."""
        self.current_grads = list(optimizer.dws)
        potential = loss * self.nbeta + optimizer.localization_loss
        if draw > 1:
            self.mala_acceptance_rate[chain, draw - 1] = mala_acceptance_probability(
                self.prev_params,
                self.prev_grads,
                self.prev_mala_loss,
                self.current_params,
                self.current_grads,
                potential,
                self.learning_rate,
            )
        self.prev_params, self.prev_grads, self.prev_mala_loss = self.current_params, self.current_grads, potential
        self.current_params = [p.detach().clone() for p in model.parameters() if p.requires_grad]

    def get_results(self) -> dict[str, Any]:
        """After a run: "mala_accept/trace" [C, D−1], "mala_accept/mean" and "mala_accept/std" (ddof 0)."""
        warn_once("v1: MALA's first move")
        trace = self.mala_acceptance_rate.cpu().numpy()
        return {"mala_accept/trace": trace, "mala_accept/mean": trace.mean(), "mala_accept/std": trace.std()}
