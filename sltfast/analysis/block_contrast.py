"""How much a kernel's items agree within groups, and across them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BlockContrast:
    """Correlations of pairs of items, by whether they are of one group.

    Attributes:
        within: mean over pairs of different items of one group.
        across: mean over pairs of items of two groups.
        across_rms: root mean square of these; of independent losses about 1/√ESS.
        p_value: share of permutations of the labels, and of the labels as they are, with as large a within − across.
    """

    within: float
    across: float
    across_rms: float
    p_value: float


def block_contrast(correlation: Any, labels: Any, *, permutations: int = 199, seed: int = 0) -> BlockContrast:
    """Compare the diagonal blocks of a loss kernel with the rest.

    Disjoint mechanisms have independent losses under the posterior, so that the kernel of a model of several tasks is
    block-diagonal, R(x, x') = 0 across tasks.

    Args:
        correlation: R [n, n], symmetric, as ``compute_loss_kernel`` gives it.
        labels: [n] group of each item.
        permutations: of the labels, for ``p_value``.
        seed: of the permutations.

    Returns:
        Means within and across groups, and how often labels at random do as well.

    Raises:
        ValueError: no finite square matrix, labels of another length, or fewer than two groups or two items in each.

    Source: Adam, Furman & Hoogland 2509.26537.
    """
    values, groups = np.asarray(correlation, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not np.isfinite(values).all():
        raise ValueError(f"correlation must be a square matrix of finite numbers, got shape {values.shape}")
    if groups.shape != values.shape[:1]:
        raise ValueError(f"labels must be [{len(values)}], one an item, got shape {groups.shape}")
    if isinstance(permutations, bool) or not isinstance(permutations, int) or permutations < 1:
        raise ValueError(f"permutations must be a whole number >= 1, got {permutations!r}")
    _, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(f"there must be two groups, of two items each at least, got sizes {counts.tolist()}")
    member = np.eye(len(counts))[which]
    total, trace = values.sum(), np.trace(values)
    pairs_within = float((counts * (counts - 1)).sum())
    pairs_across = len(values) ** 2 - float((counts**2).sum())

    def means(one: np.ndarray) -> tuple[float, float]:
        inside = float((one * (values @ one)).sum())
        return (inside - trace) / pairs_within, (total - inside) / pairs_across

    within, across = means(member)
    rng = np.random.default_rng(seed)
    dealt = [means(member[rng.permutation(len(values))]) for _ in range(permutations)]
    larger = sum(w - a >= within - across for w, a in dealt)
    apart = which[:, None] != which
    return BlockContrast(within, across, float(np.sqrt((values[apart] ** 2).mean())), (larger + 1) / (permutations + 1))
