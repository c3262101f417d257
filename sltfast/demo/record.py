"""What the demonstration leaves behind: a table, a CSV file and figures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sltfast.demo.follow import Followed, Point
from sltfast.tables import number, plus_minus, table

COLUMNS = ("step", "train_loss", "llc", "llc_se", "llc_mcse", "rhat", "ess", "verdict", "advice")


def results_table(points: Sequence[Point]) -> str:
    """One line a checkpoint: step, loss, λ̂ ± SE, R̂, ESS, verdict."""
    rows = [
        [
            str(point.step),
            f"{point.loss:.3f}",
            plus_minus(point.llc, point.se),
            f"{float(point.result['rhat']):.3f}",
            number(float(point.result["ess"]), 3),
            point.result.attrs["verdict"],
        ]
        for point in points
    ]
    return table(["step", "train loss", "λ̂ ± SE", "R̂", "ESS", "verdict"], rows)


def write_results(points: Sequence[Point], folder: str | Path) -> Path:
    """Write `results.csv`, one row a checkpoint, and return its path."""
    path = Path(folder) / "results.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for point in points:
            figures = (float(point.result[name]) for name in ("llc_mean", "llc_se", "llc_mcse", "rhat", "ess"))
            words = (point.result.attrs[name] for name in ("verdict", "advice"))
            writer.writerow([point.step, point.loss, *figures, *words])
    return path


def write_figures(followed: Followed, folder: str | Path) -> list[Path]:
    """Draw loss and λ̂ over training, every checkpoint's traces, and the last checkpoint's chains.

    Returns:
        The paths of `llc_over_training.png`, `traces.png` and `last_checkpoint.png`.
    """
    from sltfast import plotting

    folder, points = Path(folder), followed.points
    losses = np.asarray(followed.trained.losses)
    over_training = plotting.plot_llc_over_training(
        [point.step for point in points],
        [point.loss for point in points],
        [point.llc for point in points],
        [point.se for point in points],
        curve=(np.arange(1, len(losses) + 1).tolist(), losses.tolist()),
        trusted=[point.converged for point in points],
    )
    titles = [f"step {point.step}: {plus_minus(point.llc, point.se)}" for point in points]
    return [
        plotting.save(over_training, folder / "llc_over_training.png"),
        plotting.save(plotting.plot_traces([point.result for point in points], titles), folder / "traces.png"),
        plotting.save(plotting.plot_trace(points[-1].result), folder / "last_checkpoint.png"),
    ]
