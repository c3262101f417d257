"""What moves of a parameter: leaves of every lane beside the frozen w*, and the weights they make together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sltfast.restriction import Segment


class Piece(NamedTuple):
    """One moving piece of a parameter.

    ``leaf`` [l1 - l0, *segment.shape] requires grad, and may be a strided view; ``lanes`` = (l0, l1) are the lanes in
    which the piece moves, None for all of them. In the others the parameter stays w* there.
    """

    segment: Segment
    leaf: Tensor
    lanes: tuple[int, int] | None = None

    @property
    def span(self) -> tuple[int, int]:
        """(l0, l1), the lanes in which it moves."""
        return (0, len(self.leaf)) if self.lanes is None else self.lanes


class MovingWeight:
    """A parameter that moves, wholly or in pieces.

    Attributes:
        frozen: w*, the parameter's own storage.
        pieces: what moves of it; within a lane the rectangles are disjoint.
        is_whole: whether one piece is all of the parameter in every lane (a masked one is: its leaf holds w* where
            the mask does not move).
    """

    def __init__(self, name: str, parameter: Tensor, pieces: Sequence[Piece], lanes: int) -> None:
        self.name, self.frozen, self.pieces = name, parameter.detach(), tuple(pieces)
        self.lanes = lanes
        self.is_whole = len(pieces) == 1 and pieces[0].segment.whole and pieces[0].span == (0, lanes)

    @property
    def shape(self) -> torch.Size:
        """The parameter's own shape."""
        return self.frozen.shape

    @property
    def grid(self) -> tuple[int, int]:
        """The parameter seen as [shape[0], rest]."""
        rows = self.frozen.shape[0] if self.frozen.ndim else 1
        return rows, self.frozen.numel() // max(1, rows)

    def dense(self) -> Tensor:
        """[L, *shape], the weights of every lane: the leaf itself where all of the parameter moves."""
        leaf = self.pieces[0].leaf
        if self.is_whole:
            return leaf if leaf.shape[1:] == self.shape else leaf.reshape(len(leaf), *self.shape)
        boxes = [
            (slice(*piece.span), slice(*piece.segment.rows), slice(*piece.segment.columns)) for piece in self.pieces
        ]
        shape = (self.lanes, *self.grid)
        written: Tensor = _Written.apply(self.frozen, shape, boxes, *(piece.leaf for piece in self.pieces))
        return written


class _Written(torch.autograd.Function):
    """w* repeated for every lane, with the pieces written over it; gradients go to the pieces alone."""

    @staticmethod
    def forward(ctx: Any, frozen: Tensor, shape: tuple[int, int, int], boxes: list[Any], *leaves: Tensor) -> Tensor:
        lanes = shape[0]
        dense = frozen.expand(lanes, *frozen.shape).clone(memory_format=torch.contiguous_format)
        seen = dense.view(shape)
        for box, leaf in zip(boxes, leaves, strict=True):
            seen[box] = leaf.reshape(seen[box].shape)
        ctx.shape, ctx.boxes, ctx.shapes = shape, boxes, [leaf.shape for leaf in leaves]
        return dense

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        seen = gradients[0].reshape(ctx.shape)
        parts = [seen[box].reshape(shape) for box, shape in zip(ctx.boxes, ctx.shapes, strict=True)]
        return None, None, None, *parts
