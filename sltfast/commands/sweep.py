"""`sltfast sweep MODEL DATA …`: the local learning coefficient over a grid of hyperparameters."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sltfast.commands import language_model
from sltfast.commands.language_model import ESTIMATE, INPUT, PLACES, SAMPLING

if TYPE_CHECKING:
    import xarray as xr

SUMMARY = "estimate it over a grid of step sizes, temperatures and localisations"
DESCRIPTION = """\
Estimate λ̂ at every point of a grid, all chains in one stack, and recommend one:
chains that converged, on a plateau of λ̂ in the step size, with the most effective
draws. Numbers with commas between are the values to try.

MODEL and DATA are those of `sltfast llc`."""
EPILOG = """\
examples:
  sltfast sweep ./model corpus.txt --lr 1e-5,3e-5,1e-4 --localization 300,1000
  sltfast sweep ./model corpus.txt --lr 1e-6,1e-5,1e-4 --n-beta 10,30,100 \\
      --localization 1000 --output-path sweep.zarr --figure sweep.png"""
SWEPT = {
    "lr": "step sizes ε; start around 0.1 / localization (required)",
    "n_beta": "inverse temperatures nβ (default: n / ln n, n = rows behind one gradient)",
    "localization": "γ, precisions of the Gaussian that holds the chains near w*",
    "noise_level": "σ of the injected noise; 1 samples the posterior",
    "llc_weight_decay": "precisions of a Gaussian prior around 0",
    "bounding_box_size": "half-widths of a box around w*",
}
GRID = tuple(
    replace(setting, kind=tuple, help=SWEPT[setting.name]) if setting.name in SWEPT else setting for setting in SAMPLING
)
OUTPUT = language_model.output(
    "zarr directory for the draws of all cells; makes the sweep resumable",
    "write the heat map to this file (.png, .pdf, .svg)",
)
SETTINGS = (*PLACES, *INPUT, *GRID, *ESTIMATE, *OUTPUT)
COLUMNS = ("llc_mean", "llc_se", "llc_mcse", "rhat", "ess", "drift")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    groups = (("input", INPUT), ("sampling", GRID), ("estimate", ESTIMATE), ("output", OUTPUT))
    language_model.add_arguments(parser, groups)


def run(arguments: argparse.Namespace) -> int:
    """Load, sample the grid, report."""
    settings, result, facts = language_model.estimated(arguments, SETTINGS, _estimate)
    if settings["figure"]:
        from sltfast import plotting

        plotting.save(plotting.sweep_heatmap(result), settings["figure"])
    if settings["json"]:
        print(json.dumps(_as_json(result, facts), indent=2, ensure_ascii=False))
    else:
        print(_as_text(result, facts))
    return 0


def _single_values(keywords: dict[str, Any]) -> dict[str, Any]:
    """A setting of one value is that value, and no dimension."""
    return {
        name: value[0] if name in SWEPT and isinstance(value, tuple) and len(value) == 1 else value
        for name, value in keywords.items()
    }


def _cells(result: xr.Dataset) -> list[tuple[dict[str, float], xr.Dataset]]:
    """Every cell, and its settings."""
    import numpy as np

    dims = [str(dim) for dim in result["llc_mean"].dims]
    found = []
    for at in np.ndindex(result["llc_mean"].shape):
        cell = result.isel(dict(zip(dims, at, strict=True)))
        found.append(({dim: float(cell[dim]) for dim in dims}, cell))
    return found


def _as_text(result: xr.Dataset, facts: dict[str, Any]) -> str:
    from sltfast.estimators.recommendation import SYMBOLS
    from sltfast.tables import number, plus_minus, table

    rows = []
    for settings, cell in _cells(result):
        mean, se = float(cell["llc_mean"]), float(cell["llc_se"])
        alive, died = int(cell["chains_alive"]), int(cell["chains_diverged"])
        rows.append(
            [
                "→" if bool(cell["recommended"]) else "",
                *(f"{value:g}" for value in settings.values()),
                plus_minus(mean, se),
                number(float(cell["llc_mcse"]), 2),
                number(float(cell["rhat"])),
                number(float(cell["ess"]), 3),
                number(float(cell["drift"]), 2),
                f"{alive} of {alive + died}",
                str(cell["verdict"].values),
            ]
        )
    header = ["", *(SYMBOLS[str(dim)] for dim in result["llc_mean"].dims)]
    header += ["λ̂ ± SE", "MCSE", "R̂", "ESS", "drift", "alive", "verdict"]
    lines = [
        table(header, rows),
        "",
        result.attrs["recommendation"],
        "",
        f"model     {facts['model']}",
        f"data      {facts['rows']} rows of {facts['context']} tokens",
        f"time      {facts['seconds']:g} s",
    ]
    lines += [
        f"{name:<9} {facts[key]}" for name, key in (("draws", "output_path"), ("figure", "figure")) if facts.get(key)
    ]
    return "\n".join(lines)


def _as_json(result: xr.Dataset, facts: dict[str, Any]) -> dict[str, Any]:
    from sltfast.commands.estimate import plain

    cells = [
        {
            **{name: plain(value) for name, value in settings.items()},
            **{name: plain(cell[name]) for name in COLUMNS},
            "llc_per_chain": [plain(value) for value in cell["llc_per_chain"].values],
            "chains_alive": int(cell["chains_alive"]),
            "chains_diverged": int(cell["chains_diverged"]),
            "verdict": str(cell["verdict"].values),
            "advice": str(cell["advice"].values),
        }
        for settings, cell in _cells(result)
    ]
    cell = result.attrs["recommended"]
    chosen = None if cell is None else {name: plain(value) for name, value in cell.items()}
    told = {"recommended": chosen, "recommendation": result.attrs["recommendation"]}
    return {"cells": cells, **told, "init_loss": float(result["init_loss"]), **facts}


def _estimate(model: Any, rows: Any, settings: dict[str, Any]) -> Any:
    from sltfast.estimators.sweep import sweep

    return sweep(model, rows, **_single_values(language_model.keywords(settings, GRID)))
