"""Token rows in the order in which devinterp's seeded ``DataLoader`` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sltfast.compat.devinterp.slt.config import SamplerConfig
from sltfast.compat.fast_run.rows import row_length
from sltfast.data import Source


class TokenItems(Dataset[dict[str, Tensor]]):
    """Rows of token ids [T + 1] as mappings with ``input_ids``; ``tokens`` is T + 1."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = row_length(source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """Several rows at once, as a ``DataLoader`` asks for them."""
        return [{"input_ids": one} for one in self.source.fetch(np.asarray(rows, dtype=np.int64))]


def loader_of(rows: TokenItems, config: SamplerConfig, chain: int) -> DataLoader[Any]:
    """The loader of a chain: seeded as every chain's where they share their batches, else by its own seed."""
    apart = 0 if config.match_sampling_input_ids_across_chains else chain
    return DataLoader(
        rows,
        batch_size=config.batch_size,
        shuffle=config.shuffle,
        generator=torch.Generator(device="cpu").manual_seed(config.init_seed + apart),
        drop_last=True,
    )
