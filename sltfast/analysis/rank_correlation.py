"""Whether two quantities rise together, whatever their scales."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sltfast.extras import require


class RankCorrelation(NamedTuple):
    """Spearman's ρ and the probability of one as far from 0 by chance."""

    rho: float
    p_value: float


def rank_correlation(first: ArrayLike, second: ArrayLike) -> RankCorrelation:
    """Spearman's ρ: Pearson's correlation of the ranks, equal values sharing theirs.

    Checkpoints of one run are no independent sample: read the probability as that of a shuffled order.

    Args:
        first: values [N], such as λ̂ of checkpoints; pairs with NaN are left out.
        second: values [N], such as critical levels of compression.

    Returns:
        (ρ, p); (NaN, NaN) where one side is constant.

    Raises:
        ValueError: different shapes, or fewer than three pairs.
        MissingExtra: scipy is not installed.
    """
    stats = require("scipy.stats", extra="analysis", purpose="for rank correlations")
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"first and second must be vectors of one length, got {one.shape} and {other.shape}")
    both = ~(np.isnan(one) | np.isnan(other))
    one, other = one[both], other[both]
    if len(one) < 3:
        raise ValueError(f"a rank correlation needs three pairs of numbers, got {len(one)}")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return RankCorrelation(float("nan"), float("nan"))
    found = stats.spearmanr(one, other)
    return RankCorrelation(float(found.statistic), float(found.pvalue))
