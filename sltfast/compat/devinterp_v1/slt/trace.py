"""Running means and standard deviations of a callback's trace, by the name of devinterp 1.3.2."""

from __future__ import annotations

from typing import Any

import torch

from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.compat.devinterp_v1.slt.spread import sample_std


class OnlineTraceStatistics(SamplerCallback):
    """Of a trace [C, D] that another callback keeps: along each chain so far, and over chains at each draw.

    Args:
        base_callback: what keeps the trace; it comes before this callback.
        attribute: the trace's name in it.
        device: where the numbers are kept.

    Raises:
        ValueError: the base callback lacks the attribute, num_chains or num_draws.
    """

    def __init__(self, base_callback: Any, attribute: str, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.base_callback, self.attribute = base_callback, attribute
        self.validate_base_callback()
        self.num_chains, self.num_draws = base_callback.num_chains, base_callback.num_draws
        self.mean_by_chain = torch.zeros((self.num_chains, self.num_draws), dtype=torch.float32, device=device)
        self.std_by_chain = torch.zeros_like(self.mean_by_chain)
        self.mean_by_draw = torch.zeros(self.num_draws, dtype=torch.float32, device=device)
        self.std_by_draw = torch.zeros_like(self.mean_by_draw)

    def validate_base_callback(self) -> None:
        """Check that the base callback has what is read of it.

        Raises:
            ValueError: it has not.
        """
        for name in (self.attribute, "num_chains", "num_draws"):
            if not hasattr(self.base_callback, name):
                raise ValueError(
                    f"Base callback must have attribute {name}, {type(self.base_callback).__name__} has not"
                )

    def __call__(self, draw: int, **kwargs: Any) -> None:
        """Take in a draw."""
        trace = getattr(self.base_callback, self.attribute)
        so_far = trace[:, : draw + 1]
        self.mean_by_chain[:, draw] = so_far.mean(1)
        self.std_by_chain[:, draw] = sample_std(so_far, 1)
        self.mean_by_draw[draw] = trace[:, draw].mean()
        self.std_by_draw[draw] = sample_std(trace[:, draw])

    def get_results(self) -> dict[str, Any]:
        """After a run: "{attribute}/chain/mean", "…/chain/std" [C, D], "…/draw/mean", "…/draw/std" [D] (ddof 1)."""
        return self._named(slice(None))

    def sample_at_draw(self, draw: int = -1) -> dict[str, Any]:
        """The same at one draw."""
        return self._named(draw)

    def _named(self, at: Any) -> dict[str, Any]:
        return {
            f"{self.attribute}/chain/mean": self.mean_by_chain[:, at].cpu().numpy(),
            f"{self.attribute}/chain/std": self.std_by_chain[:, at].cpu().numpy(),
            f"{self.attribute}/draw/mean": self.mean_by_draw[at].cpu().numpy(),
            f"{self.attribute}/draw/std": self.std_by_draw[at].cpu().numpy(),
        }
