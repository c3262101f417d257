"""The CUDA kernels of the co-moment ops, run on CPU threads: against the C++ ops on the same numbers."""

import ctypes

import pytest
import torch
from comoment_cases import joined, make_draws
from cuda_threads.build import SANITIZERS, assert_clean, library

from sltfast import ops


@pytest.fixture(scope="module")
def kernels() -> ctypes.CDLL:
    return library("comoment")


def number(value) -> object:
    """As ctypes wants it: addresses and counts are 64 bits wide."""
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_bool(value) if isinstance(value, bool) else ctypes.c_int64(value)


def call(function, *arguments) -> None:
    function(*(number(a) for a in arguments))


def wide(tensor) -> bool:
    return tensor.dtype == torch.float64


def join(kernels, state, x, valid, precision, *, backward=False) -> ops.Comoments:
    """`comoment_` as comoment.cu launches it, for one group at a time where a product is concerned."""
    groups, k, n = x.shape
    dtype = torch.float64 if precision == "fp64" else torch.float32
    centred = torch.full((groups, k + 1, n), torch.nan, dtype=dtype)
    call(
        kernels.join, x, wide(x), valid, state.draws, state.mean_x, state.m2_x, centred, wide(centred),
        groups, k, n, x.stride(0), x.stride(1), backward,
    )  # fmt: skip
    for g in range(groups):
        product = centred[g].T @ centred[g]
        block = state.block[g]
        call(kernels.add, block, block.stride(0), product, wide(product), n, n, block, backward)
    call(kernels.count, state.draws, valid, groups, k)
    return state


@pytest.mark.parametrize("precision", ops.PRECISIONS)
@pytest.mark.parametrize(
    ("n", "dtype"), [(1, torch.float32), (5, torch.float64), (130, torch.float32), (132, torch.float64)]
)
def test_joined_draws(kernels, n, dtype, precision) -> None:
    padded = make_draws(2, 21, n + 3, dtype=dtype)
    valid = torch.rand(2, 21, generator=torch.Generator().manual_seed(1)) < 0.7
    valid[1, :7] = False
    padded[~valid] = torch.nan
    for x in (padded[:, :, 3:], padded[:, :, :n].contiguous()):  # unaligned rows of a longer trace, and aligned ones
        states = [ops.comoments(2, n) for _ in range(3)]
        for cut in (slice(0, 7), slice(7, 21)):
            given, counts = x[:, cut], valid[:, cut].contiguous()
            join(kernels, states[0], given, counts, precision)
            join(kernels, states[1], given, counts, precision, backward=True)
            ops.comoment_(states[2], given, valid=counts, precision=precision)
        # sums in another order: 21 roundings of numbers up to Σ|x| < 100, 14 + 4 of float32 products
        bound = 100 * (21 * 2.0**-53 + (18 * 2.0**-24 if precision == "fp32" else 0))
        for a, b, c in zip(*states, strict=True):
            if a is not None:
                assert torch.equal(a, b)
                assert (a - c).abs().max() <= bound
        assert torch.equal(states[0].block, states[0].block.mT)


def test_products_of_tiles_are_mirrored(kernels) -> None:
    block = torch.randn(70, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, product = block.clone(), torch.randn(33, 37)
    tile, below = block[:33, 33:], block[33:, :33]
    call(kernels.add, tile, 70, product, False, 33, 37, below, False)
    assert torch.equal(tile, before[:33, 33:] + product.double())
    assert torch.equal(below, tile.T)
    assert torch.equal(block[:33, :33], before[:33, :33])
    lone = before.clone()
    call(kernels.add, lone, 70, product, False, 33, 37, None, False)
    assert torch.equal(lone[:33, :37], before[:33, :37] + product.double())
    assert torch.equal(lone[33:], before[33:])


def test_merge(kernels) -> None:
    x, y = make_draws(2, 30, 33, "shifted"), make_draws(2, 30, 7, seed=1)
    ours, other = joined(x[:, :11], y[:, :11]), joined(x[:, 11:], y[:, 11:])
    want = joined(x[:, :11], y[:, :11])
    ops.comoment_merge_(want, other)
    deltas = []
    for side, n in (("x", 33), ("y", 7)):
        deltas.append(torch.full((2, n), torch.nan, dtype=torch.float64))
        mine, theirs = ([getattr(s, f"{kind}_{side}") for kind in ("mean", "m2")] for s in (ours, other))
        call(kernels.merge_side, *mine, deltas[-1], ours.draws, *theirs, other.draws, 2, n)
    for g in range(2):
        call(
            kernels.merge_matrix, ours.block[g], 7, other.block[g], 7, deltas[0][g], deltas[1][g],
            ours.draws[g], other.draws[g], 33, 7,
        )  # fmt: skip
    call(kernels.merge_counts, ours.draws, other.draws, 2)
    assert all(torch.equal(a, b) for a, b in zip(ours, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 5, 132])
def test_correlation(kernels, n, dtype) -> None:
    x, y = make_draws(2, 20, n), make_draws(2, 20, 6, seed=1)
    x[1, :, 0] = 3.0
    for other in (None, y):
        state = joined(x, other)
        m2_y = state.m2_x if other is None else state.m2_y
        out = torch.full_like(state.block, torch.nan, dtype=dtype)
        call(
            kernels.correlation_of, out, wide(out), *out.stride()[:2], state.block, *state.block.stride()[:2],
            state.m2_x, m2_y, other is None, *out.shape,
        )  # fmt: skip
        assert torch.equal(out, ops.comoment_correlation(state, out=torch.empty_like(out)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardise(kernels, dtype) -> None:
    x = make_draws(2, 5, 135, "shifted", dtype=dtype)[:, :, :131]
    state = joined(x)
    valid = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
    for out_dtype in (torch.float32, torch.float64):
        z, want = (torch.full((2, 5, 131), torch.nan, dtype=out_dtype) for _ in range(2))
        call(
            kernels.standardise_draws, z, wide(z), x, wide(x), state.mean_x, state.m2_x, valid, 2, 5, 131,
            x.stride(0), x.stride(1),
        )  # fmt: skip
        ops.comoment_standardise_(want, x, state.mean_x, state.m2_x, valid=valid)
        assert torch.equal(z, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_top_k(kernels, dtype, absolute, k) -> None:
    generator = torch.Generator().manual_seed(k)
    matrix = torch.randn(7, 101, generator=generator).mul(4).round().div(4).to(dtype)  # many ties
    matrix[2, 50:] = torch.nan
    got, want = ((torch.full((7, k), torch.nan, dtype=dtype), torch.full((7, k), -1)) for _ in range(2))
    for cut in (slice(60, 101), slice(0, 33), slice(33, 60)):
        tile = matrix[:, cut]
        call(
            kernels.rank, *got, k, tile, wide(tile), tile.stride(0), 7, tile.shape[1], cut.start, 3, absolute
        )  # fmt: skip
        ops.comoment_top_k_(*want, tile, column=cut.start, row=3, absolute=absolute)
    assert torch.equal(got[1], want[1])
    assert torch.equal(got[0][got[1] >= 0], want[0][want[1] >= 0])


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers(sanitizer) -> None:
    assert_clean("comoment", sanitizer)
