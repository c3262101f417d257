"""What a face of another package fixes of a run, beyond the settings that a caller of ``sltfast.sample`` has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Contract:
    """Another package's promises about data and records.

    Attributes:
        orders: for each stream of batches (one, or one per chain) the order of its rows, int64 [rows]; every epoch
            goes through that same order.
        metadata: the attribute ``metadata`` of what is recorded, in that package's words.
        warns: whether the run warns of settings itself; False where the face does, in that package's words.
    """

    orders: Sequence[np.ndarray]
    metadata: Mapping[str, Any]
    warns: bool = False

    @property
    def digest(self) -> str:
        """Of the orders, for the run's identity."""
        digest = hashlib.blake2b(digest_size=16)
        for order in self.orders:
            digest.update(np.ascontiguousarray(order, dtype=np.int64).tobytes())
        return digest.hexdigest()
