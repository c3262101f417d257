"""Results as tidy CSV rows, as JSON, and as lines to read."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.case import Plan, Result, Variant
from benchmarks.machine import FACTS

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    *("regime", "case", "variant", "role", "unit", "per", "p20", "p50", "p80", "ratio_to_ours"),
    *("llc", "llc_se", "warm_up_ms", "agreement", "axis", "size", "pairs", "threads", "target", "note"),
    *FACTS,
)


def rows(result: Result, plan: Plan, facts: dict[str, str]) -> list[dict[str, str]]:
    """One a variant, in COLUMNS."""
    table = []
    for name, variant in result.variants.items():
        table.append(
            {
                "regime": result.regime,
                "case": result.case,
                "variant": name,
                "role": variant.role,
                "unit": result.unit,
                "per": result.per,
                **{key: _number(getattr(variant, key)) for key in ("p20", "p50", "p80", "ratio_to_ours")},
                **{key: _number(getattr(variant, key)) for key in ("llc", "llc_se", "warm_up_ms")},
                "agreement": result.agreement if variant.role == "ours" else "",
                "axis": result.axis,
                "size": _number(result.size),
                "pairs": str(plan.pairs),
                "threads": str(plan.threads),
                "target": result.target,
                "note": variant.note,
                **facts,
            }
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.5g}"


def append(path: Path, table: Sequence[dict[str, str]]) -> None:
    """Add rows to a CSV file, which is made where it is missing.

    Raises:
        ValueError: the file has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = None
    if path.exists():
        with path.open(newline="") as file:
            known = next(csv.reader(file), None)
    if known is not None and tuple(known) != COLUMNS:
        raise ValueError(f"{path} has the columns {known}, not those written now: move it away and measure again")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if known is None:
            writer.writeheader()
        writer.writerows(table)


def summary(result: Result) -> dict[str, Any]:
    """An object of the JSON list; times are in ms a ``per``, null where the unit is another or a side is missing."""
    ours, peer, floor = (result.first(role) for role in ("ours", "peer", "floor"))
    timed = result.unit == "ms"

    def value(found: tuple[str, Variant] | None) -> float | None:
        return None if found is None else _finite(found[1].p50)

    numbers = {"ours": value(ours), "peer": value(peer), "floor": value(floor)}
    return {
        "regime": result.regime,
        "case": result.case,
        "ours_ms": numbers["ours"] if timed else None,
        "peer_ms": numbers["peer"] if timed else None,
        "ratio": None if peer is None else _finite(peer[1].ratio_to_ours),
        "floor_ms": numbers["floor"] if timed else None,
        "unit": result.unit,
        "per": result.per,
        **numbers,
        "peer_name": None if peer is None else peer[0],
        "floor_name": None if floor is None else floor[0],
        "target": result.target,
        "agreement": result.agreement,
        "variants": {
            name: {"p50": _finite(v.p50), "ratio_to_ours": _finite(v.ratio_to_ours), "note": v.note}
            for name, v in result.variants.items()
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def as_json(results: Sequence[Result]) -> str:
    """A list of ``summary``."""
    return json.dumps([summary(result) for result in results], indent=2, allow_nan=False)


def lines(result: Result) -> str:
    """A result to read: one line a variant."""
    head = f"{result.regime} {result.case}, {result.unit} a {result.per}" + (
        f" (target {result.target})" if result.target else ""
    )
    body = [
        f"  {name:28} {v.p50:12.5g}  [{v.p20:.4g}, {v.p80:.4g}]  {v.ratio_to_ours:8.3g} of ours  {v.note}".rstrip()
        for name, v in result.variants.items()
    ]
    return "\n".join([head, *body])
