"""`comoment_merge_` in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.comoment_arguments import Comoments, check_merge
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.chan import merge_share
from sltfast.triton_kernels.rows import rows_aligned, wide

_BLOCK = 512


@triton.jit(do_not_specialize=["variables", "blocks"])
def moments_kernel(mean, m2, delta, count, other_mean, other_m2, other_count, variables, blocks, BLOCK: tl.constexpr):
    """Some variables of one group; δ stays for the block."""
    unit = tl.program_id(0).to(tl.int64)
    group, j = unit // blocks, unit % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = j < variables
    at = group * variables + j
    n, m = tl.load(count + group), tl.load(other_count + group)
    share = merge_share(n, m)
    old = tl.load(mean + at, mask=inside, other=0.0)
    d = tl.load(other_mean + at, mask=inside, other=0.0) - old
    tl.store(delta + at, d, mask=inside)
    tl.store(mean + at, old + d * share, mask=inside)
    joined = tl.load(other_m2 + at, mask=inside, other=0.0) + d * d * (n * share)
    tl.store(m2 + at, tl.load(m2 + at, mask=inside, other=0.0) + joined, mask=inside)


@triton.jit(do_not_specialize=["rows", "columns", "blocks", "group_stride", "row_stride", "other_group", "other_row"])
def block_kernel(
    block, other, delta_x, delta_y, count, other_count, rows, columns, blocks, group_stride, row_stride, other_group,
    other_row, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some columns of one row of one group's block."""
    unit = tl.program_id(0).to(tl.int64)
    row, j = unit // blocks, unit % blocks * BLOCK + tl.arange(0, BLOCK)
    group, i = row // rows, row % rows
    columns = wide(columns, ALIGNED)
    inside = j < columns
    n, m = tl.load(count + group), tl.load(other_count + group)
    weight = n * merge_share(n, m)
    dx = tl.load(delta_x + row)
    dy = tl.load(delta_y + group * columns + j, mask=inside, other=0.0)
    to = block + group * wide(group_stride, ALIGNED) + i * wide(row_stride, ALIGNED) + j
    read = other + group * wide(other_group, ALIGNED) + i * wide(other_row, ALIGNED) + j
    added = tl.load(read, mask=inside, other=0.0) + dx * dy * weight
    tl.store(to, tl.load(to, mask=inside, other=0.0) + added, mask=inside)


def comoment_merge_(
    count: Tensor,
    mean_x: Tensor,
    m2_x: Tensor,
    mean_y: Tensor | None,
    m2_y: Tensor | None,
    block: Tensor | None,
    other_count: Tensor,
    other_mean_x: Tensor,
    other_m2_x: Tensor,
    other_mean_y: Tensor | None,
    other_m2_y: Tensor | None,
    other_block: Tensor | None,
) -> None:
    """`sltfast::triton_comoment_merge_`; the equation and the shapes are in `ops.comoment_merge_`."""
    check_merge(
        Comoments(count, mean_x, m2_x, mean_y, m2_y, block),
        Comoments(other_count, other_mean_x, other_m2_x, other_mean_y, other_m2_y, other_block),
    )
    groups, n = mean_x.shape

    def merge_side(mean: Tensor, m2: Tensor, other_mean: Tensor, other_m2: Tensor) -> Tensor:
        delta, blocks = torch.empty_like(mean), triton.cdiv(mean.shape[1], _BLOCK)
        if mean.numel():
            moments_kernel[(groups * blocks,)](
                mean, m2, delta, count, other_mean, other_m2, other_count, mean.shape[1], blocks, BLOCK=_BLOCK
            )
        return delta

    delta_y = delta_x = merge_side(mean_x, m2_x, other_mean_x, other_m2_x)
    if mean_y is not None and m2_y is not None and other_mean_y is not None and other_m2_y is not None:
        delta_y = merge_side(mean_y, m2_y, other_mean_y, other_m2_y)
    if block is not None and other_block is not None and block.numel():
        blocks = triton.cdiv(block.shape[2], _BLOCK)
        block_kernel[(groups * n * blocks,)](
            block, other_block, delta_x, delta_y, count, other_count, n, block.shape[2], blocks,
            *block.stride()[:2], *other_block.stride()[:2], ALIGNED=rows_aligned(block, other_block), BLOCK=_BLOCK,
        )  # fmt: skip
    count += other_count


_MOMENTS = dict.fromkeys(["mean", "m2", "delta", "count", "other_mean", "other_m2", "other_count"], "*fp64")
_BLOCKS = dict.fromkeys(["block", "other", "delta_x", "delta_y", "count", "other_count"], "*fp64")
_SIZES = ["rows", "columns", "blocks", "group_stride", "row_stride", "other_group", "other_row"]
AHEAD = [
    Ahead("block", block_kernel, _BLOCKS | dict.fromkeys(_SIZES, "i32"), {"ALIGNED": True, "BLOCK": _BLOCK}),
    Ahead("moments", moments_kernel, _MOMENTS | {"variables": "i32", "blocks": "i32"}, {"BLOCK": _BLOCK}),
]
