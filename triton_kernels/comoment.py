"""`comoment_` in Triton: draws are joined and centred, then tiles of the block take their product.

A product's float32 sums are at most DEPTH draws long; what they add up to is float64.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.comoment_arguments import Comoments, check_comoment
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.chan import merge_share
from sltfast.triton_kernels.rows import rows_aligned, wide

_STRIP, _DRAWS, _SIDE, _DEPTH = 128, 8, 64, 16
_WARPS = {"fp32": 4, "fp64": 8}  # of a product: with more, or a deeper one, registers spill on some GPU


@triton.jit
def load_draws(x, row, column, draw_stride, draws, variables, valid, HAS_VALID: tl.constexpr):
    """float64 [DRAWS, STRIP] of one group, and which of them count."""
    counts = row < draws
    if HAS_VALID:
        counts = counts & (tl.load(valid + row, mask=counts, other=0) != 0)
    here = counts[:, None] & (column < variables)[None, :]
    return tl.load(x + row[:, None] * draw_stride + column[None, :], mask=here, other=0.0).to(tl.float64), here, counts


@triton.jit(do_not_specialize=["draws", "variables", "strips", "group_stride", "draw_stride"])
def join_kernel(
    x, valid, count, mean, m2, centred, draws, variables, strips, group_stride, draw_stride,
    HAS_VALID: tl.constexpr, CENTRED: tl.constexpr, ALIGNED: tl.constexpr, DRAWS: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """One strip of variables of one group; the mean is taken twice, so that a common offset costs nothing."""
    unit = tl.program_id(0).to(tl.int64)
    group, column = unit // strips, unit % strips * STRIP + tl.arange(0, STRIP)
    draw_stride, variables = wide(draw_stride, ALIGNED), wide(variables, ALIGNED)
    x += group * wide(group_stride, ALIGNED)
    if HAS_VALID:
        valid += group * draws
    inside = column < variables
    lines = tl.arange(0, DRAWS).to(tl.int64)

    total, counted = tl.zeros((STRIP,), tl.float64), tl.zeros((1,), tl.float64)
    for start in range(0, draws, DRAWS):
        v, _, counts = load_draws(x, start + lines, column, draw_stride, draws, variables, valid, HAS_VALID)
        total += tl.sum(v, 0)
        counted += tl.sum(counts.to(tl.float64), 0)
    m = tl.maximum(counted, 1.0)
    batch = total / m
    rest = tl.zeros((STRIP,), tl.float64)
    for start in range(0, draws, DRAWS):
        v, here, _ = load_draws(x, start + lines, column, draw_stride, draws, variables, valid, HAS_VALID)
        rest += tl.sum(tl.where(here, v - batch[None, :], 0.0), 0)
    batch += rest / m
    squares = tl.zeros((STRIP,), tl.float64)
    for start in range(0, draws, DRAWS):
        row = start + lines
        v, here, _ = load_draws(x, row, column, draw_stride, draws, variables, valid, HAS_VALID)
        c = tl.where(here, v - batch[None, :], 0.0)
        squares += tl.sum(c * c, 0)
        if CENTRED:
            to = centred + (group * (draws + 1) + row[:, None]) * variables + column[None, :]
            tl.store(to, c.to(centred.dtype.element_ty), mask=(row < draws)[:, None] & inside[None, :])

    n = tl.load(count + group)
    share = merge_share(n, counted)
    weight = n * share
    at = group * variables + column
    old = tl.load(mean + at, mask=inside, other=0.0)
    delta = tl.where(counted > 0, batch - old, 0.0)
    tl.store(mean + at, old + delta * share, mask=inside)
    tl.store(m2 + at, tl.load(m2 + at, mask=inside, other=0.0) + (squares + delta * delta * weight), mask=inside)
    if CENTRED:
        last = tl.sqrt(weight) * delta
        to = centred + (group * (draws + 1) + draws) * variables + column
        tl.store(to, last.to(centred.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["depth", "rows", "columns", "down", "across", "group_stride", "row_stride"])
def product_kernel(
    block, x, y, depth, rows, columns, down, across, group_stride, row_stride,
    SYMMETRIC: tl.constexpr, ALIGNED: tl.constexpr, SIDE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One [SIDE, SIDE] tile of one group: block += xᵀ y over `depth` centred draws; a symmetric one is mirrored."""
    unit = tl.program_id(0).to(tl.int64)
    group, tile = unit // (down * across), unit % (down * across)
    top, left = tile // across * SIDE, tile % across * SIDE
    if SYMMETRIC and left < top:
        return
    i, j = top + tl.arange(0, SIDE), left + tl.arange(0, SIDE)
    rows, columns = wide(rows, ALIGNED), wide(columns, ALIGNED)
    row_stride = wide(row_stride, ALIGNED)
    x += group * depth * rows
    y += group * depth * columns
    total = tl.zeros((SIDE, SIDE), tl.float64)
    for start in range(0, depth, DEPTH):
        t = start + tl.arange(0, DEPTH).to(tl.int64)
        here = (t < depth)[:, None]
        a = tl.load(x + t[:, None] * rows + i[None, :], mask=here & (i < rows)[None, :], other=0.0)
        b = tl.load(y + t[:, None] * columns + j[None, :], mask=here & (j < columns)[None, :], other=0.0)
        total += tl.dot(tl.trans(a), b, input_precision="ieee", out_dtype=x.dtype.element_ty).to(tl.float64)
    at = block + group * wide(group_stride, ALIGNED)
    here = at + i[:, None] * row_stride + j[None, :]
    mask = (i < rows)[:, None] & (j < columns)[None, :]
    if SYMMETRIC:
        mask = mask & (j[None, :] >= i[:, None])
    total += tl.load(here, mask=mask, other=0.0)
    tl.store(here, total, mask=mask)
    if SYMMETRIC:
        tl.store(at + j[None, :] * row_stride + i[:, None], total, mask=mask & (j[None, :] > i[:, None]))


@triton.jit(do_not_specialize=["draws"])
def count_kernel(count, valid, draws, HAS_VALID: tl.constexpr, BLOCK: tl.constexpr):
    """count[g] += the draws of group g that count."""
    group = tl.program_id(0).to(tl.int64)
    counted = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, draws, BLOCK):
        t = start + tl.arange(0, BLOCK)
        if HAS_VALID:
            counted += (tl.load(valid + group * draws + t, mask=t < draws, other=0) != 0).to(tl.float64)
        else:
            counted += (t < draws).to(tl.float64)
    tl.store(count + group, tl.load(count + group) + tl.sum(counted, 0))


def comoment_(
    count: Tensor,
    mean_x: Tensor,
    m2_x: Tensor,
    mean_y: Tensor | None,
    m2_y: Tensor | None,
    block: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    valid: Tensor | None,
    precision: str,
) -> None:
    """`sltfast::triton_comoment_`; the equation and the shapes are in `ops.comoment_`."""
    check_comoment(Comoments(count, mean_x, m2_x, mean_y, m2_y, block), x, y, valid, precision)
    groups, draws, n = x.shape
    if groups == 0 or draws == 0:
        return
    products = block is not None and block.numel() > 0
    dtype = torch.float64 if precision == "fp64" else torch.float32
    counts = None if valid is None else valid.view(torch.uint8)

    def centred(side: Tensor, mean: Tensor, m2: Tensor) -> Tensor:
        out = side.new_empty((groups, draws + 1, side.shape[2]) if products else (0,), dtype=dtype)
        strips = triton.cdiv(side.shape[2], _STRIP)
        aligned = rows_aligned(side, mean)
        if strips:
            join_kernel[(groups * strips,)](
                side, counts, count, mean, m2, out, draws, side.shape[2], strips, *side.stride()[:2],
                HAS_VALID=valid is not None, CENTRED=products, ALIGNED=aligned, DRAWS=_DRAWS, STRIP=_STRIP,
                num_warps=4,
            )  # fmt: skip
        return out

    of_x = centred(x, mean_x, m2_x)
    of_y = of_x if y is None or mean_y is None or m2_y is None else centred(y, mean_y, m2_y)
    if block is not None and products:
        m = block.shape[2]
        down, across = triton.cdiv(n, _SIDE), triton.cdiv(m, _SIDE)
        product_kernel[(groups * down * across,)](
            block, of_x, of_y, draws + 1, n, m, down, across, *block.stride()[:2],
            SYMMETRIC=y is None, ALIGNED=rows_aligned(block, of_x, of_y), SIDE=_SIDE, DEPTH=_DEPTH,
            num_warps=_WARPS[precision],
        )  # fmt: skip
    count_kernel[(groups,)](count, counts, draws, HAS_VALID=valid is not None, BLOCK=128, num_warps=1)


_INTEGERS = ["draws", "variables", "strips", "group_stride", "draw_stride"]
_JOIN = {"valid": "*u8", "count": "*fp64", "mean": "*fp64", "m2": "*fp64"} | dict.fromkeys(_INTEGERS, "i32")
_SIZES = ["depth", "rows", "columns", "down", "across", "group_stride", "row_stride"]
_PRODUCT = {"block": "*fp64"} | dict.fromkeys(_SIZES, "i32")
_CUT = {"HAS_VALID": True, "CENTRED": True, "ALIGNED": True, "DRAWS": _DRAWS, "STRIP": _STRIP}
_TILE = {"SYMMETRIC": True, "ALIGNED": True, "SIDE": _SIDE, "DEPTH": _DEPTH}
AHEAD = [
    *(
        Ahead(f"products {kind}", product_kernel, _PRODUCT | {"x": f"*{kind}", "y": f"*{kind}"}, _TILE, warps)
        for kind, warps in _WARPS.items()
    ),
    *(
        Ahead(f"join {x}", join_kernel, _JOIN | {"x": f"*{x}", "centred": f"*{x}"}, _CUT | {"ALIGNED": aligned})
        for x, aligned in (("fp32", True), ("fp64", False))
    ),
    Ahead(
        "count",
        count_kernel,
        {"count": "*fp64", "valid": "*u8", "draws": "i32"},
        {"HAS_VALID": True, "BLOCK": 128},
        num_warps=1,
    ),
]
