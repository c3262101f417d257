"""The local learning coefficient of the losses at the draws, by the names of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.compat.devinterp_v1.slt.spread import sample_std


def inverse_temperature(nbeta: float | None, temperature: float | None) -> float:
    """``nbeta``, also where it is given by its old name.

    Raises:
        ValueError: neither is given.
    """
    if nbeta is not None:
        return nbeta
    if temperature is None:
        raise ValueError("Please provide a value for nbeta (see default_nbeta).")
    warnings.warn("temperature is an old name: give nbeta", UserWarning, stacklevel=3)
    return temperature


class _Losses(SamplerCallback):
    """Losses of C chains at D draws, float32 [C, D], and what turns them into λ̂; ``traces`` names what it keeps."""

    traces: ClassVar[tuple[str, ...]] = ("losses",)
    losses: Tensor

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        init_loss: Any,
        device: torch.device | str = "cpu",
        eval_field: str = "loss",
        nbeta: float | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__(device)
        self.num_chains, self.num_draws = num_chains, num_draws
        self.init_loss, self.eval_field, self.temperature = init_loss, eval_field, temperature
        for name in self.traces:
            setattr(self, name, torch.zeros((num_chains, num_draws), dtype=torch.float32, device=device))
        self.nbeta = torch.tensor(inverse_temperature(nbeta, temperature), dtype=torch.float32, device=device)

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Keep the loss of one draw.

        Raises:
            RuntimeError: it is NaN.
        """
        if torch.isnan(loss).any():
            raise RuntimeError(f"NaN detected in loss at chain {chain}, draw {draw}")
        self.losses[chain, draw] = loss.to(self.device)

    def __call__(self, chain: int, draw: int, **kwargs: Any) -> None:
        """Keep the draw's loss, ``kwargs[eval_field]``."""
        self.update(chain, draw, kwargs[self.eval_field])


class LLCEstimator(_Losses):
    """λ̂_c = nβ·(mean over draws of L − L(w*)) of each chain c, their mean and standard deviation (ddof 1).

    Args:
        num_chains: C, as in ``sample``.
        num_draws: D, as in ``sample``.
        init_loss: L(w*); ``sample`` sets it.
        device: where the numbers are kept.
        eval_field: which of the loop's values is averaged.
        nbeta: nβ.
        temperature: its old name.

    Raises:
        ValueError: no ``nbeta``.

    Source: Lau et al. 2308.12108.
    """

    llc_per_chain: Tensor
    llc_mean: Tensor
    llc_std: Tensor

    def finalize(self) -> None:
        """Average over draws, then over chains."""
        distributed = torch.distributed
        if str(self.device).startswith("cuda") and distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.losses)
        self.llc_per_chain = self.nbeta * (self.losses.mean(dim=1) - self.init_loss)
        self.llc_mean = self.llc_per_chain.mean()
        self.llc_std = sample_std(self.llc_per_chain)

    def get_results(self) -> dict[str, Any]:
        """After a run: "llc/mean", "llc/std", "llc-chain/{c}" (floats) and "loss/trace" [C, D]."""
        per_chain = {f"llc-chain/{chain}": float(value) for chain, value in enumerate(self.llc_per_chain)}
        return {
            "llc/mean": float(self.llc_mean),
            "llc/std": float(self.llc_std),
            **per_chain,
            "loss/trace": self.losses.cpu().numpy(),
        }


class OnlineLLCEstimator(_Losses):
    """λ̂ draw by draw, nβ·(L_{c,d} − L(w*)), with mean and standard deviation (ddof 1) over chains.

    Args: as ``LLCEstimator``.

    Raises:
        ValueError: no ``nbeta``.
    """

    traces = ("losses", "llcs")
    llcs: Tensor
    llc_means: Tensor
    llc_stds: Tensor

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Keep the loss of one draw, and nβ·(L − L(w*)).

        Raises:
            RuntimeError: it is NaN.
        """
        super().update(chain, draw, loss)
        self.llcs[chain, draw] = self.nbeta * (loss.to(self.device) - self.init_loss)

    def finalize(self) -> None:
        """Mean and standard deviation over chains at every draw."""
        self.llc_means, self.llc_stds = self.llcs.mean(dim=0), sample_std(self.llcs)

    def get_results(self) -> dict[str, Any]:
        """After a run: "init_loss", "llc/means" [D], "llc/stds" [D], "llc/trace" [C, D] and "loss/trace" [C, D]."""
        return {
            "init_loss": self.init_loss,
            "llc/means": self.llc_means.cpu().numpy(),
            "llc/stds": self.llc_stds.cpu().numpy(),
            "llc/trace": self.llcs.cpu().numpy(),
            "loss/trace": self.losses.cpu().numpy(),
        }
