"""The widely applicable Bayesian information criterion of the losses at the draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.compat.devinterp_v1.slt.spread import sample_std


class OnlineWBICEstimator(SamplerCallback):
    """WBIC of each chain as draws come in: n·(mean loss of its draws so far).

    Args:
        num_chains: C, as in ``sample``.
        num_draws: D, as in ``sample``.
        n: rows that the posterior is of.
        device: where the numbers are kept.

    Source: Watanabe, JMLR 14 (2013), 867–897.
    """

    def __init__(self, num_chains: int, num_draws: int, n: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_chains, self.num_draws = num_chains, num_draws
        self.n = torch.tensor(n, dtype=torch.float32, device=device)
        self.losses = torch.zeros((num_chains, num_draws), dtype=torch.float32, device=device)
        self.wbics = torch.zeros_like(self.losses)
        self.wbic_means = torch.zeros(num_draws, dtype=torch.float32, device=device)
        self.wbic_stds = torch.zeros_like(self.wbic_means)

    def update(self, chain: int, draw: int, loss: Tensor | float) -> None:
        """Take in the loss of one draw."""
        self.losses[chain, draw] = loss
        self.wbics[chain, draw] = self.losses[chain, : draw + 1].mean() * self.n

    def finalize(self) -> None:
        """Mean and standard deviation (ddof 1) over chains at every draw."""
        self.wbic_means, self.wbic_stds = self.wbics.mean(dim=0), sample_std(self.wbics)

    def get_results(self) -> dict[str, Any]:
        """After a run: "wbic/means" [D], "wbic/stds" [D], "wbic/trace" [C, D] and "loss/trace" [C, D]."""
        return {
            "wbic/means": self.wbic_means.cpu().numpy(),
            "wbic/stds": self.wbic_stds.cpu().numpy(),
            "wbic/trace": self.wbics.cpu().numpy(),
            "loss/trace": self.losses.cpu().numpy(),
        }

    def __call__(self, chain: int, draw: int, loss: Tensor | float, **kwargs: Any) -> None:
        """Take in a draw."""
        self.update(chain, draw, loss)
