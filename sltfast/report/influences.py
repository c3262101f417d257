"""Bayesian influence between passages: the matrix, and each passage's nearest neighbours with their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.report.limits import Limits
from sltfast.report.packing import floats
from sltfast.report.response import dataset_names
from sltfast.report.section import Section
from sltfast.report.tokens import UNKNOWN, Vocabulary

if TYPE_CHECKING:
    import xarray as xr

AVERAGED = (
    "influences are token by token: means over pairs of tokens are shown, with the mean error as a bound of theirs"
)


def section(key: str, title: str, tree: xr.DataTree, vocabulary: Vocabulary, limits: Limits, *, known: bool) -> Section:
    """The matrix of influences and the neighbour lists.

    Args:
        key: of the tree on the page.
        title: heading.
        tree: with ``influences`` (batch_1, batch_2), or with target_position and target_position_T as well.
        vocabulary: the tokens' texts.
        limits: how many rows, columns, neighbours and letters.
        known: whether a tokenizer decodes.
    """
    root = tree.to_dataset()
    value, error, averaged = _matrix(root)
    queries, items = value.shape
    drawn = (min(queries, limits.matrix), min(items, limits.matrix))
    square = queries == items and _same_items(root)
    nearest = [_nearest(value[query], query if square else None, limits.neighbours) for query in range(drawn[0])]
    mentioned = sorted(
        {*range(drawn[0]), *range(drawn[1]), *(item for pair in nearest for one in pair for item in one)}
    )
    notes = ([] if known else [UNKNOWN]) + ([AVERAGED] if averaged else [])
    if drawn != (queries, items):
        notes.append(
            f"{drawn[0]} of {queries} rows and {drawn[1]} of {items} columns are drawn; neighbours are among all"
        )
    data = {
        "value": floats(value[: drawn[0], : drawn[1]]),
        "se": None if error is None else floats(error[: drawn[0], : drawn[1]]),
        "square": square,
        "limit": _limit(value, square),
        "nearest": [
            [
                [_neighbour(item, value[query, item], None if error is None else error[query, item]) for item in side]
                for side in pair
            ]
            for query, pair in enumerate(nearest)
        ],
        "passages": {str(item): _passage(root, item, vocabulary, limits.letters) for item in mentioned},
    }
    shown = {
        "notes": notes,
        "queries": queries,
        "items": items,
        "what": str(root.attrs.get("sign", "")),
        "attrs": root.attrs,
    }
    return Section(f"{key}-influences", title, "influences.html", shown, data)


def _matrix(root: xr.Dataset) -> tuple[np.ndarray, np.ndarray | None, bool]:
    influences = root["influences"]
    error = root.get("influences_se")
    tokens = [dim for dim in influences.dims if dim not in ("batch_1", "batch_2", "chain")]
    over = [dim for dim in influences.dims if dim not in ("batch_1", "batch_2")]

    def mean(array: xr.DataArray) -> np.ndarray:
        return np.asarray(array.mean(over).transpose("batch_1", "batch_2").values, np.float64)

    return mean(influences), None if error is None else mean(error), bool(tokens)


def _same_items(root: xr.Dataset) -> bool:
    """Whether row k and column k are one passage."""
    for name in ("item", "batch"):
        first, second = f"{name}_1", f"{name}_2"
        if first in root.coords and second in root.coords:
            return bool(np.array_equal(root[first].values, root[second].values))
    return True


def _nearest(row: np.ndarray, itself: int | None, count: int) -> tuple[list[int], list[int]]:
    """The columns of the largest positive and the largest negative entries, each descending in size."""
    order = [int(item) for item in np.argsort(-row, kind="stable") if item != itself and np.isfinite(row[item])]
    above = [item for item in order[:count] if row[item] > 0]
    below = [item for item in order[::-1][:count] if row[item] < 0]
    return above, below


def _neighbour(item: int, value: float, error: float | None) -> list[Any]:
    known = error is not None and np.isfinite(error)
    return [item, float(f"{value:.6g}"), float(f"{error:.6g}") if known else None]


def _limit(value: np.ndarray, square: bool) -> float:
    """The size that takes the full shade: nearly the largest, the diagonal left aside."""
    size = np.abs(value.copy())
    if square:
        np.fill_diagonal(size, np.nan)
    finite = size[np.isfinite(size)]
    return float(np.quantile(finite, 0.995)) if finite.size else 0.0


def _passage(root: xr.Dataset, item: int, vocabulary: Vocabulary, letters: int) -> dict[str, str]:
    text = ""
    if "input_ids" in root:
        text = vocabulary.text(root["input_ids"].values[item], letters)
    return {"text": text, "set": _set_of(root, item)}


def _set_of(root: xr.Dataset, item: int) -> str:
    """The data set that an item comes from, where the tree says."""
    for name in ("dataset", "dataset_id", "observable"):
        if name in root.coords and root[name].ndim == 1 and item < root[name].size:
            found = str(root[name].values[item])
            return dataset_names(root.attrs.get("dataset_id_to_name", {})).get(found, found)
    return ""
