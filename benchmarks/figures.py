"""The README's figures, from the CSV files alone: how much faster, and how cost grows.

python -m benchmarks.figures     # writes docs/figures/speedups.svg and docs/figures/scaling.svg
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.readme_tables import RESULTS, first, latest

FIGURES = ROOT / "docs" / "figures"
OURS, PEER, FLOOR, TARGET = "#1b6ca8", "#b0413e", "#888888", "#222222"
LONGEST_NAME = 58


def read(path: Path) -> list[dict[str, dict[str, str]]]:
    """The cases of a file, as last measured.

    Raises:
        SystemExit: there is no such file.
    """
    if not path.exists():
        options = " --scaling" if path.name == "scaling.csv" else ""
        raise SystemExit(f"{path} is not there: run python -m benchmarks.run{options}")
    with path.open(newline="") as file:
        return latest(list(csv.DictReader(file)))


def plots() -> Any:
    """Matplotlib without a screen, writing the same file for the same numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "sltfast", "svg.fonttype": "none", "font.size": 8})
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)


def speedups(cases: Sequence[dict[str, dict[str, str]]], path: Path) -> Path:
    """One bar a case: times faster than the peer, with the target as a mark."""
    plt = plots()
    shown = [case for case in cases if case["ours"]["unit"] == "ms" and first(case, "peer")]
    names = [f"{case['ours']['regime']} {case['ours']['case']}"[:LONGEST_NAME] for case in shown]
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.22 * len(shown)))
    places = [*range(len(shown))][::-1]
    ratios = [float(first(case, "peer")["ratio_to_ours"]) for case in shown]  # type: ignore[index]
    axes.barh(places, ratios, color=OURS, height=0.65)
    for place, ratio, case in zip(places, ratios, shown, strict=True):
        peer = first(case, "peer")["variant"]  # type: ignore[index]
        wanted = re.match(r"≥ ([\d.]+)×", case["ours"]["target"])
        target = float(wanted[1]) if wanted else 1.0
        if wanted:
            axes.plot([target, target], [place - 0.4, place + 0.4], color=TARGET, linewidth=1.5)
        axes.annotate(f" {ratio:.3g}× ({peer})", (max(ratio, target, 1), place), va="center", fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color=FLOOR, linewidth=0.8)
    axes.set_xlim(right=8 * max([*ratios, 1]))
    axes.set_yticks(places, names)
    axes.set_xlabel("× faster than the peer, same threads, medians of interleaved rounds; the mark is the target")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
    plt.close(figure)
    return path


def scaling(cases: Sequence[dict[str, dict[str, str]]], path: Path) -> Path:
    """A panel an axis: the time of ours, of the peer and of the floor."""
    plt = plots()
    panels: dict[str, list[dict[str, dict[str, str]]]] = {}
    for case in cases:
        panels.setdefault(case["ours"]["axis"], []).append(case)
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure, grid = plt.subplots(down, across, figsize=(3 * across, 2.5 * down), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (axis, points) in zip(grid.flat, panels.items(), strict=False):
        points.sort(key=lambda case: float(case["ours"]["size"]))
        for role, colour in (("ours", OURS), ("peer", PEER), ("floor", FLOOR)):
            rows = [row for case in points if (row := first(case, role))]
            if not rows:
                continue
            sizes, middle = ([float(row[column]) for row in rows] for column in ("size", "p50"))
            label = "sltfast" if role == "ours" else rows[0]["variant"]
            axes.plot(sizes, middle, marker="o", markersize=3, color=colour, label=label)
            low, high = ([float(row[column]) for row in rows] for column in ("p20", "p80"))
            axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
        if axis.startswith("heads"):
            axes.set_ylim(bottom=0)
        else:
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_minor_formatter(plt.NullFormatter())
        axes.set(xlabel=axis, ylabel=f"ms a {points[0]['ours']['per']}")
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    save(figure, path)
    plt.close(figure)
    return path


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of regimes.csv and scaling.csv")
    parser.add_argument("--output", type=Path, default=FIGURES, help="folder to write to")
    options = parser.parse_args(words)
    print(speedups(read(options.results / "regimes.csv"), options.output / "speedups.svg"))
    print(scaling(read(options.results / "scaling.csv"), options.output / "scaling.svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
