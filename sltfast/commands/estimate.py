"""An estimate as a person reads it, and as a program does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.tables import number, plus_minus, table

if TYPE_CHECKING:
    import xarray as xr

SCALARS = ("llc_mean", "llc_se", "llc_mcse", "llc_std", "rhat", "ess", "init_loss")
SETTINGS = (
    "lr",
    "n_beta",
    "localization",
    "num_chains",
    "num_draws",
    "num_burnin_steps",
    "num_steps_bw_draws",
    "batch_size",
    "sampling_method",
    "init_seed",
)


def as_text(result: xr.Dataset, facts: Mapping[str, Any]) -> str:
    """The estimate, its settings, the chains and the verdict."""
    attrs = result.attrs
    mean, se = float(result["llc_mean"]), float(result["llc_se"])
    low, high = mean - 1.96 * se, mean + 1.96 * se
    lines = [
        f"λ̂ = {plus_minus(mean, se)}   (± 1 standard error; 95 % interval {number(low)} to {number(high)})",
        f"R̂ {float(result['rhat']):.3f}   ESS {float(result['ess']):.0f}   L(w*) {float(result['init_loss']):.4f} nats",
        "",
        f"model     {facts['model']}",
        f"data      {facts['rows']} rows of {facts['context']} tokens",
        f"sampling  {attrs.get('sampling_method', '')}  ε {attrs['lr']:g}  nβ {attrs['n_beta']:g}  "
        f"γ {attrs.get('localization', 0.0):g}  batch {attrs.get('batch_size', '')}",
        "",
        _chains(result),
        "",
        *([f"died      {attrs['deaths']}"] if attrs.get("deaths") else []),
        f"verdict   {attrs['verdict']}: {attrs['advice']}",
        f"time      {facts['seconds']:g} s",
    ]
    lines += [f"{name:<9} {facts[key]}" for name, key in _FILES.items() if facts.get(key)]
    return "\n".join(lines)


_FILES = {"draws": "output_path", "figure": "figure"}


def as_json(result: xr.Dataset, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The estimate, its settings and its diagnostics as plain values; null where a number is not finite."""
    chains = {
        "llc_per_chain": [plain(value) for value in result["llc_per_chain"].values],
        "alive": [bool(value) for value in result["alive"].values],
        "death_step": [int(value) for value in result["death_step"].values],
    }
    return {
        **{name: plain(result[name]) for name in SCALARS},
        **chains,
        "deaths": result.attrs.get("deaths", ""),
        "verdict": result.attrs["verdict"],
        "advice": result.attrs["advice"],
        "settings": {name: result.attrs[name] for name in SETTINGS if name in result.attrs},
        **facts,
    }


def _chains(result: xr.Dataset) -> str:
    burnin = int(result.attrs.get("num_burnin_steps", 0))
    rows = []
    for chain, value in enumerate(result["llc_per_chain"].values):
        died = int(result["death_step"].values[chain])
        trace = np.asarray(result["excess_trace"].values[chain], float)[burnin:]
        seen = trace[np.isfinite(trace)]
        excess = number(float(seen.mean())) if seen.size else "–"
        rows.append([str(chain), number(float(value)), excess, "alive" if died < 0 else f"died at step {died}"])
    return table(["chain", "λ̂", "excess loss", "state"], rows)


def plain(value: Any) -> float | None:
    """A number as JSON has it: None where it is not finite."""
    found = float(value)
    return found if math.isfinite(found) else None
