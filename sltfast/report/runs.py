"""Every run's estimate, and what a reader must know of its chains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.report.found import Found
from sltfast.report.section import Section
from sltfast.tables import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr

NO_CHANGE = "no change needed"  # what a verdict says that says nothing
LISTED = 6  # names in a warning; a number stands for the rest


@dataclass(frozen=True)
class Run:
    """A run with its estimate.

    Attributes:
        name: of the run.
        estimate: as ``compute_llc`` gives it.
        remarks: warnings of the estimator.
    """

    name: str
    estimate: xr.Dataset
    remarks: list[str] = field(default_factory=list)

    @property
    def dead(self) -> int:
        """Chains that met NaN or infinity."""
        return int((self.estimate["death_step"].values >= 0).sum())

    @property
    def verdict(self) -> str:
        """What the estimator says: "converged", "drifting" or "diverged"."""
        return str(self.estimate.attrs["verdict"])


def estimated(found: Sequence[Found]) -> tuple[list[Run], list[str]]:
    """The runs and estimates among what was found, and a line for each that cannot be estimated.

    A sweep is as many runs as it has cells.
    """
    runs: list[Run] = []
    refused: list[str] = []
    for one in found:
        if one.kind == "estimate":
            runs.append(Run(one.name, one.tree.to_dataset()))
        if one.kind != "run":
            continue
        if not one.tree.attrs.get("completed") and not _has_steps(one):
            refused.append(f"{one.name or 'this run'}: interrupted before its first step")
            continue
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                estimates = _estimates(one)
        except ValueError as error:
            refused.append(f"{one.name}: {error}")
            continue
        remarks = [str(warning.message) for warning in caught]
        runs += [Run(name, estimate, remarks) for name, estimate in estimates]
    return runs, refused


def _has_steps(one: Found) -> bool:
    root = one.tree.to_dataset()
    return "loss" not in root or bool(np.isfinite(root["loss"].values).any())


def _estimates(one: Found) -> list[tuple[str, xr.Dataset]]:
    from sltfast.estimators.collection import estimate_of

    if not one.tree.attrs["metadata"]["config"]["sampler"].get("cells"):
        return [(one.name, estimate_of(one.tree, include_burnin=False, init_loss="paired"))]
    from sltfast.estimators.recommendation import SYMBOLS
    from sltfast.estimators.sweep import compute_sweep

    swept = compute_sweep(one.tree)
    dims = [str(dim) for dim in swept["llc_mean"].dims]
    cells = []
    for at in np.ndindex(swept["llc_mean"].shape):
        cell = swept.isel(dict(zip(dims, at, strict=True)))
        settings = ", ".join(f"{SYMBOLS[dim]} {float(cell[dim]):g}" for dim in dims)
        words = {name: str(cell[name].values) for name in ("verdict", "advice")}
        cells.append((f"{one.name} {settings}".strip(), cell.drop_vars(list(words)).assign_attrs(words)))
    return cells


def section(runs: Sequence[Run], refused: Sequence[str]) -> Section:
    """The table of λ̂, its warnings among it."""
    ends = [_interval(run) for run in runs]
    lowest = min((low for low, _ in ends), default=0.0)
    highest = max([lowest + 1e-9, *(high for _, high in ends)])
    rows = [_row(run, lowest, highest) for run in runs]
    zero = _percent(0.0, lowest, highest)
    warned = (*_warnings(runs), *refused)
    return Section(
        "llc",
        "Learning coefficients",
        "llc.html",
        {"rows": rows, "zero": zero, "ends": (number(lowest, 2), number(highest, 2))},
        None,
        warned,
    )


def _interval(run: Run) -> tuple[float, float]:
    """The ends of what the table draws; 0 and 0 where no chain lived."""
    values = np.concatenate([run.estimate["llc_ci"].values, run.estimate["llc_per_chain"].values])
    finite = values[np.isfinite(values)]
    return float(finite.min(initial=0.0)), float(finite.max(initial=0.0))


def _percent(value: float, lowest: float, highest: float) -> float:
    return round(100 * (value - lowest) / (highest - lowest), 2)


def _row(run: Run, lowest: float, highest: float) -> dict[str, Any]:
    estimate = run.estimate
    mean, se = float(estimate["llc_mean"]), float(estimate["llc_se"])
    alive = estimate["alive"].values
    low, high = (float(value) for value in estimate["llc_ci"].values)

    def at(value: float) -> float | None:
        return _percent(value, lowest, highest) if np.isfinite(value) else None

    return {
        "name": run.name or "this run",
        "llc": plus_minus(mean, se),
        "bar": (at(low), at(high)) if np.isfinite(low + high) else None,
        "mean": at(mean),
        "chains": [at(value) for value in map(float, estimate["llc_per_chain"].values) if np.isfinite(value)],
        "rhat": number(float(estimate["rhat"]), 4),
        "ess": f"{float(estimate['ess']):.0f}" if np.isfinite(float(estimate["ess"])) else "–",
        "loss": number(float(estimate["init_loss"]), 4),
        "alive": f"{int(alive.sum())} of {alive.size}",
        "whole": bool(alive.all()),
        "verdict": run.verdict,
        "advice": "" if estimate.attrs["advice"] == NO_CHANGE else estimate.attrs["advice"],
    }


def _warnings(runs: Sequence[Run]) -> list[str]:
    dead = [f"{run.name or 'this run'} ({run.dead} of {run.estimate.sizes['chain']})" for run in runs if run.dead]
    said = []
    if dead:
        said.append(f"Chains died (NaN or infinity) and are left out of every mean: {listed(dead)}.")
    said += [f"{run.name or 'this run'}: {run.estimate.attrs['deaths']}." for run in runs if _told(run)][:LISTED]
    for word, meaning in (("diverged", "no estimate should be read from them"), ("drifting", "not converged")):
        names = [run.name or "this run" for run in runs if run.verdict == word]
        if names:
            of = f"{len(names)} of {len(runs)} runs {'is' if len(names) == 1 else 'are'} {word}"
            said.append(f"{of} ({meaning}): {listed(names)}.")
    said += [f"{run.name or 'this run'}: {remark}" for run in runs for remark in dict.fromkeys(run.remarks)]
    return said


def _told(run: Run) -> bool:
    return bool(run.dead and run.estimate.attrs.get("deaths"))


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
