"""A fixed, seeded, resumable stream of mini-batches: the rows of any step are a pure function of the seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sltfast.data import Source, map_leaves

DATA_STREAM = 4  # the counter-based generator's tag for data order (see ops)


class BatchStream:
    """Mini-batch number k of an endless shuffled pass over a data set.

    Every epoch has a permutation of its own, drawn from the counter-based generator at (seed, epoch, stream); the last
    partial batch of an epoch is dropped. No state moves, so step k can be asked for at any time and in any order.

    Args:
        source: the rows.
        batch_size: rows of a batch.
        seed: of the data order.
        shuffle: False for the rows as they stand, epoch after epoch.
        lane: streams with other lanes have other orders (chains that do not share their batches).
        order: a permutation of the rows to go through in every epoch, in place of them as they stand or shuffled.

    Raises:
        ValueError: the data set has fewer rows than a batch.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        lane: int = 0,
        order: np.ndarray | None = None,
    ) -> None:
        if len(source) < batch_size:
            raise ValueError(
                f"the data set has {len(source)} rows, fewer than one batch (batch_size {batch_size}): give a "
                f"batch_size of at most {len(source)}"
            )
        self.source, self.batch_size, self.seed, self.shuffle, self.lane = (
            source,
            batch_size,
            seed,
            shuffle and order is None,
            lane,
        )
        self.batches_per_epoch = len(source) // batch_size
        self._epoch = -1
        self._order: np.ndarray = np.arange(len(source)) if order is None else order

    def rows(self, k: int) -> np.ndarray:
        """Row indices of batch k, int64 [batch_size]."""
        epoch, position = divmod(k, self.batches_per_epoch)
        if self.shuffle and epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, epoch, self.lane, DATA_STREAM]))
            self._order = generator.permutation(len(self.source))
            self._epoch = epoch
        start = position * self.batch_size
        return self._order[start : start + self.batch_size]

    def batch(self, k: int, device: torch.device) -> Any:
        """Batch k, in the data set's structure, on ``device``."""
        return fetch(self.source, self.rows(k), device)


def fetch(source: Source, rows: np.ndarray, device: torch.device) -> Any:
    """The given rows on ``device``."""
    return map_leaves(lambda part: part.to(device, non_blocking=True), source.fetch(rows))
