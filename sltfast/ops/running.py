"""Calling an op so that what it refuses is said well."""

from collections.abc import Callable
from typing import Any

import torch


def run(op: Callable[..., Any], check: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    """Call `op`; should it refuse, `check` raises first: ops refuse before they write, and Python says it better."""
    if torch.compiler.is_compiling():
        return op(*arguments)
    try:
        return op(*arguments)
    except RuntimeError:
        check(*arguments)
        raise
