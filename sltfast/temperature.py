"""The inverse temperature nβ that multiplies the mean loss in the tempered posterior."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any


def default_nbeta(n: Any, gradient_accumulation_steps: int = 1) -> float:
    """nβ = n / ln n, the WBIC choice β* = 1/ln n, with n the items behind one gradient.

    Args:
        n: items per mini-batch, or a DataLoader whose ``batch_size`` is read.
        gradient_accumulation_steps: micro-batches per step; n is multiplied by it.

    Returns:
        nβ (dimensionless); 1.0, with a warning, where n <= 1.

    Raises:
        ValueError: n is not a positive whole number.

    Source: Watanabe 2013 (WBIC); Lau et al. 2308.12108.
    """
    items = n if isinstance(n, numbers.Integral) else getattr(n, "batch_size", n)
    if isinstance(items, bool) or not isinstance(items, numbers.Integral) or items < 1:
        raise ValueError(f"n must be a whole number >= 1 or a DataLoader with a batch_size, got {n!r}")
    total = int(items) * gradient_accumulation_steps
    if total <= 1:
        warnings.warn("n / ln n is undefined for n <= 1: n_beta = 1.0 is used", UserWarning, stacklevel=2)
        return 1.0
    return total / math.log(total)
