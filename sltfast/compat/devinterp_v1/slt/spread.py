"""Standard deviations over chains and draws."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_std(values: Tensor, dim: int = 0) -> Tensor:
    """Standard deviation with ddof 1; NaN for one value, without torch's warning."""
    if values.shape[dim] < 2:
        return torch.full_like(values.sum(dim), torch.nan)
    return values.std(dim)
