"""devinterp's ``sample`` bit for bit: torch's operations in its order, torch's noise, one chain after another."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """``run``, imported when it is asked for: the module of single chains and this one need each other's parts."""
    if name == "run":
        return import_module("sltfast.compat.exact_run.runs").run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
