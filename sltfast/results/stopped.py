"""Chains that were stopped, as a run keeps them (``sampler.divergence``), for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LISTED = 8  # chains; a number stands for the rest


def told(deaths: Mapping[str, Mapping[str, Any]]) -> str:
    """The chains that were stopped, in a line for a reader; "" for none."""
    ordered = sorted(deaths.items(), key=lambda one: int(one[0]))
    lines = [f"chain {c} at step {d['step']}: loss {d['loss']}, farthest {d['where']}" for c, d in ordered[:LISTED]]
    return "; ".join(lines + ([f"and {len(ordered) - LISTED} more"] if len(ordered) > LISTED else []))
