"""What moves of a parameter: leaves of every lane beside the frozen w*, and the weights they make together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sltfast.restriction import Segment


class Piece(NamedTuple):
    """One moving piece of a parameter: ``leaf`` [L, *segment.shape] requires grad, and may be a strided view."""

    segment: Segment
    leaf: Tensor


class MovingWeight:
    """A parameter that moves, wholly or in pieces.

    Attributes:
        frozen: w*, the parameter's own storage.
        pieces: what moves of it; the rectangles are disjoint.
    """

    def __init__(self, name: str, parameter: Tensor, pieces: Sequence[Piece]) -> None:
        self.name, self.frozen, self.pieces = name, parameter.detach(), tuple(pieces)
        # A masked piece is dense: its leaf holds w* where the mask does not move.
        self.is_whole = len(pieces) == 1 and (pieces[0].segment.whole or pieces[0].segment.mask is not None)

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
        boxes = [(piece.segment.rows, piece.segment.columns) for piece in self.pieces]
        written: Tensor = _Written.apply(self.frozen, self.grid, boxes, *(piece.leaf for piece in self.pieces))
        return written


class _Written(torch.autograd.Function):
    """w* repeated for every lane, with the pieces written over it; gradients go to the pieces alone."""

    @staticmethod
    def forward(ctx: Any, frozen: Tensor, grid: tuple[int, int], boxes: list[Any], *leaves: Tensor) -> Tensor:
        lanes = len(leaves[0])
        dense = frozen.expand(lanes, *frozen.shape).clone(memory_format=torch.contiguous_format)
        seen = dense.view(lanes, *grid)
        for ((r0, r1), (c0, c1)), leaf in zip(boxes, leaves, strict=True):
            seen[:, r0:r1, c0:c1] = leaf.reshape(lanes, r1 - r0, c1 - c0)
        ctx.grid, ctx.boxes, ctx.shapes = grid, boxes, [leaf.shape for leaf in leaves]
        return dense

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        seen = gradient.reshape(len(gradient), *ctx.grid)
        parts = [
            seen[:, r0:r1, c0:c1].reshape(shape)
            for ((r0, r1), (c0, c1)), shape in zip(ctx.boxes, ctx.shapes, strict=True)
        ]
        return None, None, None, *parts
