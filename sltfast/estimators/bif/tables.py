"""Influences as xarray: names and dimensions as devinterp 2.0.1 has them, and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from sltfast.estimators.bif.pairs import Pairs
from sltfast.estimators.bif.tiles import matrix, neighbours

if TYPE_CHECKING:
    import xarray as xr

Items = tuple[np.ndarray, np.ndarray]


def matrix_table(
    pairs: Pairs,
    items: Items,
    positions: int | None,
    *,
    sign: int,
    errors: bool,
    between: bool,
    side: int | None,
    progress: bool,
) -> xr.Dataset:
    """``influences``, ``influences_se``, ``within`` and ``between`` of all pairs; see `tiles.matrix`.

    Args:
        pairs: of variables; of T = ``positions`` to an item, or of items where that is None.
        items: numbers of both sides' items, the coordinates.
        positions: T.
        sign: of all but errors.
        errors: with errors.
        between: with the parts.
        side: most rows of a tile.
        progress: show a bar.
    """
    import xarray as xr

    found = matrix(pairs, sign=sign, errors=errors, between=between, side=side, progress=progress)
    dims: tuple[str, ...] = ("batch_1", "batch_2")
    coords: dict[str, Any] = {"batch_1": items[0], "batch_2": items[1]}
    if positions is not None:
        dims += ("target_position", "target_position_T")
        coords |= dict.fromkeys(dims[2:], np.arange(1, positions + 1))

    def laid_out(values: Tensor) -> tuple[tuple[str, ...], np.ndarray]:
        if positions is None:
            return dims, values.numpy()
        # a view: rows stay (item, position) in memory
        four = values.view(len(items[0]), positions, len(items[1]), positions)
        return dims, four.permute(0, 2, 1, 3).numpy()

    variables = {"influences": laid_out(found.values)}
    if found.errors is not None:
        variables["influences_se"] = laid_out(found.errors)
    if found.between is not None:
        variables["within"] = laid_out(found.values - found.between)
        variables["between"] = laid_out(found.between)
    return xr.Dataset(variables, coords=coords)


def neighbour_table(
    pairs: Pairs,
    items: Items,
    positions: int | None,
    *,
    k: int,
    absolute: bool,
    sign: int,
    errors: bool,
    side: int | None,
    progress: bool,
) -> xr.Dataset:
    """The k largest of each row and which they are; see `tiles.neighbours`, and `matrix_table` for the rest."""
    import xarray as xr

    found = neighbours(pairs, k, sign=sign, absolute=absolute, errors=errors, side=side, progress=progress)
    dims: tuple[str, ...] = ("batch_1", "neighbour")
    coords: dict[str, Any] = {"batch_1": items[0], "neighbour": np.arange(k)}
    shape: tuple[int, ...] = (len(items[0]), k)
    if positions is not None:
        dims, shape = ("batch_1", "target_position", "neighbour"), (len(items[0]), positions, k)
        coords["target_position"] = np.arange(1, positions + 1)
    width = positions or 1
    columns = found.columns.numpy()
    variables: dict[str, Any] = {"influences": (dims, found.values.numpy().reshape(shape))}
    if found.errors is not None:
        variables["influences_se"] = (dims, found.errors.numpy().reshape(shape))
    batch = np.where(columns < 0, -1, items[1][np.maximum(columns, 0) // width])
    variables["neighbour_batch"] = (dims, batch.reshape(shape))
    if positions is not None:
        at = np.where(columns < 0, -1, columns % width + 1)
        variables["neighbour_position"] = (dims, at.reshape(shape))
    return xr.Dataset(variables, coords=coords)
