"""devinterp's rows: token ids alone, in the order of a seeded ``DataLoader`` whose first epoch is replayed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sltfast.data import Source, as_source


class TokenRows:
    """The ``input_ids`` of a data set whose items are mappings, as a data set of token rows."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Tensor:
        return torch.as_tensor(self.dataset[row]["input_ids"])


def token_source(dataset: Any, what: str = "dataset") -> Source:
    """The rows of ``input_ids``, whole numbers as int64; other columns (attention_mask, labels) do not count.

    Args:
        dataset: Hugging Face ``Dataset``, or anything with a length whose items have ``input_ids``.
        what: what it is called in messages.

    Raises:
        TypeError: it has no length or no rows by index.
        ValueError: no column ``input_ids``, or rows of different lengths.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"{what} is a {type(dataset).__name__}: give a Hugging Face Dataset with a column input_ids "
            "(of a streamed one, Dataset.from_list(list(ds.take(n))))"
        )
    if hasattr(dataset, "column_names") and hasattr(dataset, "select_columns"):
        if "input_ids" not in dataset.column_names:
            raise ValueError(f"{what} has columns {list(dataset.column_names)} and none called input_ids: tokenise it")
        source = as_source(dataset.select_columns(["input_ids"]))
    else:
        source = as_source(TokenRows(dataset))
    if isinstance(source.tensors, Tensor) and not source.tensors.is_floating_point():
        return as_source(source.tensors.long())
    return source


def row_length(source: Source) -> int:
    """Tokens of a row, T + 1."""
    return int(source.fetch(np.zeros(1, dtype=np.int64))[0].shape[-1])


def row_order(rows: int, seed: int, *, shuffle: bool) -> np.ndarray:
    """The order in which torch's ``DataLoader`` reads ``rows`` rows with its generator at ``seed``, int64 [rows]."""
    if not shuffle:
        return np.arange(rows)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    indices: Any = range(rows)
    loader: DataLoader[int] = DataLoader(
        indices, batch_size=rows, shuffle=True, generator=generator, collate_fn=_as_they_are
    )
    return np.asarray(next(iter(loader)), dtype=np.int64)


def _as_they_are(rows: Sequence[int]) -> Any:
    return list(rows)


def row_orders(rows: int, seed: int, chains: int, *, shuffle: bool, matched: bool) -> list[np.ndarray]:
    """One order for all chains, or one for each: that of the seed, and of the seeds after it."""
    return [row_order(rows, seed + chain, shuffle=shuffle) for chain in range(1 if matched else chains)]
