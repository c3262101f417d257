"""χ of every component: by data set as a heat map, by token as coloured text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.report.limits import Limits
from sltfast.report.packing import floats
from sltfast.report.response import Passages, Response
from sltfast.report.runs import listed
from sltfast.report.section import Section
from sltfast.report.tokens import UNKNOWN, Vocabulary
from sltfast.tables import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr


def heat_map(key: str, title: str, tree: xr.DataTree) -> Section | None:
    """Components × data sets, a table whose cells are shaded by χ; None where the tree has no ``/datasets``."""
    if "datasets" not in tree.children:
        return None
    summary = tree["datasets"].to_dataset()
    sus = summary["sus"].transpose("wr", "dataset")
    se = summary["se"].transpose("wr", "dataset").values if "se" in summary else np.full(sus.shape, np.nan)
    values = sus.values
    columns = [
        str(name) for name in (summary["dataset"].values if "dataset" in summary.coords else range(values.shape[1]))
    ]
    components = [str(name) for name in summary["wr"].values]
    # the whole model's χ dwarfs that of its parts: it must not take their shades away
    parts = [index for index, name in enumerate(components) if name != "full"] or list(range(len(components)))
    largest = float(np.nanmax(np.abs(values[parts]), initial=0.0))
    decimals = 2 - math.floor(math.log10(largest)) if largest > 0 else 2
    rows = [
        {
            "name": name,
            "llc": _llc(tree, name),
            "cells": [_cell(float(values[i, j]), float(se[i, j]), largest, decimals) for j in range(values.shape[1])],
        }
        for i, name in enumerate(components)
    ]
    estimator = str(tree.attrs.get("estimator", "")).replace("_", "-")
    shown = {
        "columns": columns,
        "rows": rows,
        "limit": number(largest, 2),
        "llc": any(row["llc"] for row in rows),
        "estimator": f" ({estimator} estimator)" if estimator else "",
    }
    return Section(f"{key}-datasets", title, "heat_map.html", shown, None, _poor_chains(tree))


def _cell(value: float, error: float, largest: float, decimals: int) -> dict[str, Any]:
    share = value / largest if largest > 0 and np.isfinite(value) else 0.0
    return {
        "share": round(max(-1.0, min(1.0, share)), 3),
        "value": f"{value:.{max(0, decimals)}f}" if decimals <= 7 and np.isfinite(value) else number(value, 2),
        "said": plus_minus(value, error),
        "sure": bool(abs(value) > 2 * error) if np.isfinite(error) else True,
    }


def _llc(tree: xr.DataTree, component: str) -> str:
    if "components" not in tree.children or "llc_mean" not in tree["components"].data_vars:
        return ""
    facts = tree["components"].to_dataset().sel(wr=component)
    return plus_minus(float(facts["llc_mean"]), float(facts["llc_se"]))


def _poor_chains(tree: xr.DataTree) -> tuple[str, ...]:
    """Components whose chains died or did not mix."""
    from sltfast.diagnostics.verdict import RHAT_LIMIT

    if "components" not in tree.children:
        return ()
    facts = tree["components"].to_dataset()
    names = np.array([str(name) for name in facts["wr"].values])
    said = []
    if "chains_alive" in facts:
        alive = facts["chains_alive"].values
        if (fewer := names[alive < alive.max()]).size:
            said.append(f"Chains died and are left out of χ of {listed(fewer.tolist())}.")
    if "rhat" in facts and (poor := names[facts["rhat"].values > RHAT_LIMIT]).size:
        said.append(f"R̂ is above {RHAT_LIMIT} for the chains behind χ of {listed(poor.tolist())}.")
    return tuple(said)


def coloured_text(
    key: str, title: str, response: Response, vocabulary: Vocabulary, limits: Limits, *, known: bool
) -> Section:
    """Passages whose tokens a script colours by one component's χ.

    Args:
        key: of the tree on the page.
        title: heading.
        response: from `response_of`.
        vocabulary: the tokens' texts.
        limits: how many passages and numbers.
        known: whether a tokenizer decodes.
    """
    kept = shortened(response, limits)
    notes = [] if known else [UNKNOWN]
    for whole, part in zip(response.datasets, kept, strict=True):
        if len(part.rows) < len(whole.rows):
            notes.append(f"{whole.name}: {len(part.rows)} of {len(whole.rows)} passages are on this page")
    data = {
        "components": response.components,
        "datasets": [
            {
                "name": part.name,
                "rows": part.rows.tolist(),
                "tokens": [vocabulary.places(row[row >= 0]) for row in part.ids],
                "sus": floats(part.sus),
                "se": floats(part.se),
            }
            for part in kept
        ],
    }
    return Section(f"{key}-text", title, "passages.html", {"notes": notes, "many": len(response.components) > 1}, data)


def shortened(response: Response, limits: Limits) -> list[Passages]:
    """The first passages of each data set, as many as the limits allow."""
    lengths = [2 * part.sus.shape[1] * len(response.components) for part in response.datasets]
    fits = limits.numbers // max(1, sum(lengths))
    count = max(1, min(limits.passages, fits))
    return [_first(part, count) for part in response.datasets]


def _first(part: Passages, count: int) -> Passages:
    return Passages(part.name, part.rows[:count], part.ids[:count], part.sus[:count], part.se[:count])
