"""A part of one parameter that moves as one block: a rectangle of it, or all of it under a mask."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sltfast.restriction.region import Interval, plane_of


@dataclass(frozen=True)
class Segment:
    """Rows r0 <= r < r1 and columns c0 <= c < c1 of one parameter seen as a matrix [shape[0], rest].

    Coordinate i of a segment is element ``element + (i // run) * stride + i % run`` of the full model, so that its
    noise is the same under every restriction.

    Attributes:
        name: the parameter's first name in ``named_parameters``.
        parameter: the caller's own tensor, w* on these coordinates.
        element: flat index of the segment's first coordinate in the full model (``named_parameters`` order, tied
            weights once).
        mask: bool, flat over the whole parameter, True where it moves, for what is no rectangle; else None.
        rows: (r0, r1); all rows under a mask.
        columns: (c0, c1); all columns under a mask; (0, 1) for a vector.
    """

    name: str
    parameter: nn.Parameter
    element: int
    mask: Tensor | None
    rows: Interval
    columns: Interval

    @property
    def whole(self) -> bool:
        """Whether the segment spans the parameter (a masked one always does)."""
        rows, columns = plane_of(self.parameter.shape)
        return self.rows == (0, rows) and self.columns == (0, columns)

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's own shape where the segment spans it, else (r1 - r0, c1 - c0), or (r1 - r0,) of a vector."""
        if self.whole:
            return tuple(self.parameter.shape)
        rows = self.rows[1] - self.rows[0]
        return (rows,) if self.parameter.ndim == 1 else (rows, self.columns[1] - self.columns[0])

    @property
    def numel(self) -> int:
        """Coordinates of the block, masked ones included."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    @property
    def moving(self) -> int:
        """Coordinates that move."""
        return self.numel if self.mask is None else int(self.mask.sum())

    @property
    def run(self) -> int:
        """Coordinates that follow each other in the full model: a row of columns, or all where the rows are full."""
        return self.numel if self.stride == 0 else self.columns[1] - self.columns[0]

    @property
    def stride(self) -> int:
        """Elements from one run to the next; 0 where there is one run."""
        columns = plane_of(self.parameter.shape)[1]
        one_run = self.columns == (0, columns) or self.rows[1] - self.rows[0] == 1
        return 0 if one_run else columns

    def of(self, tensor: Tensor) -> Tensor:
        """This block [r1 - r0, c1 - c0] of a tensor of the parameter's shape: a view where its layout allows."""
        plane = tensor.reshape(plane_of(tensor.shape))
        return plane[self.rows[0] : self.rows[1], self.columns[0] : self.columns[1]]

    def anchor(self) -> Tensor:
        """w* on these coordinates, flat [numel]: the caller's own storage where the block is contiguous."""
        return self.of(self.parameter.detach()).reshape(-1)
