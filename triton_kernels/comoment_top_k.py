"""`comoment_top_k_` in Triton: a program a row keeps its places in registers and replaces the worst."""

import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.comoment_arguments import check_top_k
from sltfast.triton_kernels.ahead import Ahead

_BLOCK, _MOST = 256, 1024


@triton.jit
def size_of(x, ABSOLUTE: tl.constexpr):
    """What is ranked."""
    return tl.abs(x) if ABSOLUTE else x


@triton.jit
def worst_place(value, index, places, k, ABSOLUTE: tl.constexpr):
    """Key, index and place of the worst of k places: an empty one (index −1), else the smallest, of equals the last."""
    key = tl.where(places < k, size_of(value, ABSOLUTE), float("inf"))
    empty = tl.min(tl.where((places < k) & (index < 0), places, 1 << 30), 0)
    low = tl.min(key, 0)
    last = tl.max(tl.where((places < k) & (key == low), index, -1), 0)
    place = tl.min(tl.where((places < k) & (index == last), places, 1 << 30), 0)
    is_empty = empty < k
    return low, tl.where(is_empty, -1, last), tl.where(is_empty, empty, place)


@triton.jit(do_not_specialize=["k", "row_stride", "columns", "column", "own_row"])
def rank_kernel(
    values, indices, k, block, row_stride, columns, column, own_row,
    ABSOLUTE: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row: its k places, then BLOCK columns at a time, of which those that beat the worst place replace it."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, PLACES)
    value = tl.load(values + row * k + places, mask=places < k, other=0.0)
    index = tl.load(indices + row * k + places, mask=places < k, other=-1)
    # a place that is empty may hold anything: a number, so that comparisons are true or false
    value = tl.where(index < 0, 0.0, value)
    low, last, place = worst_place(value, index, places, k, ABSOLUTE)
    for start in range(0, columns, BLOCK):
        j = start + tl.arange(0, BLOCK).to(tl.int64)
        x = tl.load(block + row * row_stride + j, mask=j < columns, other=0.0)
        key, at = size_of(x, ABSOLUTE), column + j
        open_ = (j < columns) & (x == x) & ((own_row < 0) | (at != own_row + row))
        beats = open_ & ((last < 0) | (key > low) | ((key == low) & (at < last)))
        while tl.max(beats.to(tl.int32), 0) > 0:
            best = tl.max(tl.where(beats, key, float("-inf")), 0)
            taken = tl.min(tl.where(beats & (key == best), at, 1 << 62), 0)
            own = tl.sum(tl.where(at == taken, tl.where(beats, x, 0.0), 0.0), 0)
            value = tl.where(places == place, own, value)
            index = tl.where(places == place, taken, index)
            low, last, place = worst_place(value, index, places, k, ABSOLUTE)
            open_ = open_ & (at != taken)
            beats = open_ & ((last < 0) | (key > low) | ((key == low) & (at < last)))
    # best first, one after the other
    left = (places < k) & (index >= 0)
    for p in range(k):
        key = size_of(value, ABSOLUTE)
        best = tl.max(tl.where(left, key, float("-inf")), 0)
        first = tl.min(tl.where(left & (key == best), index, 1 << 62), 0)
        chosen = left & (index == first)
        some = tl.max(chosen.to(tl.int32), 0) > 0
        tl.store(values + row * k + p, tl.sum(tl.where(chosen, value, 0.0), 0))
        tl.store(indices + row * k + p, tl.where(some, first, -1))
        left = left & (index != first)


def comoment_top_k_(
    values: Tensor, indices: Tensor, block: Tensor, column: int, row: int | None, absolute: bool
) -> None:
    """`sltfast::triton_comoment_top_k_`; see `ops.comoment_top_k_`."""
    check_top_k(values, indices, block, column, row)
    k = values.shape[1]
    if k > _MOST:
        raise ValueError(f"Triton ranks at most {_MOST} a row, got {k} (backend='native' or 'reference' ranks any)")
    if k == 0 or block.numel() == 0:
        return
    rank_kernel[(block.shape[0],)](
        values, indices, k, block, block.stride(0), block.shape[1], column, -1 if row is None else row,
        ABSOLUTE=absolute, PLACES=triton.next_power_of_2(k), BLOCK=_BLOCK, num_warps=1 if k <= 64 else 4,
    )  # fmt: skip


_SIZES = dict.fromkeys(["k", "row_stride", "columns", "column", "own_row"], "i32")
AHEAD = [
    Ahead(
        f"{kind}, {places} places",
        rank_kernel,
        _SIZES | {"values": f"*{kind}", "indices": "*i64", "block": f"*{kind}"},
        {"ABSOLUTE": True, "PLACES": places, "BLOCK": _BLOCK},
        num_warps=1 if places <= 64 else 4,
    )
    for kind, places in (("fp32", 32), ("fp64", 32), ("fp32", 1024))
]
