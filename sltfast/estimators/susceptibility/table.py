"""The tree of susceptibilities: flat tables of items × restrictions, with coordinates that say what each item is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


def token_table(
    columns: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, int]], wr: Sequence[str]
) -> xr.Dataset:
    """The node ``/susceptibilities``, as devinterp has it: variables (sus_flat, wr) over the items of all data sets.

    Args:
        columns: of each variable, [restrictions, items], the items of one data set after the other's.
        shapes: of each data set, its (rows, positions); in order.
        wr: names of the restrictions.
    """
    import xarray as xr

    variables = {name: (("sus_flat", "wr"), values.T) for name, values in columns.items()}
    coords: dict[str, Any] = {**_flat("sus_flat", shapes, "target_position", first=1), "wr": _names(wr)}
    return xr.Dataset(variables, coords=coords, attrs={"dataset_id_to_name": list(shapes)})


def context_table(ids: Mapping[str, np.ndarray], datasets: Sequence[str]) -> xr.Dataset:
    """The node ``/context``, as devinterp has it: the token ids of the data sets that have any, (ctx_flat).

    Args:
        ids: [rows, tokens] by data set.
        datasets: all data sets; ``dataset_id`` counts in these.
    """
    import xarray as xr

    shapes = {name: (ids[name].shape[0], ids[name].shape[1]) if name in ids else (0, 0) for name in datasets}
    flat = np.concatenate([ids[name].ravel() for name in datasets if name in ids])
    coords = _flat("ctx_flat", shapes, "position", first=0)
    return xr.Dataset({"input_ids": ("ctx_flat", flat)}, coords=coords, attrs={"dataset_id_to_name": list(datasets)})


def dataset_table(columns: Mapping[str, np.ndarray], wr: Sequence[str], datasets: Sequence[str]) -> xr.Dataset:
    """Variables [restrictions, data sets] as (wr, dataset)."""
    import xarray as xr

    variables = {name: (("wr", "dataset"), values) for name, values in columns.items()}
    return xr.Dataset(variables, coords={"wr": _names(wr), "dataset": _names(datasets)})


def component_table(columns: Mapping[str, Sequence[Any]], wr: Sequence[str]) -> xr.Dataset:
    """Variables (wr)."""
    import xarray as xr

    variables = {
        name: ("wr", _names(values) if isinstance(values[0], str) else np.asarray(values))
        for name, values in columns.items()
    }
    return xr.Dataset(variables, coords={"wr": _names(wr)})


def _names(names: Sequence[str]) -> np.ndarray:
    return np.array(list(names), dtype=object)


def _flat(dim: str, shapes: Mapping[str, tuple[int, int]], position: str, *, first: int) -> dict[str, Any]:
    """Coordinates of items row by row: number of the data set, row, position."""
    sizes = [rows * width for rows, width in shapes.values()]
    places = [np.indices(shape).reshape(2, -1) for shape in shapes.values()]
    rows, positions = np.concatenate(places, axis=1)
    return {
        "dataset_id": (dim, np.repeat(np.arange(len(sizes)), sizes)),
        "batch": (dim, rows),
        position: (dim, positions + first),
    }
