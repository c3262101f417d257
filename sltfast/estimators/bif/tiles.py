"""All pairs, or the largest of each row, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sltfast.estimators.bif.pairs import Pairs
from sltfast.ops.comoment import comoment_top_k_

TILE = {"cpu": 512, "cuda": 4096}  # rows and columns: BLAS is near its full rate, and a CPU's tile stays in cache
TILE_WITH_ERRORS = {"cpu": 256, "cuda": 2048}  # four tiles at once
SHOWN_FROM = 64  # tiles: fewer are over before a bar is read
PICKED_VALUES = 1 << 20  # draws gathered at once


class Matrix(NamedTuple):
    """All pairs [N, M] on the CPU: values, their standard errors, and the part that comes from chain means."""

    values: Tensor
    errors: Tensor | None
    between: Tensor | None


class Neighbours(NamedTuple):
    """The k best columns of each row [N, k] on the CPU, −1 and NaN where there are fewer."""

    values: Tensor
    columns: Tensor
    errors: Tensor | None


def matrix(
    pairs: Pairs, *, sign: int, errors: bool, between: bool, side: int | None = None, progress: bool = False
) -> Matrix:
    """Every pair, times `sign`.

    Args:
        pairs: which.
        sign: 1 or −1.
        errors: with standard errors.
        between: with the part that comes from the chains' means.
        side: most rows and columns of a tile.
        progress: show a bar, if it takes long.
    """
    kept = [torch.empty(pairs.shape, dtype=pairs.dtype) if wanted else None for wanted in (True, errors, between)]
    values, deviation, means = kept
    assert values is not None
    for rows, columns in _shown(_tiles(pairs, errors, side), pairs, "influences", progress):
        here = values[rows, columns]
        tile = here if pairs.device.type == "cpu" else torch.empty(here.shape, dtype=pairs.dtype, device=pairs.device)
        pairs.fill(rows, columns, tile)
        made = [tile, None, None]
        if deviation is not None:
            made[1] = pairs.standard_error(pairs.deviations(rows, columns, tile))
        if means is not None:
            made[2] = pairs.between(rows, columns).mul_(sign)
        if sign != 1:
            tile.mul_(sign)
        for target, part in zip(kept, made, strict=True):
            if target is not None and part is not None:
                if target is not values or tile is not here:
                    target[rows, columns] = part.to(target.device)
                if pairs.symmetric and rows != columns:
                    target[columns, rows] = target[rows, columns].T
    return Matrix(values, deviation, means)


def neighbours(
    pairs: Pairs, k: int, *, sign: int, absolute: bool, errors: bool, side: int | None = None, progress: bool = False
) -> Neighbours:
    """The k largest of each row, a variable's entry with itself left out; nothing quadratic but a tile is held.

    Args:
        pairs: which.
        k: how many.
        sign: 1 or −1, of values.
        absolute: rank by |value|, else by the signed value, largest first.
        errors: with standard errors of what was picked.
        side: most rows and columns of a tile.
        progress: show a bar, if it takes long.
    """
    n = pairs.shape[0]
    values = torch.zeros(n, k, dtype=pairs.dtype, device=pairs.device)
    places = torch.full((n, k), -1, device=pairs.device)
    for rows, columns in _shown(_tiles(pairs, False, side), pairs, "neighbours", progress):
        tile = torch.empty(rows.stop - rows.start, columns.stop - columns.start, dtype=pairs.dtype, device=pairs.device)
        pairs.fill(rows, columns, tile)
        tile.mul_(sign)
        turns = [(rows, columns, tile)]
        if pairs.symmetric and rows != columns:
            turns.append((columns, rows, tile.T.contiguous()))
        for here, there, block in turns:
            own = pairs.own[here]
            inside = torch.nonzero((own >= there.start) & (own < there.stop))[:, 0]
            block[inside, own[inside] - there.start] = torch.nan  # never taken
            comoment_top_k_(values[here], places[here], block, column=there.start, absolute=absolute)
    deviation = _errors_of(pairs, values * sign, places) if errors else None
    empty = places < 0
    values[empty] = torch.nan
    return Neighbours(values.cpu(), places.cpu(), deviation)


def _errors_of(pairs: Pairs, values: Tensor, places: Tensor) -> Tensor:
    n, k = values.shape
    result = torch.empty(n, k, dtype=pairs.dtype)
    draws = max(rows.stop - rows.start for rows in pairs.blocks.rows)
    step = max(1, PICKED_VALUES // max(1, draws * k))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        found = pairs.picked(rows, places[rows].clamp(min=0), values[rows])
        result[rows] = pairs.standard_error(found).masked_fill_(places[rows] < 0, torch.nan).cpu()
    return result


def _tiles(pairs: Pairs, errors: bool, side: int | None) -> list[tuple[slice, slice]]:
    """Rows and columns of every tile; of a symmetric matrix those on and above the diagonal."""
    sizes = TILE_WITH_ERRORS if errors else TILE
    most = sizes.get(pairs.device.type, sizes["cpu"])
    most = most if side is None else max(1, min(most, side))
    n, m = pairs.shape
    return [
        (slice(i, min(i + most, n)), slice(j, min(j + most, m)))
        for i in range(0, n, most)
        for j in range(i if pairs.symmetric else 0, m, most)
    ]


def _shown(tiles: list[tuple[slice, slice]], pairs: Pairs, what: str, progress: bool) -> Iterator[tuple[slice, slice]]:
    if not progress or len(tiles) < SHOWN_FROM:
        return iter(tiles)
    from tqdm.auto import tqdm

    return iter(tqdm(tiles, desc=what, unit="tile", dynamic_ncols=True))
