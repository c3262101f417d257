"""What moves of a parameter: leaves of every lane beside the frozen w*, and the weights they make together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sltfast.restriction import Segment


class Piece(NamedTuple):
    """One moving piece of a parameter.

    ``leaf`` requires grad, and may be a strided view; ``lanes`` = (l0, l1) are the lanes in which the piece moves, None
    for all of them. In the others the parameter stays w* there. The leaf is [l1 - l0, *segment.shape], or of all lanes,
    [L, *segment.shape], where several restrictions share it and each moves a rectangle of its own.
    """

    segment: Segment
    leaf: Tensor
    lanes: tuple[int, int] | None = None

    @property
    def span(self) -> tuple[int, int]:
        """(l0, l1), the lanes in which it moves."""
        return (0, len(self.leaf)) if self.lanes is None else self.lanes

    @property
    def rows(self) -> slice:
        """Where the piece's lanes lie in its leaf."""
        first, last = self.span
        return slice(first, last) if len(self.leaf) > last - first else slice(None)

    @classmethod
    def of_restrictions(cls, segments: Sequence[Segment], leaf: Tensor) -> list[Piece]:
        """The pieces of one leaf [L, …] whose lanes are those of several restrictions, one after another."""
        if len(segments) == 1:
            return [cls(segments[0], leaf)]
        chains = len(leaf) // len(segments)
        return [cls(segment, leaf, (r * chains, (r + 1) * chains)) for r, segment in enumerate(segments)]


class MovingWeight:
    """A parameter that moves, wholly or in pieces.

    Attributes:
        frozen: w*, the parameter's own storage.
        pieces: what moves of it; within a lane the rectangles are disjoint.
        is_whole: whether one leaf is all of the parameter in every lane (a masked one is: it holds w* where the mask
            does not move).
    """

    def __init__(self, name: str, parameter: Tensor, pieces: Sequence[Piece], lanes: int) -> None:
        self.name, self.frozen = name, parameter.detach()
        self.read(pieces, lanes)

    def read(self, pieces: Sequence[Piece], lanes: int) -> None:
        """Move these pieces from now on, in so many lanes."""
        self.pieces, self.lanes = tuple(pieces), lanes
        one_leaf = len({id(piece.leaf) for piece in pieces}) == 1 and len(pieces[0].leaf) == lanes
        everywhere = sum(piece.span[1] - piece.span[0] for piece in pieces) == lanes
        self.is_whole = one_leaf and everywhere and all(piece.segment.whole for piece in pieces)

    @property
    def shape(self) -> torch.Size:
        """The parameter's own shape."""
        return self.frozen.shape

    @property
    def grid(self) -> tuple[int, int]:
        """The parameter seen as [shape[0], rest]."""
        rows = self.frozen.shape[0] if self.frozen.ndim else 1
        return rows, self.frozen.numel() // max(1, rows)

    def leaves(self) -> list[Tensor]:
        """Of every piece, [l1 - l0, *segment.shape]; a leaf that pieces share is split once, not sliced for each."""
        starts: dict[int, set[int]] = {}
        for piece in self.pieces:
            if piece.rows != slice(None):
                starts.setdefault(id(piece.leaf), set()).update(piece.span)
        parts: dict[tuple[int, int], Tensor] = {}
        for piece in self.pieces:
            if id(piece.leaf) in starts:
                cuts = sorted(starts.pop(id(piece.leaf)))
                for first, part in zip([0, *cuts], piece.leaf.tensor_split(cuts), strict=True):
                    if len(part):
                        parts[id(piece.leaf), first] = part
        return [
            piece.leaf if piece.rows == slice(None) else parts[id(piece.leaf), piece.span[0]] for piece in self.pieces
        ]

    def dense(self) -> Tensor:
        """[L, *shape], the weights of every lane: the leaf itself where all of the parameter moves."""
        if self.is_whole:
            leaf = self.pieces[0].leaf
            return leaf if leaf.shape[1:] == self.shape else leaf.reshape(len(leaf), *self.shape)
        boxes = [
            (slice(*piece.span), slice(*piece.segment.rows), slice(*piece.segment.columns)) for piece in self.pieces
        ]
        shape = (self.lanes, *self.grid)
        written: Tensor = _Written.apply(self.frozen, shape, boxes, *self.leaves())
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
