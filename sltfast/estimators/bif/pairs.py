"""Covariances of pairs of variables, a tile of pairs at a time, and what each block of draws contributes to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from sltfast.estimators.bif.side import Side
from sltfast.estimators.blocks_of_draws import BlocksOfDraws
from sltfast.ops.comoment import rounds_products


class Pairs(ABC):
    """Cov[ℓ_i, ℓ_j] or Corr[ℓ_i, ℓ_j] of N × M pairs, never all at once.

    Attributes:
        shape: N, M.
        own: [N] the column of the same variable as row i, −1 where there is none.
        symmetric: whether rows and columns are the same variables in the same order.
        blocks: of the draws.
        dtype, device: of tiles.
    """

    shape: tuple[int, int]
    own: Tensor
    symmetric: bool
    blocks: BlocksOfDraws
    normalize: bool
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write a tile of values."""

    @abstractmethod
    def deviations(self, rows: slice, columns: slice, values: Tensor) -> Iterator[Tensor]:
        """What each block adds to the values beyond its share, linearised, one after another; they sum to 0.

        Cov: D_b = Σ_{t∈b} z_i z_j − (n_b/n)·Cov. Corr: D_b = Σ_{t∈b} [z_i z_j − ½·Corr·(z_i² + z_j²)], the influence
        function of a correlation. A tile is overwritten by the next.
        """

    @abstractmethod
    def between(self, rows: slice, columns: slice) -> Tensor:
        """The part of a tile that comes from the chains' means: Σ_c D·(ℓ̄_i,c − ℓ̄_i)(ℓ̄_j,c − ℓ̄_j), scaled alike."""

    def picked(self, rows: slice, columns: Tensor, values: Tensor) -> Iterator[Tensor]:
        """`deviations` of some columns of each row only: columns and values [rows, k]."""
        wide = torch.empty(columns.shape[0], self.shape[1], dtype=self.dtype, device=self.device)
        everywhere = slice(0, self.shape[1])
        self.fill(rows, everywhere, wide)
        for deviation in self.deviations(rows, everywhere, wide):
            yield deviation.gather(1, columns)

    def standard_error(self, deviations: Iterator[Tensor]) -> Tensor:
        """The larger of two errors of each value: by batch means, and between chains.

        Batch means: √(B/(B − 1) Σ_b D_b²), B = C·K blocks; between chains: √(C/(C − 1) Σ_c (Σ_{b∈c} D_b)²), which
        sees autocorrelations longer than a block. NaN where there is one block only, and of two draws, whose
        deviations from their mean have one product: it has no spread.
        """
        blocks, chains = self.blocks.chains * self.blocks.per_chain, self.blocks.chains
        of_chain = by_block = by_chain = torch.zeros(())
        for number, deviation in enumerate(deviations):
            if number == 0:
                by_block, by_chain = torch.zeros_like(deviation), torch.zeros_like(deviation)
                of_chain = torch.zeros_like(deviation)
            by_block.addcmul_(deviation, deviation)
            of_chain += deviation
            if (number + 1) % self.blocks.per_chain == 0:
                by_chain.addcmul_(of_chain, of_chain)
                of_chain.zero_()
        spread = blocks > 1 and self.blocks.total > 2
        batch_means = by_block.mul_(blocks / (blocks - 1) if spread else torch.nan).sqrt_()
        if chains == 1:
            return batch_means
        return torch.maximum(batch_means, by_chain.mul_(chains / (chains - 1)).sqrt_())


def product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """leftᵀ·right, [N, M] of [k, N] and [k, M]; in float64 where the process has allowed TF32."""
    if out.dtype == torch.float32 and rounds_products(out.device):
        out.copy_(left.T.double() @ right.double())
        return out
    return torch.mm(left.T, right, out=out)


class DrawPairs(Pairs):
    """Pairs of variables whose draws are kept: a tile is one product over draws."""

    def __init__(self, left: Side, right: Side, own: Tensor, *, symmetric: bool) -> None:
        self.left, self.right, self.own, self.symmetric = left, right, own, symmetric
        self.shape, self.blocks, self.normalize = (len(left), len(right)), left.blocks, left.normalize
        self.dtype, self.device = left.z.dtype, left.z.device

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """One product; of a correlation rounding beyond ±1 is cut off, and a variable with itself is 1."""
        product(self.left.z[:, rows], self.right.z[:, columns], out)
        if self.symmetric and rows == columns:
            out.triu_().add_(out.triu(1).T)  # BLAS need not give a symmetric matrix, to the bit
        if self.normalize:
            out.clamp_(-1.0, 1.0)
            self._exactly_one(rows, columns, out)

    def deviations(self, rows: slice, columns: slice, values: Tensor) -> Iterator[Tensor]:
        """A product a block."""
        tile = torch.empty_like(values)
        for number, (draws, share) in enumerate(zip(self.blocks.rows, self.blocks.shares, strict=True)):
            product(self.left.z[draws, rows], self.right.z[draws, columns], tile)
            if self.normalize:
                tile.addcmul_(values, self.left.squares[number, rows, None], value=-0.5)
                tile.addcmul_(values, self.right.squares[number, None, columns], value=-0.5)
            else:
                tile.sub_(values, alpha=share)
            yield tile

    def between(self, rows: slice, columns: slice) -> Tensor:
        """One product over chains."""
        left, right = self.left.levels[:, rows], self.right.levels[:, columns]
        return product(left, right, torch.empty(left.shape[1], right.shape[1], dtype=self.dtype, device=self.device))

    def picked(self, rows: slice, columns: Tensor, values: Tensor) -> Iterator[Tensor]:
        """Products of those columns alone."""
        flat = columns.reshape(-1)
        for number, (draws, share) in enumerate(zip(self.blocks.rows, self.blocks.shares, strict=True)):
            left = self.left.z[draws, rows]
            right = self.right.z[draws][:, flat].unflatten(1, columns.shape)
            deviation = right.mul_(left[:, :, None]).sum(0)  # no product of matrices, which TF32 could round
            if self.normalize:
                squares = self.left.squares[number, rows, None] + self.right.squares[number, columns]
                yield deviation - 0.5 * values * squares
            else:
                yield deviation - share * values

    def _exactly_one(self, rows: slice, columns: slice, out: Tensor) -> None:
        own = self.own[rows]
        inside = torch.nonzero((own >= columns.start) & (own < columns.stop))[:, 0]
        if len(inside):
            at = (inside, own[inside] - columns.start)
            out[at] = torch.where(out[at] > 0, 1.0, out[at])
