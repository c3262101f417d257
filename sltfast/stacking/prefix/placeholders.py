"""Stand-ins for what a skipped module would have returned: the right types, shapes and dtypes, and NaN inside.

NaN, so that a number which did depend on a skipped module cannot pass for a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class TensorShape(NamedTuple):
    """Of a tensor that a module returned."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Bundle(NamedTuple):
    """Of a tuple, list or mapping that a module returned: ``items`` are TensorShapes, Bundles and Plain values, of a
    mapping under ``keys``.
    """

    kind: type
    items: tuple[Any, ...]
    keys: tuple[str, ...] | None = None


class Plain(NamedTuple):
    """None, a number or a string that a module returned."""

    value: Any


def shape_of(output: Any) -> Any:
    """The description of a module's output, hashable.

    Raises:
        TypeError: an output that is neither tensor, tuple, list, mapping of names, None, number nor string.
    """
    if isinstance(output, Tensor):
        return TensorShape(tuple(output.shape), output.dtype, output.device)
    if type(output) in (tuple, list):
        return Bundle(type(output), tuple(shape_of(item) for item in output))
    if isinstance(output, Mapping) and all(isinstance(key, str) for key in output):
        return Bundle(type(output), tuple(shape_of(item) for item in output.values()), tuple(output))
    if output is None or isinstance(output, int | float | str):
        return Plain(output)
    raise TypeError(
        f"a module that returns a {type(output).__name__} cannot be skipped (tensors, tuples and mappings can)"
    )


class Placeholders:
    """Builds stand-ins; one tensor serves every skipped module of a shape."""

    LIMIT = 8  # shapes held at a time: a run has one or two

    def __init__(self) -> None:
        self._tensors: dict[TensorShape, Tensor] = {}

    def __call__(self, described: Any) -> Any:
        """The stand-in for ``shape_of``'s description."""
        if isinstance(described, TensorShape):
            found = self._tensors.get(described)
            if found is None:
                if len(self._tensors) >= self.LIMIT:
                    self._tensors.clear()
                fill = torch.nan if described.dtype.is_floating_point or described.dtype.is_complex else 0
                found = torch.full(described.shape, fill, dtype=described.dtype, device=described.device)
                self._tensors[described] = found
            return found
        if isinstance(described, Bundle):
            items = [self(item) for item in described.items]
            if described.keys is not None:
                return described.kind(**dict(zip(described.keys, items, strict=True)))
            return described.kind(items)
        return described.value
