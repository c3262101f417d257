"""`grouped_gradient_products` in Triton: tiles of two products are multiplied entry by entry, and their sum is kept.

⟨g_i^a, g_i^b⟩ = Σ_{t,u} (left_a[i,t]·left_b[i,u]) (right_a[i,t]·right_b[i,u]) = Σ_{r,k} g_i^a[r,k] g_i^b[r,k]
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_products
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.rows import dense_rows, rows_aligned, wide

_SIDE, _SMALL_SIDE = 64, 16  # small: at most 16 positions, of which a large tile would be masked for the most part


def _tile(height: int, width: int, *, ghost: bool) -> tuple[int, int, int]:
    """Side, depth and warps: both tiles of sums stay in registers; other depths and warps spill on some GPU."""
    if max(height, width) <= _SMALL_SIDE:
        return _SMALL_SIDE, 16, 1
    return _SIDE, 32 if ghost else 16, 8


_SIZES = [
    "positions_a", "positions_b", "rows", "columns", "down", "across", "left_a_each", "left_a_row", "right_a_each",
    "right_a_row", "left_b_each", "left_b_row", "right_b_each", "right_b_row",
]  # fmt: skip


@triton.jit
def gram_tile(x, y, i, j, positions_x, positions_y, columns, x_row, y_row, DEPTH: tl.constexpr):
    """A tile of x yᵀ for x [positions_x, columns], y [positions_y, columns]."""
    T: tl.constexpr = x.dtype.element_ty
    total = tl.zeros((i.shape[0], j.shape[0]), T)
    for start in range(0, columns, DEPTH):
        k = start + tl.arange(0, DEPTH).to(tl.int64)
        here = (k < columns)[None, :]
        a = tl.load(x + i[:, None] * x_row + k[None, :], mask=(i < positions_x)[:, None] & here, other=0.0)
        b = tl.load(y + j[:, None] * y_row + k[None, :], mask=(j < positions_y)[:, None] & here, other=0.0)
        total = tl.dot(a, tl.trans(b), total, input_precision="ieee", out_dtype=T)
    return total


@triton.jit
def gradient_tile(left, right, r, k, positions, rows, columns, left_row, right_row, DEPTH: tl.constexpr):
    """A tile of leftᵀ right for left [positions, rows], right [positions, columns]."""
    T: tl.constexpr = left.dtype.element_ty
    total = tl.zeros((r.shape[0], k.shape[0]), T)
    for start in range(0, positions, DEPTH):
        t = start + tl.arange(0, DEPTH).to(tl.int64)
        here = (t < positions)[:, None]
        a = tl.load(left + t[:, None] * left_row + r[None, :], mask=here & (r < rows)[None, :], other=0.0)
        b = tl.load(right + t[:, None] * right_row + k[None, :], mask=here & (k < columns)[None, :], other=0.0)
        total = tl.dot(tl.trans(a), b, total, input_precision="ieee", out_dtype=T)
    return total


@triton.jit(do_not_specialize=_SIZES)
def products_kernel(
    parts, left_a, right_a, left_b, right_b, positions_a, positions_b, rows, columns, down, across,
    left_a_each, left_a_row, right_a_each, right_a_row, left_b_each, left_b_row, right_b_each, right_b_row,
    GHOST: tl.constexpr, SAME: tl.constexpr, ALIGNED: tl.constexpr, SIDE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One [SIDE, SIDE] tile of one sample; SAME: b is a, and Gram matrices below the diagonal mirror those above."""
    unit = tl.program_id(0).to(tl.int64)
    sample, tile = unit // (down * across), unit % (down * across)
    top, first = tile // across * SIDE, tile % across * SIDE
    if SAME and GHOST and first < top:
        tl.store(parts + unit, 0.0)
        return
    i, j = top + tl.arange(0, SIDE), first + tl.arange(0, SIDE)
    rows, columns = wide(rows, ALIGNED), wide(columns, ALIGNED)
    left_a_row, right_a_row = wide(left_a_row, ALIGNED), wide(right_a_row, ALIGNED)
    left_b_row, right_b_row = wide(left_b_row, ALIGNED), wide(right_b_row, ALIGNED)
    left_a += sample * wide(left_a_each, ALIGNED)
    right_a += sample * wide(right_a_each, ALIGNED)
    left_b += sample * wide(left_b_each, ALIGNED)
    right_b += sample * wide(right_b_each, ALIGNED)
    if GHOST:
        one = gram_tile(left_a, left_b, i, j, positions_a, positions_b, rows, left_a_row, left_b_row, DEPTH)
        two = gram_tile(right_a, right_b, i, j, positions_a, positions_b, columns, right_a_row, right_b_row, DEPTH)
    else:
        one = gradient_tile(left_a, right_a, i, j, positions_a, rows, columns, left_a_row, right_a_row, DEPTH)
        two = one
        if not SAME:
            two = gradient_tile(left_b, right_b, i, j, positions_b, rows, columns, left_b_row, right_b_row, DEPTH)
    total = tl.sum(tl.sum(one.to(tl.float64) * two.to(tl.float64), 1), 0)
    if SAME and GHOST:
        total = tl.where(first > top, 2.0 * total, total)
    tl.store(parts + unit, total)


def _one(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _ghost_multiplies_less(ta: int, tb: int, rows: int, columns: int, *, same: bool) -> bool:
    """Of a Gram matrix that is symmetric, tiles on and above the diagonal are formed; of one gradient, all."""
    tiles = triton.cdiv(ta, _SIDE)
    ghost = ta * tb * (rows + columns)
    # times 2·tiles, so that the share (tiles + 1)/(2·tiles) of a symmetric matrix is counted in integers
    return ghost * (tiles + 1) <= ta * rows * columns * 2 * tiles if same else ghost <= (ta + tb) * rows * columns


def grouped_gradient_products(
    left_a: Tensor, right_a: Tensor, left_b: Tensor, right_b: Tensor, algorithm: str
) -> Tensor:
    """`sltfast::triton_grouped_gradient_products`; the equation is in `ops.grouped_gradient_products`."""
    check_grouped_gradient_products(left_a, right_a, left_b, right_b, algorithm)
    samples, ta, rows = left_a.shape
    tb, columns = right_b.shape[1:]
    if 0 in (samples, ta, tb, rows, columns):
        return left_a.new_zeros(samples, dtype=torch.float64)
    same = _one(left_a, left_b) and _one(right_a, right_b)
    left_a, right_a = dense_rows(left_a), dense_rows(right_a)
    left_b, right_b = (left_a, right_a) if same else (dense_rows(left_b), dense_rows(right_b))
    ghost = algorithm == "ghost"
    if algorithm == "auto":
        ghost = _ghost_multiplies_less(ta, tb, rows, columns, same=same)
    height, width = (ta, tb) if ghost else (rows, columns)
    side, depth, warps = _tile(height, width, ghost=ghost)
    down, across = triton.cdiv(height, side), triton.cdiv(width, side)
    parts = left_a.new_empty((samples, down * across), dtype=torch.float64)
    factors = (left_a, right_a, left_b, right_b)
    products_kernel[(parts.numel(),)](
        parts, *factors, ta, tb, rows, columns, down, across, *(s for x in factors for s in x.stride()[:2]),
        GHOST=ghost, SAME=same, ALIGNED=rows_aligned(*factors), SIDE=side, DEPTH=depth, num_warps=warps,
    )  # fmt: skip
    return parts.sum(1)


def _ahead(name: str, kind: str, *, ghost: bool, same: bool, aligned: bool = True, side: int = _SIDE) -> Ahead:
    side, depth, warps = _tile(side, side, ghost=ghost)
    factors = dict.fromkeys(("left_a", "right_a", "left_b", "right_b"), f"*{kind}")
    cut = {"GHOST": ghost, "SAME": same, "ALIGNED": aligned, "SIDE": side, "DEPTH": depth}
    return Ahead(
        name, products_kernel, {"parts": "*fp64", **factors, **dict.fromkeys(_SIZES, "i32")}, cut, num_warps=warps
    )


AHEAD = [
    _ahead("ghost fp32", "fp32", ghost=True, same=False),
    _ahead("ghost fp32, norms", "fp32", ghost=True, same=True),
    _ahead("ghost fp32, rows not in fours", "fp32", ghost=True, same=False, aligned=False),
    _ahead("ghost fp32, 16 positions", "fp32", ghost=True, same=False, side=_SMALL_SIDE),
    _ahead("ghost fp64", "fp64", ghost=True, same=False),
    _ahead("ghost fp64, rows not in fours", "fp64", ghost=True, same=False, aligned=False),
    _ahead("ghost fp64, 16 positions", "fp64", ghost=True, same=False, side=_SMALL_SIDE),
    _ahead("formed fp32", "fp32", ghost=False, same=False),
    _ahead("formed fp32, rows not in fours", "fp32", ghost=False, same=False, aligned=False),
    _ahead("formed fp32, norms", "fp32", ghost=False, same=True),
    _ahead("formed fp64", "fp64", ghost=False, same=False),
]
