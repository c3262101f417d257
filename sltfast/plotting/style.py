"""How all figures look, how one is begun, and how it is written to a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHAIN_COLOURS = ("#3b6fb6", "#d1733f", "#4b9a6a", "#8b5fa8", "#b8a13a", "#4aa3a8", "#c2577a", "#6f6f6f")
INK, FAINT, LOSS_COLOUR, LLC_COLOUR, DEAD_COLOUR = "#222222", "#b9bec6", "#5b6470", "#b5432b", "#b00020"
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8eaee",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure with an Agg canvas; the style holds inside and nowhere else."""
    matplotlib = require("matplotlib", extra="plots", purpose="to draw figures")
    figures = require("matplotlib.figure", extra="plots", purpose="to draw figures")
    agg = require("matplotlib.backends.backend_agg", extra="plots", purpose="to draw figures")
    with matplotlib.rc_context(STYLE):
        figure: Figure = figures.Figure(figsize=(width, height), layout="constrained")
        agg.FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 150) -> Path:
    """Write a figure to a file.

    Args:
        figure: what a plot returned.
        path: of the file; its suffix decides the format (.png, .pdf, .svg).
        dpi: pixels an inch, where the format has pixels.

    Returns:
        The path.

    Raises:
        ValueError: a format matplotlib cannot write.
        OSError: the folder does not exist.
    """
    target = Path(path)
    figure.savefig(target, dpi=dpi)
    return target
