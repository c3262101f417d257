"""How often losses fall below that at w*, and by how much, by the name of devinterp 1.3.2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.compat.devinterp_v1.slt.llc import OnlineLLCEstimator
from sltfast.compat.devinterp_v1.slt.spread import sample_std
from sltfast.extras import require


class OnlineLossStatistics(SamplerCallback):
    """Of the losses that an estimator keeps, relative to L(w*), draw by draw.

    The mini-batch noise s is the standard deviation over chains of the losses at the first draw; it is known when the
    last chain has made that draw, and ``finalize`` brings what depends on it up to date.

    Args:
        base_callback: the estimator; it comes before this callback.
    """

    def __init__(self, base_callback: OnlineLLCEstimator) -> None:
        super().__init__(base_callback.device)
        self.base_callback = base_callback
        self.num_chains, self.num_draws = base_callback.num_chains, base_callback.num_draws
        room = torch.zeros((self.num_chains, self.num_draws), dtype=torch.float32)
        self.percent_neg_steps, self.percent_mean_neg_steps = room.clone(), room.clone()
        self.percent_thresholded_neg_steps, self.z_scores = room.clone(), room.clone()

    def __call__(self, chain: int, draw: int, loss: Any, **kwargs: Any) -> None:
        """Take in a draw."""
        self.update(chain, draw, loss)

    def update(self, chain: int, draw: int, loss: Any) -> None:
        """Take in the loss of one draw, which the base callback has."""
        count = draw + 1
        relative = self._relative(chain)[:count]
        self.percent_neg_steps[chain, draw] = (relative < 0).sum() / count
        before = self.percent_mean_neg_steps[chain, draw - 1] if draw else 0
        self.percent_mean_neg_steps[chain, draw] = (draw * before + (relative.mean() < 0)) / count
        self._against_noise(chain, draw)

    def finalize(self) -> None:
        """Compare every draw with the noise of all chains."""
        noise, counts = self.est_minibatch_noise.cpu(), torch.arange(1, self.num_draws + 1)
        relative = self.base_callback.losses.cpu() - float(self.base_callback.init_loss)
        self.percent_thresholded_neg_steps.copy_((relative < -noise).cumsum(1) / counts)
        self.z_scores.copy_(relative / noise if noise > 0 else torch.full_like(relative, torch.nan))

    def _relative(self, chain: int) -> Tensor:
        return self.base_callback.losses[chain].cpu() - float(self.base_callback.init_loss)

    def _against_noise(self, chain: int, draw: int) -> None:
        noise, relative = self.est_minibatch_noise.cpu(), self._relative(chain)[: draw + 1]
        self.percent_thresholded_neg_steps[chain, draw] = (relative < -noise).sum() / (draw + 1)
        self.z_scores[chain, draw] = relative[draw] / noise if noise > 0 else torch.nan

    def get_results(self) -> dict[str, Any]:
        """After a run, all [C, D], counted over the draws of the chain so far.

        "loss/percent_neg_steps": share with L < L(w*); "loss/percent_mean_neg_steps": share at which the mean so far
        is; "loss/percent_thresholded_neg_steps": share with L < L(w*) − s; "loss/z_scores": (L − L(w*))/s.
        """
        return {
            "loss/percent_neg_steps": self.percent_neg_steps.numpy(),
            "loss/percent_mean_neg_steps": self.percent_mean_neg_steps.numpy(),
            "loss/percent_thresholded_neg_steps": self.percent_thresholded_neg_steps.numpy(),
            "loss/z_scores": self.z_scores.numpy(),
        }

    @property
    def est_minibatch_noise(self) -> Tensor:
        """s; NaN of one chain."""
        return sample_std(self.base_callback.losses[:, 0])

    def loss_hist_by_draw(self, draw: int = 0, bins: int = 10) -> Tensor:
        """Draw a histogram of the chains' losses at a draw, and return them.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        plt = require("matplotlib.pyplot", extra="plots", purpose="to draw histograms")
        losses = self.base_callback.losses[:, draw]
        plt.hist(losses.cpu().numpy(), bins=bins)
        return losses
