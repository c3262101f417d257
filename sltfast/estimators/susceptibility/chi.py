"""χ of many items from blocks of draws: both estimators, with their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from sltfast.estimators.blocks import Array, Blocks

Estimator = Literal["two_chain", "single_chain"]


class Estimate(NamedTuple):
    """A value an item and its standard errors: ``se`` is the larger of those by chain (NaN for one chain) and by
    batch means.
    """

    value: Array
    se: Array
    se_chains: Array
    se_batch_means: Array


class FullRun(NamedTuple):
    """What the two-chain estimator needs of the full run: ``blocks`` of it, and its E_F[d] of every item."""

    blocks: Blocks
    mean: Array

    @classmethod
    def of(cls, blocks: Blocks) -> FullRun:
        """The full run from its blocks."""
        return cls(blocks, _average(blocks.weights, _difference(blocks)))

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
    before they are squared. By batch means √(B/(B−1) Σ_b D_b²), B blocks; by chain √(C/(C−1) Σ_c (Σ_{b∈c} D_b)²).

    Args:
        restricted: blocks of C.
        full: of F; None: no two-chain estimate.
        phi_level: φ₀.

    Source: Baker et al. 2504.18274, Lemma 2.2 and App. C.4.
    """
    weights, d = restricted.weights, _difference(restricted)
    phi = float(_average(weights, restricted.phi))
    mean = _average(weights, d)
    phi_apart, d_apart = _over(restricted.phi - phi, d), d - mean
    draws = _over(np.maximum(restricted.draws, 1), d)
    products = (_over(restricted.phi_m2, d) - restricted.comoment) / draws + phi_apart * d_apart
    single = _average(weights, products)
    w = _over(weights, d)
    moved = w * (products - single)
    found: dict[Estimator, Estimate] = {"single_chain": _estimate(single, [(moved, restricted)])}
    if full is not None:
        levels = restricted.phi_level - restricted.level - (full.blocks.phi_level - full.blocks.level)
        gap = mean - full.mean + levels
        phi += restricted.phi_level - phi_level
        moved += w * (phi_apart * gap + phi * d_apart)
        of_full = -phi * _over(full.blocks.weights, d) * (_difference(full.blocks) - full.mean)
        found["two_chain"] = _estimate(single + phi * gap, [(moved, restricted), (of_full, full.blocks)])
    return found


def mean_phi(blocks: Blocks, phi_level: float) -> Estimate:
    """E_C[φ] and its standard errors."""
    value = _average(blocks.weights, blocks.phi)
    shifted = value + (blocks.phi_level - phi_level)
    return _estimate(np.asarray(shifted), [(blocks.weights * (blocks.phi - value), blocks)])


def _difference(blocks: Blocks) -> Array:
    """[C, K, …] means of d = φ − y."""
    return _over(blocks.phi, blocks.mean) - blocks.mean


def _over(values: Array, items: Array) -> Array:
    """[C, K] values beside [C, K, …] items."""
    return values.reshape(*values.shape, *[1] * (items.ndim - 2))


def _average(weights: Array, values: Array) -> Array:
    return np.asarray(np.tensordot(weights, values, axes=([0, 1], [0, 1])))


def _estimate(value: Array, parts: Sequence[tuple[Array, Blocks]]) -> Estimate:
    """The errors of a value from what each run's blocks moved it by, [C, K, …]."""
    runs = [blocks for _, blocks in parts]
    batches = [_scaled(moved, float((blocks.draws > 0).sum())) for moved, blocks in parts]
    chains = [_scaled(moved.sum(axis=1, keepdims=True), float(len(blocks.chains))) for moved, blocks in parts]
    by_batches, by_chain = _size(batches, runs), _size(chains, runs)
    return Estimate(value, np.fmax(by_chain, by_batches), by_chain, by_batches)


def _scaled(moved: Array, count: float) -> Array:
    """Deviations from a mean of as many, made larger by what their mean took; NaN for one."""
    return moved * (np.sqrt(count / (count - 1)) if count > 1 else np.nan)


def _size(moved: list[Array], runs: Sequence[Blocks]) -> Array:
    """√ of the summed squares: of the runs together where their chains and blocks correspond, else of each."""
    if len(runs) == 2 and runs[0].num_chains == runs[1].num_chains and moved[0].shape[1] == moved[1].shape[1]:
        if np.array_equal(runs[0].chains, runs[1].chains):
            moved = [moved[0] + moved[1]]
        else:  # a chain that died in one of them moved the value by nothing there
            together = np.zeros((runs[0].num_chains, *moved[0].shape[1:]))
            for one, blocks in zip(moved, runs, strict=True):
                together[blocks.chains] += one
            moved = [together]
    squares = [np.square(one).sum(axis=(0, 1)) for one in moved]
    return np.asarray(np.sqrt(np.sum(squares, axis=0)))
