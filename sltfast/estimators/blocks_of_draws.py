"""Draws of chains, one after another, in blocks of consecutive draws: what batch means are taken over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlocksOfDraws:
    """C chains of D draws, K blocks each; block = draw·K // D.

    Attributes:
        chains: C.
        draws: D of a chain.
        per_chain: K <= D.
    """

    chains: int
    draws: int
    per_chain: int

    @classmethod
    def of(cls, chains: int, draws: int, num_blocks: int) -> BlocksOfDraws:
        """As many blocks as asked for, or a block a draw where there are fewer draws."""
        return cls(chains, draws, min(num_blocks, draws))

    @property
    def total(self) -> int:
        """All draws, C·D."""
        return self.chains * self.draws

    @property
    def rows(self) -> list[slice]:
        """Rows of every block, chain after chain."""
        k, d = self.per_chain, self.draws
        starts = [-(-block * d // k) for block in range(k + 1)]
        return [
            slice(chain * d + starts[block], chain * d + starts[block + 1])
            for chain in range(self.chains)
            for block in range(k)
        ]

    @property
    def shares(self) -> list[float]:
        """The part of all draws that a block holds; they add up to 1."""
        return [(rows.stop - rows.start) / self.total for rows in self.rows]
