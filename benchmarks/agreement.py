"""No ratio without equality: estimates that agree within their errors, or arrays that are equal to a tolerance.

A chain has no reference to be compared with bit by bit: the packages draw different noise. What must agree is the law,
and λ̂ is its mean: |λ̂_a − λ̂_b| <= 5·√(SE_a² + SE_b²), which normal errors leave once in two million comparisons. An
error that is not finite agrees with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import Disagreement

STANDARD_ERRORS = 5.0


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    se: float


def of_ours(result: Any) -> Estimate:
    """λ̂ and SE of what ``sltfast.llc`` returned."""
    return Estimate(float(result["llc_mean"]), float(result["llc_se"]))


def of_trace(trace: np.ndarray | Tensor, level: float, n_beta: float) -> Estimate:
    """λ̂ = nβ·(mean of the mini-batch losses − L(w*)), and its error.

    Args:
        trace: mini-batch losses [chain, step] at w_t, all chains on the same batches.
        level: L(w*) over the whole data set.
        n_beta: nβ.

    The batches are shared, so their own level is no error between chains: the chains' mean trace says how large it is.
    It is added in full, as if steps were independent, which is too much where an epoch visits every row once.
    """
    from sltfast.diagnostics import mean_estimate

    losses = np.asarray(trace, dtype=np.float64)
    estimate = mean_estimate(losses)
    batches = float(losses.mean(axis=0).std()) / math.sqrt(losses.shape[1])
    return Estimate(n_beta * (estimate.mean - level), n_beta * math.hypot(estimate.se, batches))


def estimates_agree(found: Mapping[str, Estimate]) -> str:
    """Compare every side's λ̂ with ours; returns how far they are apart.

    Raises:
        Disagreement: more than STANDARD_ERRORS apart, or an error that is not finite.
    """
    said = []
    for name, other in found.items():
        if name != "ours":
            said.append(f"{name}: {_apart(found['ours'], other, name):.1f} SE")
    return ", ".join(said)


def _apart(ours: Estimate, other: Estimate, name: str) -> float:
    error = math.hypot(ours.se, other.se)
    apart = abs(ours.value - other.value) / error if error > 0 else math.inf
    if ours.value == other.value and error == 0:
        apart = 0.0
    if not apart <= STANDARD_ERRORS:
        raise Disagreement(
            f"ours is {ours.value:.4g} ± {ours.se:.2g}, {name} {other.value:.4g} ± {other.se:.2g}: {apart:.1f} "
            f"standard errors apart, at most {STANDARD_ERRORS:g} are allowed; no time is worth reporting"
        )
    return apart


def tables_agree(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The same for many estimates a side, by key; a side may have only some of ours.

    Raises:
        Disagreement: as ``estimates_agree``, or nothing in common.
    """
    said = []
    for name, table in found.items():
        if name == "ours":
            continue
        shared = [key for key in table if key in found["ours"]]
        if not shared:
            raise Disagreement(f"{name} and ours have no estimate in common; no time is worth reporting")
        worst = max(_apart(found["ours"][key], table[key], f"{name}, {key}") for key in shared)
        said.append(f"{name}: at most {worst:.1f} SE over {len(shared)}")
    return ", ".join(said)


def arrays_agree(found: Mapping[str, Tensor], *, rtol: float, atol: float) -> str:
    """Compare every side's array with ours.

    Raises:
        Disagreement: shapes differ, or an element by more than ``atol + rtol·|ours|``.
    """
    for name, other in found.items():
        try:
            torch.testing.assert_close(other, found["ours"], rtol=rtol, atol=atol, check_dtype=False)
        except AssertionError as error:
            raise Disagreement(f"{name} differs from ours: {error}") from error
    return f"equal to {rtol:g}"
