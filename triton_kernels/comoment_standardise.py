"""`comoment_standardise_` in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.comoment_arguments import check_standardise
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.rows import rows_aligned, wide

_BLOCK = 512


@triton.jit(do_not_specialize=["draws", "variables", "blocks", "z_group", "z_draw", "x_group", "x_draw"])
def standardise_kernel(
    z, x, mean, scale, valid, draws, variables, blocks, z_group, z_draw, x_group, x_draw,
    HAS_VALID: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some variables of one draw."""
    unit = tl.program_id(0).to(tl.int64)
    row, j = unit // blocks, unit % blocks * BLOCK + tl.arange(0, BLOCK)
    group, t = row // draws, row % draws
    variables = wide(variables, ALIGNED)
    inside = j < variables
    at = group * variables + j
    read = x + group * wide(x_group, ALIGNED) + t * wide(x_draw, ALIGNED) + j
    v = tl.load(read, mask=inside, other=0.0).to(tl.float64)
    v = (v - tl.load(mean + at, mask=inside, other=0.0)) * tl.load(scale + at, mask=inside, other=0.0)
    if HAS_VALID:
        v = tl.where(tl.load(valid + row) != 0, v, 0.0)
    to = z + group * wide(z_group, ALIGNED) + t * wide(z_draw, ALIGNED) + j
    tl.store(to, v.to(z.dtype.element_ty), mask=inside)


def comoment_standardise_(z: Tensor, x: Tensor, mean: Tensor, scale: Tensor, valid: Tensor | None) -> None:
    """`sltfast::triton_comoment_standardise_`; see `ops.comoment_standardise_`."""
    check_standardise(z, x, mean, scale, valid)
    groups, draws, n = x.shape
    if x.numel() == 0:
        return
    blocks = triton.cdiv(n, _BLOCK)
    standardise_kernel[(groups * draws * blocks,)](
        z, x, mean, scale, None if valid is None else valid.view(torch.uint8), draws, n, blocks,
        *z.stride()[:2], *x.stride()[:2], HAS_VALID=valid is not None, ALIGNED=rows_aligned(z, x, mean), BLOCK=_BLOCK,
    )  # fmt: skip


_SIZES = ["draws", "variables", "blocks", "z_group", "z_draw", "x_group", "x_draw"]
_SIGNATURE = {"mean": "*fp64", "scale": "*fp64", "valid": "*u8"} | dict.fromkeys(_SIZES, "i32")
AHEAD = [
    Ahead(
        f"{x} to {z}",
        standardise_kernel,
        _SIGNATURE | {"z": f"*{z}", "x": f"*{x}"},
        {"HAS_VALID": True, "ALIGNED": True, "BLOCK": _BLOCK},
    )
    for x, z in (("fp32", "fp32"), ("fp64", "fp64"))
]
