"""Which cell of a sweep to take: converged, on a plateau of λ̂ in the step size, and well mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

AGREEMENT = 2.0  # standard errors of the difference
SYMBOLS = {
    "lr": "ε",
    "n_beta": "nβ",
    "localization": "γ",
    "llc_weight_decay": "λ",
    "noise_level": "σ",
    "bounding_box_size": "b",
}
Cell = tuple[int, ...]


class Choice(NamedTuple):
    """The settings of the cell (None: none is recommended), why, and the cell marked True in an array of the grid."""

    cell: dict[str, float] | None
    why: str
    marked: np.ndarray


class _Candidate(NamedTuple):
    """A converged cell that no comparison refutes: whether one in ε was possible, effective draws, which cell."""

    compared: bool
    ess: float
    cell: Cell


def recommend(result: xr.Dataset, dims: Sequence[str]) -> Choice:
    """Apply the rule that ``compute_sweep`` states.

    Args:
        result: ``llc_mean``, ``llc_se``, ``ess`` and ``verdict`` over ``dims``, coordinates ascending.
        dims: the settings; the first is lr.
    """
    llc, se, ess, words = (result[name].values for name in ("llc_mean", "llc_se", "ess", "verdict"))
    values = [result[name].values for name in dims]
    marked = np.zeros(llc.shape, bool)
    converged = words == "converged"
    for name, of_no_posterior in (("n_beta", lambda v: v == 0.0), ("noise_level", lambda v: v != 1.0)):
        if name in dims:
            axis = list(dims).index(name)
            converged &= ~of_no_posterior(values[axis]).reshape([-1 if k == axis else 1 for k in range(llc.ndim)])
    if float(result.attrs.get("noise_level", 1.0)) != 1.0:
        return Choice(None, "no cell is recommended: with noise_level other than 1 none samples the posterior", marked)
    if not converged.any():
        return Choice(None, f"no cell is recommended: none converged ({_counts(words)})", marked)

    candidates, refuted = [], 0
    for cell in map(tuple, np.argwhere(converged).tolist()):
        beside = [(cell[0] + way, *cell[1:]) for way in (-1, 1)]  # the smaller step comes first
        neighbours = [other for other in beside if 0 <= other[0] < len(llc) and converged[other]]
        if neighbours:
            other = neighbours[0]
            if not abs(llc[cell] - llc[other]) <= AGREEMENT * math.hypot(se[cell], se[other]):
                refuted += 1
                continue
        candidates.append(_Candidate(bool(neighbours), float(ess[cell]), cell))
    if not candidates:
        return Choice(
            None,
            f"no cell is recommended: in each of the {refuted} that converged λ̂ differs from that of the neighbouring "
            "lr by more than 2 standard errors; add smaller values of lr, with more draws",
            marked,
        )
    best = max(candidates)
    marked[best.cell] = True
    chosen = {name: float(axis[index]) for name, axis, index in zip(dims, values, best.cell, strict=True)}
    return Choice(chosen, _why(best, chosen, candidates), marked)


def _why(best: _Candidate, chosen: dict[str, float], candidates: Sequence[_Candidate]) -> str:
    settings = ", ".join(f"{SYMBOLS[name]} {value:g}" for name, value in chosen.items())
    peers = sum(candidate.compared == best.compared for candidate in candidates)
    most = f"the most effective draws ({best.ess:.0f}) of {peers} such cells" if peers > 1 else f"ESS {best.ess:.0f}"
    if not best.compared:
        return (
            f"{settings}: converged, {most}; no cell beside it in lr converged, so a plateau in lr could not be tested "
            "(try a smaller lr with more draws)"
        )
    return f"{settings}: converged, λ̂ agrees with that at the neighbouring lr within 2 standard errors, {most}"


def _counts(words: Any) -> str:
    found, numbers = np.unique(words.astype(str), return_counts=True)
    return ", ".join(f"{number} {word}" for word, number in zip(found, numbers, strict=True))
