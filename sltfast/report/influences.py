"""Bayesian influence between passages: the matrix, and each passage's nearest neighbours with their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.report.limits import Limits
from sltfast.report.neighbours import Influence, Neighbour, influence_of
from sltfast.report.packing import floats
from sltfast.report.section import Section
from sltfast.report.tokens import UNKNOWN, Vocabulary

if TYPE_CHECKING:
    import xarray as xr

AVERAGED = "influences are token by token: means over pairs of tokens are shown, with the mean error as a bound"
LOWER, RAISE = "more weight on it lowers this loss", "more weight on it raises this loss"


def section(key: str, title: str, tree: xr.DataTree, vocabulary: Vocabulary, limits: Limits, *, known: bool) -> Section:
    """The matrix of influences and the neighbour lists.

    Args:
        key: of the tree on the page.
        title: heading.
        tree: what ``sltfast.compute_bif`` returns.
        vocabulary: the tokens' texts.
        limits: how many rows, columns, neighbours and letters.
        known: whether a tokenizer decodes.
    """
    root = tree.to_dataset()
    influence = influence_of(root)
    rows, columns = influence.rows[: limits.matrix], influence.columns[: limits.matrix]
    nearest = [influence.nearest(row, limits.neighbours) for row in range(len(rows))]
    mentioned = {*rows, *columns, *(one.item for pair in nearest for side in pair for one in side)}
    data = {
        "rows": rows,
        "columns": columns,
        "value": _drawn(influence.value, limits),
        "se": _drawn(influence.se, limits),
        "limit": _limit(influence),
        "sides": _sides(root),
        "nearest": [[[_short(one) for one in side] for side in pair] for pair in nearest],
        "passages": {str(item): _passage(root, item, vocabulary, limits.letters) for item in sorted(mentioned)},
    }
    notes = ([] if known else [UNKNOWN]) + ([AVERAGED] if influence.averaged else [])
    counts = (len(influence.rows), len(influence.columns))
    if (len(rows), len(columns)) != counts:
        notes.append(
            f"{len(rows)} of {counts[0]} rows and {len(columns)} of {counts[1]} columns are drawn; neighbours are of "
            "all columns"
        )
    shown = {"notes": notes, "rows": counts[0], "columns": counts[1], "definition": _definition(root)}
    return Section(f"{key}-influences", title, "influences.html", shown, data, _left_out(root))


def _drawn(values: np.ndarray | None, limits: Limits) -> dict[str, Any] | None:
    return None if values is None else floats(values[: limits.matrix, : limits.matrix])


def _definition(root: xr.Dataset) -> str:
    return str(root.attrs.get("definition", "devinterp's correlation or covariance"))


def _sides(root: xr.Dataset) -> list[dict[str, Any]]:
    """The two lists in the order to read them: first the passages whose losses move with this one's."""
    positive = int(root.attrs.get("sign", 1)) > 0
    above = {"side": 0, "pole": "above", "title": "Most positive", "meaning": LOWER if positive else RAISE}
    below = {"side": 1, "pole": "below", "title": "Most negative", "meaning": RAISE if positive else LOWER}
    return [above, below] if positive else [below, above]


def _left_out(root: xr.Dataset) -> tuple[str, ...]:
    chains = np.atleast_1d(root.attrs.get("chains_left_out", [])).tolist()
    return (f"Chains {', '.join(map(str, chains))} died and are left out of every influence.",) if chains else ()


def _short(one: Neighbour) -> list[Any]:
    return [one.item, float(f"{one.value:.6g}"), float(f"{one.se:.6g}") if np.isfinite(one.se) else None]


def _limit(influence: Influence) -> float:
    """The size that takes the full shade: nearly the largest, a passage's influence on itself left aside."""
    if influence.value is None:
        return 0.0
    size = np.abs(influence.value)
    size[np.equal.outer(influence.rows, influence.columns)] = np.nan
    finite = size[np.isfinite(size)]
    return float(np.quantile(finite, 0.995)) if finite.size else 0.0


def _passage(root: xr.Dataset, item: int, vocabulary: Vocabulary, letters: int) -> dict[str, str]:
    ids = root["input_ids"].values[item] if "input_ids" in root else []
    name = str(root["observable"].values[item]) if "observable" in root.coords else ""
    return {"text": vocabulary.text(ids, letters), "set": name}
