"""Values with standard errors by chain and by batch means, from what every block of draws moved them by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sltfast.estimators.blocks import Array, Blocks


class Estimate(NamedTuple):
    """A value an item and its standard errors: ``se`` is the larger of those by chain (NaN for one chain) and by
    batch means.
    """

    value: Array
    se: Array
    se_chains: Array
    se_batch_means: Array


def mean_over_blocks(blocks: Blocks, means: Array) -> Estimate:
    """The mean over all draws of what has the means [C, K, …] in the blocks."""
    value = average(blocks.weights, means)
    return estimated(value, [(beside(blocks.weights, means) * (means - value), blocks)])


def estimated(value: Array, parts: Sequence[tuple[Array, Blocks]]) -> Estimate:
    """The errors of a value from what each run's blocks moved it by, to first order.

    With D_b what block b moved it by, its part of the draws taken in: by batch means √(B/(B−1) Σ_b D_b²), B blocks; by
    chain √(C/(C−1) Σ_c (Σ_{b∈c} D_b)²). The D_b of the same chain and block of two runs, which share batches and noise,
    are added before they are squared.

    Args:
        value: […].
        parts: of every run behind it, D [C, K, …] and the blocks.
    """
    runs = [blocks for _, blocks in parts]
    batches = [_scaled(moved, float((blocks.draws > 0).sum())) for moved, blocks in parts]
    chains = [_scaled(moved.sum(axis=1, keepdims=True), float(len(blocks.chains))) for moved, blocks in parts]
    by_batches, by_chain = _size(batches, runs), _size(chains, runs)
    return Estimate(value, np.fmax(by_chain, by_batches), by_chain, by_batches)


def beside(values: Array, items: Array) -> Array:
    """[C, K] values beside [C, K, …] items."""
    return values.reshape(*values.shape, *[1] * (items.ndim - 2))


def average(weights: Array, values: Array) -> Array:
    """Σ of weights [C, K] times values [C, K, …]."""
    return np.asarray(np.tensordot(weights, values, axes=([0, 1], [0, 1])))


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
