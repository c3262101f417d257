"""Two-sample tests of independent chains: is what two samplers estimate distributed alike?

Each statistic is one number a chain. Chains of one sampler see the same batches and differ in their noise alone, so
they are independent and identically distributed, and the Kolmogorov-Smirnov test's p-value is exact: a chance of at
most p of a difference as large between equal distributions. Of m statistics the smallest p counts m-fold (union bound).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import ks_2samp


def statistics(samples: Any) -> dict[str, np.ndarray]:
    """Of each chain, by name: λ̂, and over its draws the susceptibility's and the influence's covariances.

    Args:
        samples: a tree of ``sample``, with observables "task" (φ is its mean loss) and "probe", of which the first four
            sequences are looked at.
    """
    root = samples.dataset
    n_beta = float(root.attrs["metadata"]["config"]["sampler"]["n_beta"])
    trace = root["sampling_loss_micro"].values.astype(np.float64).mean(axis=(1, 2, 3))
    found = {"λ̂": n_beta * (trace - root["init_loss"].values.astype(np.float64).mean())}
    task, probe = (root[f"loss_{name}"].values.astype(np.float64) for name in ("task", "probe"))
    phi = task.mean(axis=(2, 3)) - task.mean(axis=(1, 2, 3))[:, None]
    sequences = probe[:, :, :4].mean(axis=3)
    apart = sequences - sequences.mean(axis=1, keepdims=True)
    for i in range(4):
        found[f"χ of sequence {i}"] = -(phi * apart[:, :, i]).mean(axis=1)
        for j in range(i + 1):
            found[f"influence of {i} on {j}"] = (apart[:, :, i] * apart[:, :, j]).mean(axis=1)
    return found


def p_values(theirs: Any, ours: Any) -> dict[str, float]:
    """P of every statistic of two trees, each multiplied by how many there are: the smallest is the test's."""
    one, other = statistics(theirs), statistics(ours)
    return {name: min(1.0, len(one) * float(ks_2samp(one[name], other[name]).pvalue)) for name in one}
