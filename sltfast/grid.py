"""A grid of hyperparameters: which values each setting takes, and the cells that are their product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sltfast.sampler.config import CELL_SETTINGS, is_finite
from sltfast.shown import shown

ALWAYS = ("lr", "n_beta", "localization")
"""What is a dimension of every sweep, be it of one value."""
MOST = 10_000
"""Values of one setting; an iterator without an end is refused, not awaited."""
Values = float | Sequence[float]


@dataclass(frozen=True)
class Grid:
    """Settings and the values that they take, ascending; cells in the order of their product, the last one fastest.

    Attributes:
        axes: values by setting. A ``bounding_box_size`` of infinity is none.
    """

    axes: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> tuple[Grid, dict[str, Any]]:
        """The grid of settings given as numbers or sequences, and those that keep one value.

        ``lr``, ``n_beta`` and ``localization`` are dimensions whatever they hold, the others where they are sequences.

        Args:
            settings: by name of CELL_SETTINGS.

        Raises:
            ValueError: an empty or endless sequence, a value that stands twice, or one that is no number.
        """
        axes: dict[str, tuple[float, ...]] = {}
        fixed: dict[str, Any] = {}
        for name in sorted(settings, key=CELL_SETTINGS.index):
            values = _sequence(name, settings[name])
            if values is None and name not in ALWAYS:
                fixed[name] = settings[name]
            else:
                axes[name] = _checked(name, [settings[name]] if values is None else values)
        return cls(axes), fixed

    @classmethod
    def of_cells(cls, cells: Sequence[Mapping[str, float | None]]) -> Grid:
        """The grid that recorded cells make.

        Raises:
            ValueError: they are no product of values.
        """
        found = {name: sorted({_number(cell[name]) for cell in cells}) for name in cells[0]}
        grid = cls({name: tuple(values) for name, values in found.items()})
        if [{name: _number(value) for name, value in cell.items()} for cell in cells] != grid.points:
            raise ValueError("the samples' cells are not the grid of a sweep, every value with every other")
        return grid

    @property
    def dims(self) -> tuple[str, ...]:
        """The settings, in the order of the dimensions."""
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Values of each setting."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def points(self) -> list[dict[str, float]]:
        """The values of every cell."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    @property
    def cells(self) -> tuple[dict[str, Any], ...]:
        """The settings of every cell, as ``SamplerConfig`` takes them."""
        return tuple({name: _setting(name, value) for name, value in point.items()} for point in self.points)


def _sequence(name: str, given: Any) -> list[Any] | None:
    """The values of a sequence; None for one value."""
    if isinstance(given, str | bytes | Mapping):
        raise ValueError(f"{name} must be a number or a sequence of numbers, got {shown(given)}")
    if isinstance(given, np.ndarray | Tensor):
        listed = given.tolist()
        return listed if isinstance(listed, list) else None
    if not isinstance(given, Iterable):
        return None
    listed = list(itertools.islice(given, MOST + 1))
    if len(listed) > MOST:
        raise ValueError(f"{name} has more than {MOST} values: a sweep samples chains at each of them; give fewer")
    return listed


def _checked(name: str, values: Sequence[Any]) -> tuple[float, ...]:
    if not values:
        raise ValueError(f"{name} is an empty sequence: give at least one value to try")
    for value in values:
        if value is None and name == "bounding_box_size":
            continue
        if not is_finite(value):
            raise ValueError(f"{name} must be a finite number or a sequence of them, got {shown(value)}")
    plain = [_number(value) for value in values]
    twice = [value for value in plain if plain.count(value) > 1]
    if twice:
        raise ValueError(f"{name} holds {twice[0]:g} more than once: give each value once")
    return tuple(sorted(plain))


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _setting(name: str, value: float) -> float | None:
    return None if name == "bounding_box_size" and math.isinf(value) else value
