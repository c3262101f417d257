"""Influences, or a loss kernel, as a matrix ordered by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.plotting.style import INK, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {"influences": "influence", "correlation": "correlation of losses"}
ROBUST = 99.0  # per cent of the entries off the diagonal that the scale spans: variances would bleach the rest


def influence_matrix(result: xr.Dataset, labels: Sequence[Any] | None = None, *, title: str | None = None) -> Figure:
    """Every pair of sequences as a shade, items of one label side by side; blocks are items that share weights.

    Args:
        result: what `sltfast.compute_bif` or `sltfast.compute_loss_kernel` returns of all pairs of sequences, or of
            some queries and items.
        labels: one for each row of ``batch``; None: the observables.
        title: heading; by default the definition.

    Returns:
        The figure.

    Raises:
        ValueError: a result without a matrix (batch_1, batch_2), or labels of another number.
        MissingExtra: matplotlib is not installed.
    """
    name = next((name for name in SHOWN if name in result), "")
    if not name or result[name].dims != ("batch_1", "batch_2"):
        dims = result[name].dims if name else sorted(map(str, result.data_vars))
        raise ValueError(f"the result must hold influences or correlation of (batch_1, batch_2), it has {dims}")
    known = result["observable"].values if labels is None else np.array([str(label) for label in labels], dtype=object)
    if len(known) != result.sizes["batch"]:
        raise ValueError(f"labels must be one for each of {result.sizes['batch']} items, got {len(known)}")
    orders, groups = [], []
    for side in ("batch_1", "batch_2"):
        of_side = known[result[side].values]
        order = np.argsort(of_side.astype(str), kind="stable")
        orders.append(order)
        groups.append(of_side[order])
    values = result[name].values[np.ix_(*orders)]
    itself = result["batch_1"].values[orders[0], None] == result["batch_2"].values[orders[1]]
    others = np.abs(values[np.isfinite(values) & ~itself])
    reach = float(np.percentile(others, ROBUST)) if others.size else 1.0
    with new_figure(6.2, 5.2) as figure:
        axes = figure.subplots()
        image = axes.imshow(
            values, cmap="RdBu_r", vmin=-(reach or 1.0), vmax=reach or 1.0, aspect="auto", interpolation="nearest"
        )
        axes.grid(False)
        _name_groups(axes, groups[0], across=False)
        _name_groups(axes, groups[1], across=True)
        figure.colorbar(image, ax=axes, shrink=0.85, extend="both").ax.set_title(SHOWN[name], fontsize=8.5)
        axes.set_title(title if title is not None else str(result.attrs.get("definition", "")))
    return figure


def _name_groups(axes: Axes, labels: np.ndarray, *, across: bool) -> None:
    """A tick at the middle of each group and a line where the next begins."""
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    ends = np.r_[starts[1:], len(labels)]
    middles, names = (starts + ends - 1) / 2, [str(labels[start]) for start in starts]
    if across:
        axes.set_xticks(middles, names, rotation=30, ha="right", color=INK)
    else:
        axes.set_yticks(middles, names, color=INK)
    for start in starts[1:]:
        (axes.axvline if across else axes.axhline)(start - 0.5, color=INK, linewidth=0.8)
    axes.tick_params(length=0)
