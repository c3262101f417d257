"""The response of every component to every token, from the flat arrays of a susceptibility tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sltfast.analysis.response import dataset_names

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Passages:
    """One data set of a response.

    Attributes:
        name: of the data set.
        rows: which of its rows the passages are, [B].
        ids: token ids, int64 [B, T]; −1 where the context holds none.
        sus: χ of the token at each position, [B, T, components]; NaN where nothing predicts it.
        se: its standard error, of the same shape.
    """

    name: str
    rows: np.ndarray
    ids: np.ndarray
    sus: np.ndarray
    se: np.ndarray


@dataclass(frozen=True)
class Response:
    """χ by component, data set, passage and position.

    Attributes:
        components: names of the weight restrictions.
        datasets: one entry a data set.
    """

    components: list[str]
    datasets: list[Passages]


def response_of(tree: xr.DataTree) -> Response:
    """Sort the flat arrays ``/susceptibilities`` and ``/context`` by passage and position.

    Raises:
        ValueError: the tree lacks one of them.
    """
    missing = {"susceptibilities", "context"} - set(tree.children)
    if missing:
        raise ValueError(f"a susceptibility tree has the groups susceptibilities and context: no {sorted(missing)}")
    flat, context = tree["susceptibilities"].to_dataset(), tree["context"].to_dataset()
    names = dataset_names(flat.attrs.get("dataset_id_to_name", {}))
    sus = flat["sus"].transpose("sus_flat", "wr").values
    se = flat["se"].transpose("sus_flat", "wr").values if "se" in flat else np.full(sus.shape, np.nan)
    ids = context["input_ids"].values
    of_sus, of_context = flat["dataset_id"].values, context["dataset_id"].values
    datasets = []
    for key in dict.fromkeys(of_context.tolist()):
        here, there = of_sus == key, of_context == key
        rows, row = np.unique(context["batch"].values[there], return_inverse=True)
        position = context["position"].values[there].astype(int)
        target = flat["target_position"].values[here].astype(int)
        length = int(max(position.max(initial=0), target.max(initial=0))) + 1
        token_ids = np.full((len(rows), length), -1, np.int64)
        token_ids[row, position] = ids[there]
        at = (np.searchsorted(rows, flat["batch"].values[here]), target)
        values = []
        for source in (sus, se):
            grid = np.full((len(rows), length, sus.shape[1]), np.nan, np.float32)
            grid[at] = source[here]
            values.append(grid)
        datasets.append(Passages(names.get(str(key), str(key)), rows, token_ids, *values))
    return Response([str(name) for name in flat["wr"].values], datasets)
