"""The tensors among a call's arguments: where they stand, and how to put others in their place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Path = tuple[int | str, ...]  # position or keyword, then indices into nested tuples, lists and mappings


def tensors_in(value: Any, path: Path = ()) -> dict[Path, Tensor]:
    """Every tensor in nested tuples, lists and mappings, by its path; other objects are not looked into."""
    if isinstance(value, Tensor):
        return {path: value}
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    else:
        return {}
    return {at: tensor for key, inner in items for at, tensor in tensors_in(inner, (*path, key)).items()}


def arguments_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Path, Tensor]:
    """The tensors of a call, positional ones first."""
    return tensors_in(args) | tensors_in(kwargs)


def replaced(value: Any, path: Path, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with the tensor at ``path`` changed; what lies around it is copied, never written to."""
    if not path:
        return change(value)
    key, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        copied: Any = copy.copy(value)
        copied[key] = replaced(copied[key], rest, change)
        return copied
    items: Any = list(value)
    items[key] = replaced(items[key], rest, change)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*items)
    return type(value)(items)


def replaced_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], path: Path, change: Callable[[Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with the tensor at ``path`` changed."""
    if isinstance(path[0], int):
        return replaced(args, path, change), kwargs
    return args, replaced(kwargs, path, change)
