"""The correlation matrix of kept draws, and its largest entries, in tiles: one Gram product of standardised draws."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sltfast.ops.comoment import comoment_, comoment_standardise_, comoment_top_k_, comoments, rounds_products

_TILE = {"cpu": 512, "cuda": 4096}  # rows and columns: BLAS is near its full rate, and a CPU's tile stays in cache


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

    The products are `dtype`'s: float32 errs by at most (k + 3)·2⁻²⁴ (where the process has allowed TF32 they are
    float64's). Beside the result it takes the standardised draws
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
    for rows, columns in _tiles(*shape, symmetric=y is None, device=x.device):
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
    for rows, columns in _tiles(n, m, symmetric=y is None, device=x.device):
        tile = torch.empty(rows.stop - rows.start, columns.stop - columns.start, dtype=dtype, device=x.device)
        _correlate(zx, zy, rows, columns, tile, own=y is None)
        turns = [(rows, columns, tile)]
        if y is None and rows != columns:
            turns.append((columns, rows, tile.T.contiguous()))
        for here, there, matrix in turns:
            row = here.start if y is None else None
            comoment_top_k_(
                values[here], indices[here], matrix, column=there.start, row=row, absolute=absolute, backend=backend
            )
    return values, indices


def _tiles(n: int, m: int, *, symmetric: bool, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every tile; of a symmetric matrix those on and above the diagonal."""
    side = _TILE.get(device.type, _TILE["cpu"])
    for i in range(0, n, side):
        for j in range(i if symmetric else 0, m, side):
            yield slice(i, min(i + side, n)), slice(j, min(j + side, m))


def _correlate(zx: Tensor, zy: Tensor, rows: slice, columns: slice, out: Tensor, *, own: bool) -> Tensor:
    left, right = zx[:, rows].T, zy[:, columns]
    if out.dtype == torch.float32 and rounds_products(out.device):
        out.copy_(left.double() @ right.double())
    else:
        torch.mm(left, right, out=out)
    out.clamp_(-1.0, 1.0)
    if own and rows == columns:
        out.triu_().add_(out.triu(1).T)  # BLAS need not give a symmetric matrix, to the bit
        diagonal = out.diagonal()
        diagonal.copy_(torch.where(diagonal > 0, 1.0, diagonal))
    return out
