"""Rows of tensors, and whether all of them can be read four values at a time."""

import triton
import triton.language as tl
from torch import Tensor


def rows_aligned(*tensors: Tensor) -> bool:
    """Do rows start on 16 bytes everywhere, the first and by the strides all others, and end on a fourth value?"""
    return all(t.data_ptr() % 16 == 0 and all(s % 4 == 0 for s in (*t.stride()[:-1], t.shape[-1])) for t in tensors)


def dense_rows(tensor: Tensor) -> Tensor:
    """A tensor whose rows have no gaps; a copy where they had."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


@triton.jit
def wide(stride, ALIGNED: tl.constexpr):
    """`stride` as int64; ALIGNED tells the compiler that it is a multiple of four."""
    out = stride.to(tl.int64)
    if ALIGNED:
        out = tl.multiple_of(out, 4)
    return out
