"""In what two runs differ, for a reader: what is on record and what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from sltfast.results.identity import changed_tensors
from sltfast.results.loss_values import values_differ

LISTED = 6  # differences, or tensors of one, that are named; a number stands for the rest
VALUES, SOURCE = "loss_values", "loss"


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], model: nn.Module | None = None) -> list[str]:
    """What differs between a run on record and the one asked for, a line each; none where they are one run.

    The values of the loss are told where nothing but the loss could have changed them: with other weights, data or
    settings they differ of themselves.

    Args:
        stored: root attributes on record.
        wanted: those of the run asked for.
        model: of that run, to name the tensors that differ.
    """
    old, new = (attrs["sltfast"].get("identity", {}) for attrs in (stored, wanted))
    found = _settings(stored["metadata"]["config"]["sampler"], wanted["metadata"]["config"]["sampler"])
    for key in sorted({*old, *new} - {SOURCE, VALUES}):
        if old.get(key) != new.get(key):
            found.append(_part(key, old.get(key), new.get(key), model))
    values = "" if found else _values(old, new)
    if old.get(SOURCE) != new.get(SOURCE):
        found.append(_source(old, new, values, alone=not found))
    elif values:
        found.append(
            f"values of the loss on the first batch at w* ({values}; its source is the same, what it calls is not)"
        )
    return found


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return [f"{key} ({old.get(key)!r} there, {new.get(key)!r} now)" for key in keys]


def _values(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if VALUES not in old or VALUES not in new:
        return ""
    return values_differ(old[VALUES], new[VALUES])


def _part(key: str, old: Any, new: Any, model: nn.Module | None) -> str:
    if key in ("weights", "buffers") and old is not None and new is not None:
        names = [] if model is None else changed_tensors(model, key, old, new)
        which = f"{len(names)} of them: {listed(names)}" if names else "of another model"
        return f"the model's {key} ({which})"
    if key == "arrays" and old is not None and new is not None:
        before, now = old.split(", "), new.split(", ")
        there, here = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
        parts = [f"{listed(names)} only {where}" for names, where in ((there, "there"), (here, "now")) if names]
        return f"arrays ({'; '.join(parts) or 'in another order'})"
    label = f"the model's {key}" if key in ("architecture", "weights", "buffers") else key
    return f"{label} ({'nothing' if old is None else old} there, {'nothing' if new is None else new} now)"


def _source(old: Mapping[str, Any], new: Mapping[str, Any], values: str, *, alone: bool) -> str:
    """How the loss differs; where its values agree all the same, what that may mean."""
    line = f"loss ({old.get(SOURCE)} there, {new.get(SOURCE)} now"
    if not alone or VALUES not in old or VALUES not in new:
        return f"{line})"
    if values:
        return f"{line}; its values on the first batch at w* differ too: {values})"
    return (
        f"{line}; its values on the first batch at w* agree: another text, closure or state of it, a counter perhaps)"
    )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def refusal(path: Any, found: Sequence[str], stored: Mapping[str, Any]) -> str:
    """The words in which another run is refused: what differs, and how to go on.

    Args:
        path: where it is.
        found: ``differences``.
        stored: root attributes on record.
    """
    told = "; ".join(found[:LISTED]) + (f"; and {len(found) - LISTED} more" if len(found) > LISTED else "")
    whole = stored.get("completed") == 1
    kept = (
        "complete, and the call that made it returns it" if whole else "unfinished, and the call that began it goes on"
    )
    return (
        f"output_path {path} holds another run; it differs in {told}. That run is {kept}: repeat that call, give "
        "another path, or overwrite=True to delete it and begin anew"
    )
