"""χ of many items from blocks of draws: both estimators, with their standard errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from sltfast.estimators.block_errors import Estimate, average, beside, estimated, mean_over_blocks
from sltfast.estimators.blocks import Array, Blocks

Estimator = Literal["two_chain", "single_chain"]


class FullRun(NamedTuple):
    """What the two-chain estimator needs of the full run: ``blocks`` of it, and its E_F[d] of every item."""

    blocks: Blocks
    mean: Array

    @classmethod
    def of(cls, blocks: Blocks) -> FullRun:
        """The full run from its blocks."""
        return cls(blocks, average(blocks.weights, _difference(blocks)))

    def without_products(self) -> FullRun:
        """What restricted runs need of it: its second moments are for its own χ alone."""
        none = np.zeros(0)
        return FullRun(replace(self.blocks, m2=none, comoment=none), self.mean)


def susceptibility(restricted: Blocks, full: FullRun | None, phi_level: float) -> dict[Estimator, Estimate]:
    """χ of every item by both estimators.

    With L the mean loss on the sampling task, ℓ_i an item's, C the restricted run, F the full one, φ = L − φ₀:

        single-chain  χ_i = −Cov_C[φ, ℓ_i − L],
        two-chain     χ_i = E_C[φ L] − E_C[φ ℓ_i] − E_C[φ] (E_F[L] − E_F[ℓ_i]).

    *Constants cancel exactly.* Put L = L* + a and ℓ_i = ℓ*_i + y_i, the losses at w* and the excesses, d_i = a − y_i.
    In the two-chain form L* − ℓ*_i is multiplied by E_C[φ] − E_C[φ] = 0, so that

        χ_i = E_C[φ d_i] − E_C[φ] E_F[d_i] = Cov_C[φ, d_i] + E_C[φ] (E_C[d_i] − E_F[d_i]),

    and the single-chain χ is its first term. Only excesses are multiplied here, so nothing large cancels. φ₀ moves the
    two-chain χ by its shift times E_C[d_i] − E_F[d_i], and the single-chain χ not at all.

    *Standard errors.* Draw t of C moves χ to first order by (φ_t − φ̄)(d_t − d̄) − Cov + (φ_t − φ̄) g + φ̄ (d_t − d̄),
    g = E_C[d] − E_F[d], and draw t of F by −φ̄ (d_t − E_F[d]). Their means over a block, times its part of the draws,
    are D_b; restricted and full run share batches and noise, so that the D_b of the same chain and block are added
    before they are squared (``estimated``). Two draws tell no error: NaN.

    Args:
        restricted: blocks of C.
        full: of F; None: no two-chain estimate.
        phi_level: φ₀.

    Source: Baker et al. 2504.18274, Lemma 2.2 and App. C.4.
    """
    weights, d = restricted.weights, _difference(restricted)
    phi = float(average(weights, restricted.phi))
    mean = average(weights, d)
    phi_apart, d_apart = beside(restricted.phi - phi, d), d - mean
    draws = beside(np.maximum(restricted.draws, 1), d)
    products = (beside(restricted.phi_m2, d) - restricted.comoment) / draws + phi_apart * d_apart
    single = average(weights, products)
    w = beside(weights, d)
    moved = w * (products - single)
    if restricted.draws.sum() < 3:  # two draws' deviations from their mean have one product: it has no spread
        moved[:] = np.nan
    found: dict[Estimator, Estimate] = {"single_chain": estimated(single, [(moved, restricted)])}
    if full is not None:
        levels = restricted.phi_level - restricted.level - (full.blocks.phi_level - full.blocks.level)
        gap = mean - full.mean + levels
        phi += restricted.phi_level - phi_level
        moved += w * (phi_apart * gap + phi * d_apart)
        of_full = -phi * beside(full.blocks.weights, d) * (_difference(full.blocks) - full.mean)
        found["two_chain"] = estimated(single + phi * gap, [(moved, restricted), (of_full, full.blocks)])
    return found


def mean_phi(blocks: Blocks, phi_level: float) -> Estimate:
    """E_C[φ] and its standard errors."""
    found = mean_over_blocks(blocks, blocks.phi)
    return found._replace(value=np.asarray(found.value + (blocks.phi_level - phi_level)))


def _difference(blocks: Blocks) -> Array:
    """[C, K, …] means of d = φ − y."""
    return beside(blocks.phi, blocks.mean) - blocks.mean
