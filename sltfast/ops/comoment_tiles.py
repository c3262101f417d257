"""The correlation matrix of kept draws, and its largest entries, in tiles: one Gram product of standardised draws."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sltfast.ops.comoment import comoment_, comoment_standardise_, comoment_top_k_, comoments

_TILE = 2048  # rows and columns; BLAS is at its full rate, and a float32 tile takes 16 MB


def standardised_draws(
    x: Tensor, *, valid: Tensor | None = None, dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> Tensor:
    """Z = (x − mean)/√M2, so that z_xᵀ z_y is the correlation; 0 for variables that do not vary and draws left out.

    Args:
        x: [k, N] float32 or float64, rows contiguous.
        valid: bool or uint8 [k], which draws count.
        dtype: of z; moments and the quotient are float64.
        backend: as in `comoment_`.

    Returns:
        [k, N].
    """
    if x.dim() != 2:
        raise ValueError(f"draws must have shape [k, N], got {list(x.shape)} (chains and draws are one axis here)")
    counts = None if valid is None else valid[None]
    state = comoments(1, x.shape[1], block=False, device=x.device)
    comoment_(state, x[None], valid=counts, backend=backend)
    still = state.m2_x < torch.finfo(torch.float64).tiny
    scale = torch.where(still, 0.0, state.m2_x.rsqrt())
    z = torch.empty(1, *x.shape, dtype=dtype, device=x.device)
    comoment_standardise_(z, x[None], state.mean_x, scale, valid=counts, backend=backend)
    return z[0]


def correlate_draws(
    x: Tensor,
    y: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Correlation of every x with every y over k draws, in [−1, 1]; where y is x half of it is computed.

    The products are `dtype`'s: float32 errs by at most (k + 3)·2⁻²⁴. Beside the result it takes the standardised draws
    and one tile. Zero variance and diagonal as in `comoment_correlation`.

    Args:
        x: [k, N] float32 or float64, rows contiguous.
        y: [k, M] likewise; None: y is x.
        valid: bool or uint8 [k], which draws count.
        out: [N, M] of `dtype`, rows contiguous.
        dtype: float32 or float64.
        backend: as in `comoment_`.

    Returns:
        [N, M].
    """
    zx = standardised_draws(x, valid=valid, dtype=dtype, backend=backend)
    zy = zx if y is None else standardised_draws(y, valid=valid, dtype=dtype, backend=backend)
    shape = (zx.shape[1], zy.shape[1])
    r = torch.empty(shape, dtype=dtype, device=x.device) if out is None else out
    if tuple(r.shape) != shape or r.dtype != dtype:
        raise ValueError(f"out must be {dtype} of shape {list(shape)}, got {r.dtype} of shape {list(r.shape)}")
    for rows, columns in _tiles(*shape, symmetric=y is None):
        tile = _correlate(zx, zy, rows, columns, r[rows, columns], own=y is None)
        if y is None and rows != columns:
            r[columns, rows] = tile.T
    return r


def rank_draws(
    x: Tensor,
    y: Tensor | None = None,
    *,
    k: int,
    absolute: bool = True,
    valid: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The k largest correlations of every x, and with which y: nothing quadratic is kept but one tile.

    Where y is x, a variable is not ranked with itself.

    Args:
        x: [draws, N] float32 or float64, rows contiguous.
        y: [draws, M] likewise; None: y is x.
        k: how many a row.
        absolute: rank by |r|.
        valid: bool or uint8 [draws], which draws count.
        dtype: of the products.
        backend: as in `comoment_`.

    Returns:
        values [N, k] of `dtype` and indices int64 [N, k]; index −1 and value 0 where there are fewer than k.
    """
    if k < 0:
        raise ValueError(f"k must be >= 0, got {k}")
    zx = standardised_draws(x, valid=valid, dtype=dtype, backend=backend)
    zy = zx if y is None else standardised_draws(y, valid=valid, dtype=dtype, backend=backend)
    n, m = zx.shape[1], zy.shape[1]
    values = torch.zeros(n, k, dtype=dtype, device=x.device)
    indices = torch.full((n, k), -1, device=x.device)
    scratch = torch.empty(min(n, _TILE) * min(m, _TILE), dtype=dtype, device=x.device)
    for rows, columns in _tiles(n, m, symmetric=False):
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        tile = scratch[: shape[0] * shape[1]].view(shape)
        _correlate(zx, zy, rows, columns, tile, own=y is None)
        row = rows.start if y is None else None
        comoment_top_k_(
            values[rows], indices[rows], tile, column=columns.start, row=row, absolute=absolute, backend=backend
        )
    return values, indices


def _tiles(n: int, m: int, *, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every tile; of a symmetric matrix those on and above the diagonal."""
    for i in range(0, n, _TILE):
        for j in range(i if symmetric else 0, m, _TILE):
            yield slice(i, min(i + _TILE, n)), slice(j, min(j + _TILE, m))


def _correlate(zx: Tensor, zy: Tensor, rows: slice, columns: slice, out: Tensor, *, own: bool) -> Tensor:
    torch.mm(zx[:, rows].T, zy[:, columns], out=out)
    out.clamp_(-1.0, 1.0)
    if own and rows == columns:
        out.triu_().add_(out.triu(1).T)  # BLAS need not give a symmetric matrix, to the bit
        diagonal = out.diagonal()
        diagonal.copy_(torch.where(diagonal > 0, 1.0, diagonal))
    return out
