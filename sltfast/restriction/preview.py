"""What a restriction moves, as a table."""

from __future__ import annotations

from torch import nn

from sltfast.restriction.region import Interval, Region
from sltfast.restriction.selection import ParamMasks, select
from sltfast.tables import table

SHOWN = 4  # ranges written out; more are counted


class Preview(str):
    """Text that shows as it is at a prompt."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def preview_weight_restriction(model: nn.Module, masks: ParamMasks = None, *, plain: bool = False) -> Preview:
    """Which coordinates a restriction moves.

    Args:
        model: the model.
        masks: what ``sample`` takes as ``param_masks``: masks by parameter name, names of parts or of parameters.
        plain: only the names of the parameters, one a line.

    Returns:
        A table of parameter, shape, the rows and columns that move (of the parameter as a matrix [shape[0], rest]),
        how many coordinates of how many, and the percentage; the total in the last row. Print it, or let a prompt
        show it.

    Raises:
        ValueError, TypeError: as ``sample`` does for its ``param_masks``.
    """
    regions = select(model, masks)
    if plain:
        return Preview("\n".join(regions))
    parameters = dict(model.named_parameters())
    rows = []
    for name, region in regions.items():
        shape = tuple(parameters[name].shape)
        size = " × ".join(map(str, shape)) or "scalar"
        rows.append([size, *_count(region.numel, parameters[name].numel()), name, _where(region, len(shape))])
    total = sum(region.numel for region in regions.values())
    rows.append(["", *_count(total, sum(p.numel() for p in parameters.values())), "total of the model", ""])
    return Preview(table(["shape", "moving", "of", "%", "parameter", "where"], rows))


def _count(moving: int, of: int) -> list[str]:
    return [f"{moving:,}", f"{of:,}", f"{100 * moving / of:.3g}"]


def _where(region: Region, ndim: int) -> str:
    if region.is_whole:
        return "all"
    if region.mask is not None:
        return "mask"
    height, width = region.plane
    every_row = all(r.rows == (0, height) for r in region.rectangles)
    every_column = all(r.columns == (0, width) for r in region.rectangles)
    if every_column or ndim < 2:
        return f"rows {_ranges([r.rows for r in region.rectangles])}"
    if every_row:
        return f"columns {_ranges([r.columns for r in region.rectangles])}"
    boxes = [f"rows {_range(r.rows)} × columns {_range(r.columns)}" for r in region.rectangles]
    return "; ".join(boxes[:SHOWN]) + (f"; … ({len(boxes)} blocks)" if len(boxes) > SHOWN else "")


def _ranges(intervals: list[Interval]) -> str:
    shown = ", ".join(map(_range, intervals[:SHOWN]))
    return shown + (f", … ({len(intervals)} ranges)" if len(intervals) > SHOWN else "")


def _range(interval: Interval) -> str:
    """As a slice: the end is not in it."""
    return f"{interval[0]}:{interval[1]}"
