"""`comoment_correlation_` in Triton."""

import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.comoment_arguments import check_correlation
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.chan import correlation, inverse_root
from sltfast.triton_kernels.rows import rows_aligned, wide

_BLOCK = 512


@triton.jit(do_not_specialize=["rows", "columns", "blocks", "out_group", "out_row", "block_group", "block_row"])
def correlation_kernel(
    out, block, m2_x, m2_y, rows, columns, blocks, out_group, out_row, block_group, block_row,
    OWN: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some columns of one row; OWN: y is x."""
    unit = tl.program_id(0).to(tl.int64)
    row, j = unit // blocks, unit % blocks * BLOCK + tl.arange(0, BLOCK)
    group, i = row // rows, row % rows
    columns = wide(columns, ALIGNED)
    inside = j < columns
    inverse_x = inverse_root(tl.load(m2_x + row))
    inverse_y = inverse_root(tl.load(m2_y + group * columns + j, mask=inside, other=0.0))
    read = block + group * wide(block_group, ALIGNED) + i * wide(block_row, ALIGNED) + j
    r = correlation(tl.load(read, mask=inside, other=0.0), inverse_x, inverse_y)
    if OWN:
        r = tl.where(j == i, tl.where(inverse_x > 0, 1.0, r), r)
    to = out + group * wide(out_group, ALIGNED) + i * wide(out_row, ALIGNED) + j
    tl.store(to, r.to(out.dtype.element_ty), mask=inside)


def comoment_correlation_(out: Tensor, block: Tensor, m2_x: Tensor, m2_y: Tensor | None) -> None:
    """`sltfast::triton_comoment_correlation_`; see `ops.comoment_correlation`."""
    check_correlation(out, block, m2_x, m2_y)
    groups, n, m = block.shape
    if block.numel() == 0:
        return
    blocks = triton.cdiv(m, _BLOCK)
    correlation_kernel[(groups * n * blocks,)](
        out, block, m2_x, m2_x if m2_y is None else m2_y, n, m, blocks, *out.stride()[:2], *block.stride()[:2],
        OWN=m2_y is None, ALIGNED=rows_aligned(out, block), BLOCK=_BLOCK,
    )  # fmt: skip


_SIZES = ["rows", "columns", "blocks", "out_group", "out_row", "block_group", "block_row"]
_SIGNATURE = {"block": "*fp64", "m2_x": "*fp64", "m2_y": "*fp64"} | dict.fromkeys(_SIZES, "i32")
AHEAD = [
    Ahead(
        f"to {out}",
        correlation_kernel,
        _SIGNATURE | {"out": f"*{out}"},
        {"OWN": True, "ALIGNED": True, "BLOCK": _BLOCK},
    )
    for out in ("fp32", "fp64")
]
