"""Runs that ``overwrite=True`` replaces: told before they are deleted, and nothing but runs of ours."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sltfast.errors import RunDeleted
from sltfast.results.differences import listed


def described(path: Path, stored: Mapping[str, Any]) -> str:
    """A run on record in a line: where, how much, whether whole, when begun."""
    sampler, own = stored["metadata"]["config"]["sampler"], stored["sltfast"]
    state = "complete" if stored.get("completed") == 1 else "unfinished"
    begun = own.get("provenance", {}).get("started", "an unknown time")
    return f"{path} ({sampler['num_draws']} draws of {sampler['num_chains']} chains, {state}, begun {begun})"


def tell(runs: Sequence[str], results: Sequence[Path]) -> None:
    """Say what is about to be deleted, in one warning."""
    told = f"overwrite=True deletes {listed(runs)}"
    if results:
        told += f", and what was computed from them: {listed([str(path) for path in results])}"
    warnings.warn(told, RunDeleted, stacklevel=6)


def delete_results(results: Sequence[Path]) -> None:
    """Delete what was computed from runs that are gone."""
    for path in results:
        shutil.rmtree(path)
