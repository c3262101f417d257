"""Where covariances come from: losses at every draw, or what a run recorded of their covariances."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sltfast.estimators.bif.moment_pairs import MomentPairs, recorded_items, recorded_moments, records_covariances
from sltfast.estimators.bif.pairs import Pairs
from sltfast.estimators.bif.recorded import Keys, loss_keys_of, recorded_losses
from sltfast.estimators.bif.selection import losses_at, pairs_of
from sltfast.estimators.blocks_of_draws import BlocksOfDraws
from sltfast.results.samples import root_of

Items = tuple[np.ndarray, np.ndarray]


class Source(Protocol):
    """Items, and pairs of them.

    Attributes:
        keys: the observables.
        observables: [N] of which each item is.
        positions: variables of an item.
        chains, draws: that count, draws of all chains together.
        left_out: chains that do not.
    """

    keys: list[str]
    observables: np.ndarray
    positions: int
    chains: int
    draws: int
    left_out: tuple[int, ...]

    def pairs(self, items: Items, *, normalize: bool, average: bool, device: torch.device) -> Pairs:
        """Of the items with these numbers."""


class Traces:
    """Losses at every draw."""

    def __init__(self, samples: Any, loss_keys: Keys, method: str, reduction: str, num_blocks: int) -> None:
        self.keys = loss_keys_of(root_of(samples), loss_keys)
        recorded = recorded_losses(samples, self.keys)
        self.observables, self.chains, self.left_out = recorded.observables, recorded.chains, recorded.left_out
        self.losses: Tensor
        self.blocks: BlocksOfDraws
        self.losses, self.blocks = losses_at(recorded, method, reduction, num_blocks)
        self.draws, self.positions = self.losses.shape[0], self.losses.shape[2]

    def pairs(self, items: Items, *, normalize: bool, average: bool, device: torch.device) -> Pairs:
        """Products of draws."""
        return pairs_of(self.losses, self.blocks, items, normalize=normalize, average=average, device=device)


class Covariances:
    """What a run with ``record="covariances"`` keeps: sequences only, all chains' draws stacked."""

    positions = 1

    def __init__(self, samples: Any, loss_keys: Keys, method: str, reduction: str) -> None:
        check_covariances(method, reduction)
        dataset = root_of(samples)
        self.keys, self.numbers = recorded_items(dataset, loss_keys)
        sizes = [dataset.sizes[f"batch_{key}"] for key in self.keys]
        self.observables = np.repeat(np.array(self.keys, dtype=object), sizes)
        self.moments = recorded_moments(samples)
        self.chains, self.draws = self.moments.draws.shape[0], self.moments.total
        self.left_out = self.moments.left_out

    def all_pairs(self, *, normalize: bool) -> MomentPairs:
        """Of all items with each other."""
        return MomentPairs(self.moments, (self.numbers, self.numbers), normalize=normalize)

    def pairs(self, items: Items, *, normalize: bool, average: bool, device: torch.device) -> Pairs:
        """Sums of blocks; on the CPU, where they are."""
        left, right = (self.numbers[chosen] for chosen in items)
        return MomentPairs(self.moments, (left, right), normalize=normalize)


def check_covariances(method: str, reduction: str) -> None:
    """Refuse what a run with ``record="covariances"`` does not keep.

    Raises:
        ValueError: tokens, or means over the chains.
    """
    if method != "sequence" or reduction != "stack":
        raise ValueError(
            "record='covariances' keeps those of sequences over all draws: give correlation_method='sequence' and "
            f"reduce_chain_dimension_method='stack', got {method!r} and {reduction!r}; or sample with record='traces'"
        )


def source_of(
    samples: Any, loss_keys: Keys, *, correlation_method: str, reduce_chain_dimension_method: str, num_blocks: int
) -> Traces | Covariances:
    """What the samples hold.

    Raises:
        ValueError: nothing of observables, or not what is asked for.
        AllChainsDied: no chain lived.
    """
    if records_covariances(root_of(samples)):
        return Covariances(samples, loss_keys, correlation_method, reduce_chain_dimension_method)
    return Traces(samples, loss_keys, correlation_method, reduce_chain_dimension_method, num_blocks)
