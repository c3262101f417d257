"""The rows behind a loader, and each lane's own order of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from sltfast.compat.devinterp_v1.utils import prepare_input
from sltfast.data import leaves, map_leaves
from sltfast.isolation import isolated_rng

MOST_BYTES = 1 << 30
ORDER_STREAM = 5  # tag of the counter-based generator: other orders than those of sltfast.sample


class NotByRow(ValueError):
    """A loader whose batches are not told by row numbers; the message says why."""


class Rows:
    """All rows of a plain ``DataLoader`` in memory, on a device, and batches of them for many lanes.

    Args:
        loader: the caller's.
        device: where.

    Raises:
        NotByRow: its batches cannot be had by row numbers.
    """

    def __init__(self, loader: Any, device: torch.device) -> None:
        reason = _not_plain(loader)
        if reason:
            raise NotByRow(reason)
        self.count, self.batch_size = len(loader.dataset), loader.batch_size
        self.last = 0 if loader.drop_last else self.count % self.batch_size
        self.per_epoch = self.count // self.batch_size + bool(self.last)
        if not self.per_epoch:
            raise NotByRow("the loader yields no batch")
        # a generator of the loader's own starts every chain alike
        self.shuffled = isinstance(loader.sampler, RandomSampler)
        self.shared = not self.shuffled or loader.sampler.generator is not None or loader.generator is not None
        self.tensors = prepare_input(_in_memory(loader.dataset), device)
        self.device = device
        self._epoch, self._orders = -1, dict[int, np.ndarray]()

    def batch(self, k: int, lanes: Sequence[int]) -> Any:
        """Mini-batch ``k``: [B, …] where lanes share it, else [L·B, …], lane by lane (each named by its seed)."""
        epoch, place = divmod(k, self.per_epoch)
        start = place * self.batch_size
        keys = lanes[:1] if self.shared else lanes
        rows = np.concatenate([self._order(epoch, key)[start : start + self.batch_size] for key in keys])
        index = torch.from_numpy(rows).to(self.device)
        return map_leaves(lambda part: part.index_select(0, index), self.tensors)

    def _order(self, epoch: int, key: int) -> np.ndarray:
        if not self.shuffled:
            return np.arange(self.count)
        if self._epoch != epoch:
            self._epoch, self._orders = epoch, {}
        if key not in self._orders:
            generator = np.random.Generator(np.random.Philox(key=key, counter=[0, epoch, 0, ORDER_STREAM]))
            self._orders[key] = generator.permutation(self.count)
        return self._orders[key]


def _not_plain(loader: Any) -> str:
    """Why a loader's batches are not told by row numbers, "" where they are."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return f"the loader is a {type(loader).__name__}, not a DataLoader over rows"
    if type(loader.batch_sampler) is not BatchSampler or loader.batch_size is None:
        return "the loader has its own batch sampler"
    sampler = loader.sampler
    plain = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    )
    if not plain:
        return f"the loader has its own order ({type(sampler).__name__})"
    if loader.collate_fn is not default_collate:
        return "the loader has its own collate_fn"
    return ""


def _in_memory(dataset: Any) -> Any:
    if type(dataset) is TensorDataset:
        return list(dataset.tensors)
    first = default_collate([dataset[0]])
    size = sum(leaf.numel() * leaf.element_size() for leaf in leaves(first)) * len(dataset)
    if size > MOST_BYTES:
        raise NotByRow(f"the data would take {size >> 20} MiB in memory (at most {MOST_BYTES >> 20})")
    with isolated_rng(0):
        rows = default_collate([dataset[row] for row in range(len(dataset))])
    some = [0, len(dataset) // 2, len(dataset) - 1]
    with isolated_rng(1):
        again = leaves(default_collate([dataset[row] for row in some]))
    if not leaves(rows) or any(not torch.equal(a[some], b) for a, b in zip(leaves(rows), again, strict=True)):
        raise NotByRow("the data set gives other values when rows are read again (random augmentation)")
    return rows
