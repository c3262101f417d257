"""Values as errors show them."""

from __future__ import annotations

from typing import Any


def shown(value: Any) -> str:
    """A value as an error shows it: cut where it is long, by its type where it cannot be written out."""
    if isinstance(value, int) and abs(value) >= 1 << 256:
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # digits beyond Python's limit within it, or a class whose own repr fails
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}…"
