"""Means and co-moments of draws: against two-pass sums in extended precision, in batches, merged, with dead chains."""

import numpy as np
import pytest
import torch
from comoment_cases import BACKENDS, SHAPES, U32, U64, check_state, joined, make_draws, truths

from sltfast import _C, ops
from sltfast.ops import comoment, comoment_tiles

ISAS = _C.build_facts()["isa_runnable"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("rectangular", [False, True])
def test_one_batch(backend, kind, rectangular) -> None:
    x = make_draws(2, 63, 70, kind)
    y = make_draws(2, 63, 41, "plain", seed=1) if rectangular else None
    check_state(joined(x, y, backend=backend), truths(x, y), 1, k=63)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("chunk", [1, 3, 5, 63])
def test_streaming_is_one_batch(kind, chunk) -> None:
    x, y = make_draws(2, 200, 33, kind), make_draws(2, 200, 5, "shifted", seed=1)
    check_state(joined(x, y, chunk=chunk), truths(x, y), -(-200 // chunk), k=chunk + 1)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 63, 257, 1000])
@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_sizes(n, precision) -> None:
    # beyond a strip of 256 and, at 1000, several tiles of 512, mirrored
    x = make_draws(1, 9, n, "shifted", seed=n)
    unit = U64 if precision == "fp64" else U32
    state = joined(x, precision=precision)
    check_state(state, truths(x), 1, k=9, unit=unit)
    assert torch.equal(state.block, state.block.mT)
    y = make_draws(1, 9, 7, seed=1)
    check_state(joined(x, y, precision=precision), truths(x, y), 1, k=9, unit=unit)
    check_state(joined(y, x, precision=precision), truths(y, x), 1, k=9, unit=unit)


def test_single_precision_products_have_no_bias() -> None:
    # 800 draws: the errors of float32 sums are random, so of the order √k·u, and of either sign
    x = make_draws(1, 800, 300, "shifted")
    truth = truths(x)[0]
    state = joined(x, precision="fp32")
    check_state(state, [truth], 1, k=800, unit=U32)
    scale = np.sqrt(np.outer(truth.m2_x, truth.m2_x))
    error = (state.block[0].numpy() - truth.block) / scale
    assert np.sqrt((error**2).mean()) < np.sqrt(800) * U32
    assert abs(error.mean()) < 3 * U32
    # means and second moments do not know about it
    assert torch.equal(state.m2_x, joined(x).m2_x)


def test_allowed_tf32_costs_no_digits(monkeypatch) -> None:
    x = make_draws(1, 40, 20)
    wide, z = joined(x), ops.standardised_draws(x[0])
    for module in (comoment, comoment_tiles):
        monkeypatch.setattr(module, "rounds_products", lambda device: True)
    assert torch.equal(joined(x, precision="fp32").block, wide.block)
    r = (z.double().T @ z.double()).float().clamp(-1, 1).fill_diagonal_(1)
    assert torch.equal(ops.correlate_draws(x[0]), r)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_in_single_precision(backend) -> None:
    x, y = make_draws(1, 40, 20, dtype=torch.float32), make_draws(1, 40, 30, "shifted", seed=1)
    check_state(joined(x, y, backend=backend), truths(x, y), 1, k=40)
    check_state(joined(y, x, backend=backend, precision="fp32"), truths(y, x), 1, k=40, unit=U32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_dead_chains_are_left_out(backend, precision) -> None:
    x, y = make_draws(3, 30, 17, "shifted"), make_draws(3, 30, 8, seed=1)
    valid = torch.rand(3, 30, generator=torch.Generator().manual_seed(2)) < 0.6
    valid[1] = False  # a group of which nothing is left
    valid[2, :5] = False  # whole batches at its start
    x[~valid], y[~valid] = torch.nan, torch.inf
    unit = U64 if precision == "fp64" else U32
    for dtype in (torch.bool, torch.uint8):
        state = joined(x, y, chunk=5, valid=valid.to(dtype), backend=backend, precision=precision)
        kept = [0, 2]
        check_state(ops.Comoments(*(t[kept] for t in state)), truths(x[kept], y[kept], valid[kept]), 6, k=6, unit=unit)
        assert all((tensor[1] == 0).all() for tensor in state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_that_counts_stays_with_its_variable(backend) -> None:
    x = make_draws(1, 9, 5)
    x[0, 4, 2] = torch.nan
    state = joined(x, backend=backend)
    bad = state.block[0].isnan()
    assert bad[2].all()
    assert bad[:, 2].all()
    assert bad.sum() == 9
    assert state.mean_x[0].isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_draws_change_nothing(backend) -> None:
    x = make_draws(2, 10, 5)
    state, before = joined(x, backend=backend), joined(x, backend=backend)
    ops.comoment_(state, x[:, :0], backend=backend)
    ops.comoment_(state, x, valid=torch.zeros(2, 10, dtype=torch.bool), backend=backend)
    ops.comoment_merge_(state, ops.comoments(2, 5), backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True) if a is not None)
    nothing = ops.comoments(0, 5)
    ops.comoment_(nothing, x[:0], backend=backend)
    assert nothing.block.shape == (0, 5, 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constants_have_no_variance(backend) -> None:
    x = torch.full((1, 11, 3), 0.1, dtype=torch.float64)
    x[:, :, 1] = torch.arange(11.0)
    state = joined(x, chunk=4, backend=backend)
    assert state.m2_x[0, 0] == 0
    assert state.m2_x[0, 2] == 0
    assert state.m2_x[0, 1] == pytest.approx(110.0, rel=1e-14)  # Σ (i − 5)², i = 0 … 10


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rectangular", [False, True])
def test_merge(backend, rectangular) -> None:
    x, y = make_draws(2, 60, 600, "shifted"), make_draws(2, 60, 31, "large", seed=1) if rectangular else None
    cuts = [slice(0, 1), slice(1, 41), slice(41, 60)]
    parts = [joined(x[:, c], None if y is None else y[:, c], backend=backend) for c in cuts]

    def merged(first: int, second: int, third: int, *, right: bool) -> ops.Comoments:
        a, b, c = (ops.Comoments(*(None if t is None else t.clone() for t in parts[i])) for i in (first, second, third))
        if right:
            ops.comoment_merge_(b, c, backend=backend)
            ops.comoment_merge_(a, b, backend=backend)
        else:
            ops.comoment_merge_(a, b, backend=backend)
            ops.comoment_merge_(a, c, backend=backend)
        return a

    expected = truths(x, y)
    for order in ((0, 1, 2), (2, 0, 1)):
        for right in (False, True):
            check_state(merged(*order, right=right), expected, 3, k=60)


def test_moments_alone() -> None:
    x, y = make_draws(2, 20, 300), make_draws(2, 20, 5, seed=1)
    for other in (None, y):
        full, lean = joined(x, other), joined(x, other, made={"block": False})
        assert lean.block is None
        assert torch.equal(full.mean_x, lean.mean_x)
        assert torch.equal(full.m2_x, lean.m2_x)
        ops.comoment_merge_(lean, joined(x, other, made={"block": False}))
        assert lean.draws.tolist() == [40, 40]


def test_slices_need_no_copy() -> None:
    # columns of a longer trace in, a tile of a larger matrix out
    trace = make_draws(2, 12, 100)
    whole = torch.full((2, 50, 60), torch.nan, dtype=torch.float64)
    whole[:, 3:23, 7:37] = 0
    made = ops.comoments(2, 20, 30, block=False)
    state = made._replace(block=whole[:, 3:23, 7:37])
    for precision in ops.PRECISIONS:
        ops.comoment_(state, trace[:, :, 5:25], trace[:, :, 60:90], precision=precision)
    expected = joined(trace[:, :, 5:25], trace[:, :, 60:90])
    ops.comoment_merge_(expected, joined(trace[:, :, 5:25], trace[:, :, 60:90], precision="fp32"))
    assert torch.allclose(state.block, expected.block, rtol=0, atol=40 * U64 * 100)  # k + 16 sums of M2 < 100
    assert whole.isnan().sum() == 2 * (50 * 60 - 20 * 30)


@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_thread_count_and_instruction_set_change_no_bit(precision) -> None:
    x, y = make_draws(2, 33, 1100, "shifted"), make_draws(2, 33, 530, seed=1)
    threads = torch.get_num_threads()
    states = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            states.append([joined(x, precision=precision), joined(x, y, precision=precision)])
            for pair in states[-1:]:
                ops.comoment_merge_(pair[1], joined(x, y, chunk=10, precision=precision))
        for isa in ISAS:
            _C.use_isa(isa)
            states.append([joined(x, precision=precision), joined(x, y, precision=precision)])
            ops.comoment_merge_(states[-1][1], joined(x, y, chunk=10, precision=precision))
    finally:
        torch.set_num_threads(threads)
        _C.use_isa(ISAS[-1])
    for other in states[1:]:
        for one, two in zip(states[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True) if a is not None)
