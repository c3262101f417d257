"""λ̂ over a grid of hyperparameters."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.extras import require
from sltfast.plotting.style import DEAD_COLOUR, FAINT, INK, LLC_COLOUR, new_figure
from sltfast.tables import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

SHADES = ("#f7f1ee", "#efc9bd", "#d98a75", LLC_COLOUR, "#6d2117")
HATCHES = {"drifting": ("//", FAINT), "diverged": ("xx", DEAD_COLOUR)}
LABELS = {
    "localization": "γ",
    "llc_weight_decay": "λ",
    "noise_level": "σ",
    "bounding_box_size": "box",
}
COLUMNS = 3


def sweep_heatmap(result: xr.Dataset, *, title: str | None = None) -> Figure:
    """λ̂ ± SE over step size and inverse temperature, a panel for each localization (and each other setting).

    The shade is λ̂, its scale that of the cells that converged. Cells that drift or diverged are hatched, the
    recommended cell is framed.

    Args:
        result: what `sltfast.sweep` or `sltfast.compute_sweep` returns.
        title: heading; by default which cell is recommended, or that none is.

    Returns:
        The figure.

    Raises:
        ValueError: a result without the dimensions of a sweep.
        MissingExtra: matplotlib is not installed.
    """
    dims = list(map(str, result["llc_mean"].dims)) if "llc_mean" in result else []
    if not {"lr", "n_beta", "localization"} <= set(dims):
        raise ValueError(f"the result must be that of sltfast.sweep (dimensions lr, n_beta, …), it has {dims}")
    outer = [dim for dim in dims if dim not in ("lr", "n_beta")]
    panels = [dict(zip(outer, at, strict=True)) for at in itertools.product(*(range(result.sizes[d]) for d in outer))]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (1.05 * result.sizes["lr"] + 0.5), (0.62 * result.sizes["n_beta"] + 0.7)
    with new_figure(max(4.0, columns * width + 1.6), max(2.0, rows * height + 0.9)) as figure:
        shades, scale = _shading(result)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _panel(axes, result.isel(panel), shades, scale)
            axes.set_title(", ".join(_of(result, dim, panel[dim]) for dim in outer))
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("step size ε", fontsize=9.5)
        figure.supylabel("inverse temperature nβ", fontsize=9.5)
        mappable = require("matplotlib.cm", extra="plots", purpose="to draw figures").ScalarMappable(scale, shades)
        figure.colorbar(mappable, ax=grid, shrink=0.85).ax.set_title("λ̂", fontsize=9.5)
        figure.suptitle(title if title is not None else _headline(result), fontsize=10.5)
    return figure


def _shading(result: xr.Dataset) -> tuple[Colormap, Normalize]:
    colors = require("matplotlib.colors", extra="plots", purpose="to draw figures")
    llc = result["llc_mean"].values
    finite = np.isfinite(llc)
    sure = finite & (result["verdict"].values == "converged")
    seen = llc[sure] if sure.any() else llc[finite]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    room = 0.0 if high > low else max(0.5 * abs(low), 0.5)  # a scale needs two ends
    shades: Colormap = colors.LinearSegmentedColormap.from_list("llc", SHADES)
    scale: Normalize = colors.Normalize(low - room, high + room, clip=True)
    return shades, scale


def _panel(axes: Axes, part: xr.Dataset, shades: Colormap, scale: Normalize) -> None:
    rectangle: Any = require("matplotlib.patches", extra="plots", purpose="to draw figures").Rectangle
    part = part.transpose("n_beta", "lr", ...)
    llc, se = part["llc_mean"].values, part["llc_se"].values
    words, recommended = part["verdict"].values, part["recommended"].values
    for row, column in np.ndindex(llc.shape):
        value, word = float(llc[row, column]), str(words[row, column])
        face = shades(scale(value)) if math.isfinite(value) else (1.0, 1.0, 1.0, 1.0)
        corner = (column - 0.5, row - 0.5)
        hatch, colour = HATCHES.get(word, (None, FAINT))
        axes.add_patch(
            rectangle(corner, 1, 1, facecolor=face, edgecolor=colour, hatch=hatch, linewidth=0, label=f"_{word}")
        )
        said = "diverged" if not math.isfinite(value) else plus_minus(value, float(se[row, column]))
        axes.text(
            column,
            row,
            said.replace(" ± ", "\n± "),
            ha="center",
            va="center",
            fontsize=8,
            color=_ink(face),
            bbox={"boxstyle": "square,pad=0.15", "facecolor": face, "linewidth": 0} if hatch else None,
        )
    for row, column in np.argwhere(recommended).tolist():
        corner = (column - 0.47, row - 0.47)
        axes.add_patch(
            rectangle(corner, 0.94, 0.94, fill=False, edgecolor=INK, linewidth=2.2, zorder=4, label="_recommended")
        )
    axes.grid(False)
    axes.set_xlim(-0.5, llc.shape[1] - 0.5)
    axes.set_ylim(-0.5, llc.shape[0] - 0.5)
    axes.set_xticks(range(llc.shape[1]), [f"{value:g}" for value in part["lr"].values])
    axes.set_yticks(range(llc.shape[0]), [f"{value:g}" for value in part["n_beta"].values])
    axes.tick_params(length=0)


def _ink(face: tuple[float, ...]) -> str:
    """Dark on light, white on dark."""
    red, green, blue = face[:3]
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def _of(result: xr.Dataset, dim: str, index: int) -> str:
    return f"{LABELS.get(dim, dim)} {float(result[dim].values[index]):g}"


def _headline(result: xr.Dataset) -> str:
    cell = result.attrs.get("recommended")
    if cell is None:
        return "no cell is recommended"
    chosen = result.sel(cell)
    settings = f"ε {cell['lr']:g}, nβ {cell['n_beta']:g}, γ {cell['localization']:g}"
    ess = number(float(chosen["ess"]), 3)
    estimate = plus_minus(float(chosen["llc_mean"]), float(chosen["llc_se"]))
    return f"recommended: {settings}   λ̂ = {estimate}   ESS {ess}"
