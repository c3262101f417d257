"""The co-moment ops in Triton, interpreted: against the C++ ops and two-pass sums on the same numbers."""

import pytest
import torch
from comoment_cases import U32, U64, check_state, joined, make_draws, truths

from sltfast import ops


@pytest.mark.parametrize("precision", ops.PRECISIONS)
@pytest.mark.parametrize(("n", "dtype"), [(1, torch.float64), (67, torch.float32), (132, torch.float64)])
def test_joined_draws(n, dtype, precision) -> None:
    # two tiles and strips, mirrored; aligned and not; a batch longer than a pass over draws and over products
    x = make_draws(1, 40, n, "shifted" if dtype == torch.float64 else "plain", dtype=dtype)
    unit = U64 if precision == "fp64" else U32
    state = joined(x, chunk=37, precision=precision, backend="triton")
    check_state(state, truths(x), 2, k=38, unit=unit)
    assert torch.equal(state.block, state.block.mT)


@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_rectangular_blocks_and_dead_chains(precision) -> None:
    x, y = make_draws(3, 20, 17, "shifted"), make_draws(3, 20, 8, seed=1, dtype=torch.float32)
    valid = torch.rand(3, 20, generator=torch.Generator().manual_seed(2)) < 0.6
    valid[1], valid[2, :7] = False, False
    x[~valid], y[~valid] = torch.nan, torch.inf
    unit = U64 if precision == "fp64" else U32
    state = joined(x, y, chunk=7, valid=valid, precision=precision, backend="triton")
    kept = [0, 2]
    check_state(ops.Comoments(*(t[kept] for t in state)), truths(x[kept], y[kept], valid[kept]), 3, k=8, unit=unit)
    assert all((tensor[1] == 0).all() for tensor in state)
    alone = joined(x, y, valid=valid, made={"block": False}, backend="triton")
    assert torch.allclose(alone.mean_x[kept], state.mean_x[kept], rtol=1e-12)


def test_slices_need_no_copy() -> None:
    trace = make_draws(1, 9, 60)
    whole = torch.full((1, 30, 40), torch.nan, dtype=torch.float64)
    whole[:, 3:23, 7:27] = 0
    state = ops.comoments(1, 20, 20, block=False)._replace(block=whole[:, 3:23, 7:27])
    ops.comoment_(state, trace[:, :, 5:25], trace[:, :, 30:50], backend="triton")
    check_state(state, truths(trace[:, :, 5:25], trace[:, :, 30:50]), 1, k=9)
    assert whole.isnan().sum() == 30 * 40 - 20 * 20


@pytest.mark.parametrize("rectangular", [False, True])
def test_merge(rectangular) -> None:
    x, y = make_draws(2, 20, 16, "shifted"), make_draws(2, 20, 7, seed=1) if rectangular else None
    cuts = (slice(0, 8), slice(8, 20))
    other = joined(x[:, cuts[1]], None if y is None else y[:, cuts[1]])
    got, want = (joined(x[:, cuts[0]], None if y is None else y[:, cuts[0]]) for _ in range(2))
    ops.comoment_merge_(got, other, backend="triton")
    ops.comoment_merge_(want, other, backend="native")
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True) if a is not None)
    ops.comoment_merge_(got, ops.comoments(2, 16, 7 if rectangular else None), backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True) if a is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correlation(dtype) -> None:
    x, y = make_draws(2, 12, 33), make_draws(2, 12, 8, seed=1)
    x[1, :, 0] = 3.0
    for other in (None, y):
        state = joined(x, other)
        out = torch.full((2, 35, state.block.shape[2] + 3), torch.nan, dtype=dtype)
        tile, want = out[:, 1:-1, 2:-1], torch.empty(state.block.shape, dtype=dtype)
        ops.comoment_correlation(state, out=tile, backend="triton")
        ops.comoment_correlation(state, out=want, backend="native")
        assert torch.equal(tile, want)
        assert out.isnan().sum() == out.numel() - tile.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardise(dtype) -> None:
    x = make_draws(2, 5, 70, "shifted", dtype=dtype)
    valid = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
    state = joined(x)
    x[~valid] = torch.nan
    for out_dtype in (torch.float32, torch.float64):
        got, want = (torch.full((2, 5, 70), torch.nan, dtype=out_dtype) for _ in range(2))
        for z, backend in ((got, "triton"), (want, "native")):
            ops.comoment_standardise_(z, x, state.mean_x, state.m2_x, valid=valid, backend=backend)
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("k", [0, 1, 5, 12])
def test_top_k(dtype, absolute, k) -> None:
    generator = torch.Generator().manual_seed(k)
    matrix = torch.randn(4, 270, generator=generator).mul(4).round().div(4).to(dtype)  # many ties, two passes
    matrix[2, 3:], matrix[3, 7] = torch.nan, -torch.inf
    got, want = ((torch.full((4, k), torch.nan, dtype=dtype), torch.full((4, k), -1)) for _ in range(2))
    for cut in (slice(5, 270), slice(0, 5)):
        for best, backend in ((got, "triton"), (want, "native")):
            ops.comoment_top_k_(*best, matrix[:, cut], column=cut.start, row=3, absolute=absolute, backend=backend)
    assert torch.equal(got[1], want[1])
    assert torch.equal(got[0][got[1] >= 0], want[0][want[1] >= 0])


def test_too_many_places() -> None:
    with pytest.raises(ValueError, match="Triton ranks at most 1024 a row, got 1025"):
        ops.comoment_top_k_(torch.zeros(1, 1025), torch.zeros(1, 1025).long(), torch.zeros(1, 3), backend="triton")


def test_opcheck() -> None:
    x = make_draws(1, 6, 8)
    state = joined(x)
    out, scores = torch.zeros(1, 8, 8), torch.zeros(8, 2).double()
    calls = {
        "comoment_": (*state, x, None, torch.ones(1, 6, dtype=torch.bool), "fp32"),
        "comoment_merge_": (*state, *joined(x)),
        "comoment_correlation_": (out, state.block, state.m2_x, None),
        "comoment_standardise_": (torch.zeros(1, 6, 8), x, state.mean_x, state.m2_x, None),
        "comoment_top_k_": (scores, torch.full((8, 2), -1), state.block[0], 0, 0, True),
    }
    for name, arguments in calls.items():
        torch.library.opcheck(getattr(torch.ops.sltfast, f"triton_{name}").default, arguments)
