"""How the runs were made: settings, plan, machine; what all share once, and what differs run by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sltfast.report.found import Found
from sltfast.report.section import Section

SYMBOLS = {"lr": "ε", "n_beta": "nβ", "localization": "γ", "llc_weight_decay": "λ", "noise_level": "σ"}
ABSENT = "–"
DIFFERING = 40  # runs listed with what sets them apart


def section(found: Sequence[Found]) -> Section | None:
    """Settings, provenance and plan of everything that carries them; None where nothing does."""
    told = {one.name or "this run": groups(one.tree.attrs) for one in found if one.kind == "run"}
    results = {one.name or one.kind: _settings(one) for one in found if one.kind != "run"}
    results = {name: facts for name, facts in results.items() if facts}
    if not told and not results:
        return None
    names = list(dict.fromkeys(group for facts in told.values() for group in facts))
    tables = [_compared(group, {run: facts.get(group, {}) for run, facts in told.items()}) for group in names]
    shown = {"tables": tables, "results": results, "runs": len(told), "listed": DIFFERING}
    return Section("facts", "How it was made", "facts.html", shown)


def groups(attrs: Mapping[Any, Any]) -> dict[str, dict[str, str]]:
    """The attributes of a run's tree in words, by group."""
    config = attrs["metadata"]["config"]
    own = attrs.get("sltfast", {})
    sampler = {f"{key} {SYMBOLS[key]}" if key in SYMBOLS else key: value for key, value in config["sampler"].items()}
    observables = {str(one["obs_id"]): f"{one['batches_per_draw']} batches a draw" for one in config["observables"]}
    state = {
        "coordinates that move": attrs.get("metrics_numel"),
        "completed": "yes" if attrs.get("completed") else "no",
    }
    named = {
        "Sampler": {**state, **sampler},
        "Observables": observables,
        "Plan": own.get("plan", {}),
        "Provenance": own.get("provenance", {}),
        "Identity": {key: value for key, value in own.get("identity", {}).items() if key != "arrays"},
    }
    return {
        group: {str(key): spoken(value) for key, value in facts.items() if value not in (None, "", [], {})}
        for group, facts in named.items()
        if facts
    }


def spoken(value: Any) -> str:
    """A setting as a reader expects it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spoken(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(spoken, value)) if len(value) <= 12 else f"{len(value)} values"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 100_000 else str(value)


def _settings(one: Found) -> dict[str, str]:
    """The attributes of a result that fit a line, those of its groups among them."""
    nodes = [one.tree, *one.tree.children.values()]
    attrs = {str(key): value for node in reversed(nodes) for key, value in node.attrs.items()}
    return {key: spoken(value) for key, value in attrs.items() if _fits(value)}


def _fits(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and 0 < len(str(value)) <= 200


def _compared(group: str, by_run: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    keys = list(dict.fromkeys(key for facts in by_run.values() for key in facts))
    values = {key: [facts.get(key, ABSENT) for facts in by_run.values()] for key in keys}
    common = {key: said[0] for key, said in values.items() if len(set(said)) == 1}
    apart = [key for key in keys if key not in common]
    rows = [(run, [values[key][index] for key in apart]) for index, run in enumerate(by_run)]
    return {"name": group, "common": common, "apart": apart, "rows": rows[:DIFFERING] if apart else []}
