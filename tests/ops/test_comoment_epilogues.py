"""What is read from co-moments: covariance, correlation, the best of each row; the same from kept draws in tiles."""

import numpy as np
import pytest
import torch
from comoment_cases import BACKENDS, U32, U64, joined, make_draws

from sltfast import _C, ops
from sltfast.ops import comoment_tiles

ISAS = _C.build_facts()["isa_runnable"]
DTYPES = [torch.float32, torch.float64]
# correlations: one rounding of the result, and a relative error of the co-moments that `test_comoment` bounds
EPSILON = {torch.float32: U32 + 1e-10, torch.float64: 1e-10}


@pytest.mark.parametrize("ddof", [0, 1])
def test_covariance(ddof) -> None:
    x, y = make_draws(2, 50, 6, "large"), make_draws(2, 50, 4, seed=1)
    own, both = (ops.comoment_covariance(joined(x, other), ddof=ddof) for other in (None, y))
    for g in range(2):
        a, b = x[g].numpy(), y[g].numpy()
        np.testing.assert_allclose(own[g], np.cov(a.T, ddof=ddof), rtol=1e-6)  # numpy's mean errs by 50·u·3e8/5
        want = np.cov(np.hstack([a, b]).T, ddof=ddof)[:6, 6:]
        np.testing.assert_allclose(both[g], want, rtol=0, atol=1e-6 * np.abs(want).max())
    assert not ops.comoment_covariance(joined(x[:, :1]), ddof=1).isfinite().any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 63, 1000])
def test_correlation(backend, dtype, n) -> None:
    x, y = make_draws(2, 50, n), make_draws(2, 50, 5, "plain", seed=1)
    x[1, :, 0] = 7.0  # does not vary
    for other in (None, y):
        state = joined(x, other)
        out = torch.full((2, n + 2, state.block.shape[2] + 3), torch.nan, dtype=dtype)
        tile = out[:, 1:-1, 2:-1]
        assert ops.comoment_correlation(state, out=tile, backend=backend) is tile
        with np.errstate(all="ignore"):
            for g in range(2):
                both = x[g].numpy() if other is None else np.hstack([x[g].numpy(), other[g].numpy()])
                want = np.nan_to_num(np.atleast_2d(np.corrcoef(both.T))[:n, 0 if other is None else n :])
                assert np.abs(tile[g].numpy() - want).max() <= EPSILON[dtype]
        assert out.isnan().sum() == out.numel() - tile.numel()
        assert (tile[1, 0] == 0).all()
        if other is None:
            diagonal = tile.diagonal(dim1=1, dim2=2)
            assert (diagonal[0] == 1).all()
            assert (diagonal[1, 1:] == 1).all()
            assert torch.equal(tile, tile.mT)
    assert ops.comoment_correlation(joined(x), backend=backend).dtype == torch.float64


def test_correlation_does_not_leave_its_range() -> None:
    # copies of one variable: |r| is 1 up to rounding, on either side of it
    x = make_draws(1, 9, 1, "shifted") * torch.linspace(-3, 3, 64, dtype=torch.float64)
    for precision in ops.PRECISIONS:
        for backend in BACKENDS:
            r = ops.comoment_correlation(joined(x, precision=precision), backend=backend)
            assert r.abs().max() == 1
            assert (r.abs() - 1).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_not_hidden(backend) -> None:
    x = make_draws(1, 9, 3)
    x[0, 0, 1] = torch.nan
    r = ops.comoment_correlation(joined(x), backend=backend)[0]
    assert r[0, 1].isnan()
    assert r[2, 1].isnan()
    assert not r[0, 2].isnan()


def ranked(matrix, k, *, cuts, backend, dtype, absolute=True, own=False):
    n = len(matrix)
    values = torch.full((n, k), torch.nan, dtype=dtype)
    indices = torch.full((n, k), -1)
    for cut in cuts:
        ops.comoment_top_k_(
            values,
            indices,
            matrix[:, cut],
            column=cut.start,
            row=0 if own else None,
            absolute=absolute,
            backend=backend,
        )
    return values, indices


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("k", [0, 1, 5, 63])
def test_top_k_over_tiles_is_top_k_of_the_matrix(backend, dtype, absolute, k) -> None:
    matrix = torch.randn(33, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    cuts = [slice(100, 101), slice(0, 100), slice(200, 300), slice(101, 200), slice(300, 300)]
    values, indices = ranked(matrix, k, cuts=cuts, backend=backend, dtype=dtype, absolute=absolute)
    want = (matrix.abs() if absolute else matrix).topk(k)
    assert torch.equal(indices, want.indices)
    assert torch.equal(values, matrix.gather(1, want.indices))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_go_to_the_lower_index(backend) -> None:
    matrix = torch.tensor([[1.0, -2.0, 2.0, 2.0, -1.0, 2.0, 0.0]])
    for cuts in ([slice(0, 7)], [slice(4, 7), slice(0, 4)], [slice(i, i + 1) for i in (5, 3, 6, 1, 2, 0, 4)]):
        got = ranked(matrix, 5, cuts=cuts, backend=backend, dtype=torch.float32)
        assert got[1].tolist() == [[1, 2, 3, 5, 0]]
        assert got[0].tolist() == [[-2.0, 2.0, 2.0, 2.0, 1.0]]
        got = ranked(matrix, 5, cuts=cuts, backend=backend, dtype=torch.float32, absolute=False)
        assert got[1].tolist() == [[2, 3, 5, 0, 6]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_than_k_nan_and_oneself(backend) -> None:
    nan = torch.nan
    matrix = torch.tensor([[9.0, nan, 2.0], [-torch.inf, 9.0, nan], [nan, nan, 9.0]])
    values, indices = ranked(matrix, 3, cuts=[slice(1, 3), slice(0, 1)], backend=backend, dtype=torch.float32, own=True)
    assert indices.tolist() == [[2, -1, -1], [0, -1, -1], [-1, -1, -1]]
    assert values[:2, 0].tolist() == [2.0, -torch.inf]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_standardise(backend, dtype) -> None:
    x = make_draws(2, 7, 300, "shifted")
    valid = torch.tensor([[1, 1, 0, 1, 1, 1, 0], [1] * 7], dtype=torch.bool)
    x[~valid] = torch.nan
    mean, scale = x.nan_to_num().mean(1), torch.rand(2, 300, dtype=torch.float64) * 0 + 3.0
    z = torch.full_like(x, torch.nan, dtype=dtype)
    ops.comoment_standardise_(z, x, mean, scale, valid=valid, backend=backend)
    want = torch.where(valid[:, :, None], (x - mean[:, None]) * 3.0, 0.0)
    assert torch.equal(z, want.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_draws_in_tiles(monkeypatch, backend, dtype) -> None:
    monkeypatch.setitem(comoment_tiles._TILE, "cpu", 16)
    x, y = make_draws(1, 80, 50, "shifted")[0], make_draws(1, 80, 21, seed=1)[0]
    x[:, 3] = 5.0
    valid = torch.ones(80, dtype=torch.bool)
    valid[7], x[7], y[7] = False, torch.nan, torch.nan
    # |error| ≤ (k + 3)·u of the products' dtype
    bound = 83 * (U32 if dtype == torch.float32 else U64) + 1e-10
    for other in (None, y):
        want = ops.comoment_correlation(joined(x[None], None if other is None else other[None], valid=valid[None]))[0]
        r = ops.correlate_draws(x, other, valid=valid, dtype=dtype, backend=backend)
        assert r.dtype == dtype
        assert (r - want).abs().max() <= bound
        values, indices = ops.rank_draws(x, other, k=4, valid=valid, dtype=dtype, backend=backend)
        if other is None:
            assert torch.equal(r, r.T)
            assert r[3].count_nonzero() == 0
            assert (r.diagonal()[4:] == 1).all()
            r.fill_diagonal_(0)
            assert not (indices == torch.arange(50)[:, None]).any()
        assert (values.abs() - r.abs().topk(4).values).abs().max() <= 2 * bound
        assert (r.gather(1, indices) - values).abs().max() <= 2 * bound
    out = torch.empty(50, 50, dtype=dtype)
    assert ops.correlate_draws(x, valid=valid, out=out, dtype=dtype) is out
    few = ops.rank_draws(x[:, :2], k=3, valid=valid)
    assert few[1].tolist() == [[1, -1, -1], [0, -1, -1]]
    assert few[0][:, 1:].count_nonzero() == 0


def test_thread_count_and_instruction_set_change_no_bit() -> None:
    x, y = make_draws(1, 20, 700), make_draws(1, 20, 900, seed=1)
    state = joined(x, y)
    mean, scale = state.mean_x, state.m2_x.rsqrt()
    threads = torch.get_num_threads()

    def everything() -> list[torch.Tensor]:
        r = ops.comoment_correlation(state)
        values, indices = torch.zeros(700, 9, dtype=torch.float64), torch.full((700, 9), -1)
        ops.comoment_top_k_(values, indices, r[0])
        z = torch.empty(1, 20, 700)
        ops.comoment_standardise_(z, x, mean, scale)
        return [r, values, indices, z]

    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(everything())
        for isa in ISAS:
            _C.use_isa(isa)
            results.append(everything())
    finally:
        torch.set_num_threads(threads)
        _C.use_isa(ISAS[-1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
