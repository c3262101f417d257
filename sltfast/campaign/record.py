"""What a campaign found, as rows: for a table, for CSV, for JSON."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sltfast.campaign.running import Measured
from sltfast.tables import number, plus_minus, table

NUMBERS = ("llc_mean", "llc_se", "rhat", "ess")
COLUMNS = ("step", "variant", "dataset", "restriction", *NUMBERS, "chains_alive", "verdict", "sus", "se", "advice")


def rows_of(measured: Measured) -> list[dict[str, Any]]:
    """The cells of a group, one row each; of susceptibilities one for each component and data set.

    Returns:
        ``COLUMNS`` by name: ``sus`` and ``se`` None for learning coefficients, ``verdict`` and ``advice`` "" for
        susceptibilities; numbers are NaN where no chain lived.
    """
    group = measured.group
    step = None if group.checkpoint is None else group.checkpoint.step
    place = {"step": step, "variant": group.variant, "dataset": group.dataset}
    if measured.response is not None:
        return [{**place, **row} for row in _of_response(measured.response)]
    return [
        {
            **place,
            "restriction": name,
            **{key: float(one[key]) for key in NUMBERS},
            "chains_alive": int(one["alive"].sum()),
            "verdict": str(one.attrs["verdict"]),
            "sus": None,
            "se": None,
            "advice": str(one.attrs["advice"]),
        }
        for name, one in measured.estimates.items()
    ]


def _of_response(response: Any) -> Iterator[dict[str, Any]]:
    parts, datasets = response["components"].to_dataset(), response["datasets"].to_dataset()
    for name in map(str, parts["wr"].values):
        part = parts.sel(wr=name)
        for dataset in map(str, datasets["dataset"].values):
            chi = datasets.sel(wr=name, dataset=dataset)
            yield {
                "dataset": dataset,
                "restriction": name,
                **{key: float(part[key]) for key in NUMBERS},
                "chains_alive": int(part["chains_alive"]),
                "verdict": "",
                "sus": float(chi["sus"]),
                "se": float(chi["se"]),
                "advice": "",
            }


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for a terminal; what is the same everywhere and says nothing is left out."""
    places = ("step", "variant", "dataset", "restriction")
    named = [key for key in places if any(row[key] not in ("", None) for row in rows)]
    response = any(row["sus"] is not None for row in rows)
    lines = []
    for row in rows:
        line = [str(row[key]) for key in named]
        line += [plus_minus(row["sus"], row["se"])] if response else []
        line += [plus_minus(row["llc_mean"], row["llc_se"]), number(row["rhat"]), number(row["ess"], 3)]
        lines.append([*line, str(row["chains_alive"]), *([] if response else [row["verdict"]])])
    before, after = (["χ ± SE"], []) if response else ([], ["verdict"])
    return table([*named, *before, "λ̂ ± SE", "R̂", "ESS", "alive", *after], lines)


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """``COLUMNS`` of every row; empty where there is nothing."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: None where a number is not finite."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def duration(seconds: float) -> str:
    """A time for people, to the two units that matter."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{number(seconds, 2)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"{hours / 24:.1f} days"
