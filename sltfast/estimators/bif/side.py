"""Centred and scaled draws of one side of a covariance, so that a covariance is a product of two columns."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sltfast.estimators.blocks_of_draws import BlocksOfDraws
from sltfast.ops import comoment_, comoments
from sltfast.ops.comoment import comoment_standardise_


class Side:
    """N variables at all draws: z_t = (ℓ_t − ℓ̄)/√(n − 1), or over √M2, so that Σ_t z_i z_j is Cov, or Corr.

    Attributes:
        z: [n, N]; NaN for a variable without weight; 0 for one that does not vary.
        blocks: which draws belong together.
        normalize: whether Σ_t z_i z_j is a correlation.
    """

    def __init__(self, z: Tensor, blocks: BlocksOfDraws, *, normalize: bool) -> None:
        self.z, self.blocks, self.normalize = z, blocks, normalize

    @classmethod
    def of(cls, losses: Tensor, blocks: BlocksOfDraws, *, normalize: bool, dtype: torch.dtype) -> Side:
        """From losses [n, N]; means, moments and quotients are float64, rounded once to `dtype`."""
        losses = losses.contiguous()
        state = comoments(1, losses.shape[1], block=False, device=losses.device)
        comoment_(state, losses[None])
        if normalize:
            still = state.m2_x < torch.finfo(torch.float64).tiny
            scale = torch.where(still, 0.0, state.m2_x.rsqrt())
        else:
            scale = torch.full_like(state.m2_x, (blocks.total - 1) ** -0.5)
        z = torch.empty(1, *losses.shape, dtype=dtype, device=losses.device)
        comoment_standardise_(z, losses[None], state.mean_x, scale)
        return cls(z[0], blocks, normalize=normalize)

    def __len__(self) -> int:
        return self.z.shape[1]

    @cached_property
    def squares(self) -> Tensor:
        """[B, N]: Σ z² over each block; over all blocks it is the variance, or 1."""
        return torch.stack([self.z[rows].square().sum(0) for rows in self.blocks.rows])

    @cached_property
    def levels(self) -> Tensor:
        """[C, N]: √D times each chain's mean of z: their products are the covariance of chain means."""
        draws = self.blocks.draws
        return self.z.unflatten(0, (-1, draws)).sum(1) * draws**-0.5
