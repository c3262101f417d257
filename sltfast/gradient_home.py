"""Memory that gradients are formed in step after step: pages that the system hands out anew cost as much as a product.

A pass of a run that has memory to spare keeps the homes of its leaves (``Arena.keep_gradients``); a function whose
backward forms the whole gradient of a leaf asks for the leaf's home, and goes without where there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_homes = WeakIdKeyDictionary()  # by leaf


class GradientHome:
    """Room for one gradient of a leaf; given out once until ``free``, so that two uses of a leaf have two gradients."""

    def __init__(self, leaf: Tensor) -> None:
        self._shape, self._dtype = leaf.shape, leaf.dtype
        self._buffer: Tensor | None = None
        self._given = False
        self._rows: Tensor | None = None  # the only ones that are not 0, where that is known

    def room(self) -> Tensor | None:
        """[L, *shape], contiguous, of any values; None where it is given out."""
        self._rows = None
        return self._give()

    def with_zeros(self, rows: Tensor) -> Tensor | None:
        """[L, V, d] of zeros, of which nothing but ``rows`` of [L·V, d] will be written; None where it is given out."""
        last, known = self._rows, self._buffer is not None
        room = self._give()
        if room is None:
            return None
        flat = room.view(-1, room.shape[-1])
        if known and last is not None:
            flat.index_fill_(0, last, 0.0)
        else:
            flat.zero_()
        self._rows = rows
        return room

    def free(self) -> None:
        """The gradient that was given out is not read any more from the next backward on."""
        self._given = False

    def _give(self) -> Tensor | None:
        if self._given:
            return None
        self._given = True
        if self._buffer is None:
            self._buffer = torch.empty(self._shape, dtype=self._dtype)
        return self._buffer.view(self._shape)  # autograd takes a tensor as it is where nobody else holds that tensor


def home_of(leaf: Tensor) -> GradientHome | None:
    """The home of a leaf's gradient, if it has one."""
    home: GradientHome | None = _homes.get(leaf)
    return home


def give_home(leaf: Tensor) -> GradientHome:
    """Keep a home for a leaf's gradient as long as the leaf lives."""
    home = _homes[leaf] = GradientHome(leaf)
    return home
