"""[M, K] × [K, N] → [M, N] in float32 memory with TF32 tensor cores, for any strides."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.triton_kernels.ahead import Ahead

ROWS, COLUMNS, DEPTH = 64, 64, 32  # fills the GPU with the skinny products of a chain's batch; larger tiles starve it


# strides stay specialised: a stride of 1 is what makes a load wide
@triton.jit(do_not_specialize=["m", "n", "k"])
def matmul_kernel(
    a, b, out, m, n, k, a_row, a_column, b_row, b_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One [ROWS, COLUMNS] tile of the product."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, k, DEPTH):
        across = start + tl.arange(0, DEPTH)[None, :].to(tl.int64)
        down = start + tl.arange(0, DEPTH)[:, None].to(tl.int64)
        left = tl.load(a + row * a_row + across * a_column, mask=(row < m) & (across < k), other=0.0)
        right = tl.load(b + down * b_row + column * b_column, mask=(down < k) & (column < n), other=0.0)
        total = tl.dot(left, right, total, input_precision="tf32")
    tl.store(out + row * n + column, total, mask=(row < m) & (column < n))


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of two float32 matrices, contiguous."""
    (m, k), n = a.shape, b.shape[1]
    out = torch.empty(m, n, dtype=torch.float32, device=a.device)
    if out.numel():
        grid = (triton.cdiv(m, ROWS), triton.cdiv(n, COLUMNS))
        matmul_kernel[grid](
            a, b, out, m, n, k, *a.stride(), *b.stride(), ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH, num_warps=4
        )
    return out


_NUMBERS = ("m", "n", "k", "a_row", "b_row")
AHEAD = [
    Ahead(
        "tf32 product",
        matmul_kernel,
        {"a": "*fp32", "b": "*fp32", "out": "*fp32"} | dict.fromkeys(_NUMBERS, "i32"),
        {"a_column": 1, "b_column": 1, "ROWS": ROWS, "COLUMNS": COLUMNS, "DEPTH": DEPTH},
        num_warps=4,
    ),
]
