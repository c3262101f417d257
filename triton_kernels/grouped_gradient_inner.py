"""`grouped_gradient_inner` in Triton: a tile of right Vᵀ meets left where it is formed, and its row sums are kept.

⟨g_i, V⟩ = Σ_t left[i,t]·(V right[i,t])
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_inner
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.rows import dense_rows, rows_aligned, wide

_SIDE, _WARPS = 64, 8
_DEPTH = {4: 32, 8: 16}  # by itemsize
_SIZES = [
    "lines", "positions", "rows", "columns", "across", "left_each", "left_row", "right_each", "right_row", "v_row",
]  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def inner_kernel(
    parts, left, right, v, lines, positions, rows, columns, across, left_each, left_row, right_each, right_row, v_row,
    ALIGNED: tl.constexpr, SIDE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """SIDE positions of all samples, one after the other, and SIDE columns of left."""
    unit = tl.program_id(0).to(tl.int64)
    tile = unit % across
    line = unit // across * SIDE + tl.arange(0, SIDE)
    sample, position = line // positions, line % positions
    r = tile * SIDE + tl.arange(0, SIDE)
    rows, columns, v_row = wide(rows, ALIGNED), wide(columns, ALIGNED), wide(v_row, ALIGNED)
    x = right + sample * wide(right_each, ALIGNED) + position * wide(right_row, ALIGNED)
    y = left + sample * wide(left_each, ALIGNED) + position * wide(left_row, ALIGNED)
    there, inside = (line < lines)[:, None], r < rows
    T: tl.constexpr = left.dtype.element_ty
    total = tl.zeros((SIDE, SIDE), T)
    for start in range(0, columns, DEPTH):
        k = start + tl.arange(0, DEPTH).to(tl.int64)
        here = (k < columns)[None, :]
        a = tl.load(x[:, None] + k[None, :], mask=there & here, other=0.0)
        b = tl.load(v + r[:, None] * v_row + k[None, :], mask=inside[:, None] & here, other=0.0)
        total = tl.dot(a, tl.trans(b), total, input_precision="ieee", out_dtype=T)
    factor = tl.load(y[:, None] + r[None, :], mask=there & inside[None, :], other=0.0)
    sums = tl.sum(total.to(tl.float64) * factor.to(tl.float64), 1)
    tl.store(parts + line * across + tile, sums, mask=line < lines)


def grouped_gradient_inner(left: Tensor, right: Tensor, v: Tensor) -> Tensor:
    """`sltfast::triton_grouped_gradient_inner`; the equation is in `ops.grouped_gradient_inner`."""
    check_grouped_gradient_inner(left, right, v)
    samples, positions, rows = left.shape
    columns, lines, across = v.shape[1], samples * positions, triton.cdiv(rows, _SIDE)
    if 0 in (lines, rows, columns):
        return left.new_zeros(samples, dtype=torch.float64)
    left, right, v = dense_rows(left), dense_rows(right), dense_rows(v)
    parts = left.new_empty((samples, positions * across), dtype=torch.float64)
    inner_kernel[(triton.cdiv(lines, _SIDE) * across,)](
        parts, left, right, v, lines, positions, rows, columns, across, *left.stride()[:2], *right.stride()[:2],
        v.stride(0), ALIGNED=rows_aligned(left, right, v), SIDE=_SIDE, DEPTH=_DEPTH[left.element_size()],
        num_warps=_WARPS,
    )  # fmt: skip
    return parts.sum(1)


def _ahead(name: str, kind: str, size: int, *, aligned: bool = True) -> Ahead:
    signature = {"parts": "*fp64", **dict.fromkeys(("left", "right", "v"), f"*{kind}"), **dict.fromkeys(_SIZES, "i32")}
    cut = {"ALIGNED": aligned, "SIDE": _SIDE, "DEPTH": _DEPTH[size]}
    return Ahead(name, inner_kernel, signature, cut, num_warps=_WARPS)


AHEAD = [
    _ahead("fp32", "fp32", 4),
    _ahead("fp32, rows not in fours", "fp32", 4, aligned=False),
    _ahead("fp64", "fp64", 8),
]
