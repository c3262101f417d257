"""`token_loss` forward against float64 cross-entropy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from token_loss_cases import UNIT, errors, make_case

from sltfast import _C, ops

BACKENDS = ("native", "reference")
SHAPES = [
    # tokens, depth, vocabulary; more than one tile either way where one of them is large
    *((n, 5, 63) for n in (0, 1, 3, 4, 5, 63, 1000)),
    *((4, d, 63) for d in (0, 1, 3, 64)),
    *((5, 4, v) for v in (1, 3, 4, 5, 1000)),
    (300, 16, 5003),
]


def bound(case) -> torch.Tensor:
    """What rounding can do to each loss.

    A product of d terms is off by at most (d + 2)·u of the sum of their sizes (bias and scale take one rounding each),
    and softcap shrinks it; the loss holds two logits. The exponentials (1.5e-7 = 2.5 u) and a sum of V of them add
    (V + 4)·u at worst, the tanh 5 u of the largest logit, the final rounding u of the loss.
    """
    d = case.hidden.double().abs() @ case.unembedding.double().abs().transpose(1, 2)
    if case.bias is not None:
        d = d + case.bias.double().abs()[:, None]
    size = abs(case.options.get("scale", 1.0)) * d.amax(-1)
    depth, vocabulary = case.hidden.shape[2], case.unembedding.shape[1]
    return UNIT * (2 * (depth + 7) * size + vocabulary + 4 + size)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 3.0}], ids=["plain", "all"])
def test_is_the_cross_entropy(backend, shape, options) -> None:
    case = make_case(*shape, chains=2, own_weights=True, **options)
    truth = case.to(torch.float64).eager()
    loss = case.loss(backend)
    assert loss.shape == case.targets.shape
    assert loss.dtype == torch.float32
    assert bool(((loss - truth).abs() <= bound(case)).all())
    assert bool((loss[case.targets == -100] == 0).all())
    # rounding errors are independent: together they stay far below their worst case, and lean to no side
    if loss.numel() > 500:
        off = (loss - truth)[case.targets != -100]
        assert off.norm() <= 16 * UNIT * truth.norm()
        assert abs(off.mean()) <= 4 * off.std() / math.sqrt(off.numel()) + UNIT * truth.mean()


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64(backend) -> None:
    case = make_case(63, 7, 130, bias=True, softcap=2.0).to(torch.float64)
    loss = case.loss(backend)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, case.eager(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_inputs_are_multiplied_exactly(backend, dtype) -> None:
    case = make_case(100, 40, 333, bias=True, chains=2, own_weights=True).to(dtype)
    truth = case.to(torch.float64).eager()
    loss = case.loss(backend)
    assert loss.dtype == torch.float32
    assert bool(((loss - truth).abs() <= bound(case)).all())
    assert errors([loss], [truth])[0] <= 2 * errors([case.eager()], [truth])[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_precision_rounds_operands_only(backend) -> None:
    case = make_case(100, 40, 333)
    rounded = replace(case, hidden=case.hidden.bfloat16().float(), unembedding=case.unembedding.bfloat16().float())
    assert bool(((case.loss(backend, precision="bf16") - rounded.to(torch.float64).eager()).abs() <= bound(case)).all())
    assert torch.equal(case.loss(backend, precision="tf32"), case.loss(backend))  # a CPU has no TF32


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_weights_and_shared_targets(backend) -> None:
    case = make_case(9, 6, 50, chains=3, bias=True)
    own = replace(case, unembedding=case.unembedding.repeat(3, 1, 1), bias=case.bias.repeat(3, 1))
    torch.testing.assert_close(case.loss(backend), own.loss(backend), rtol=1e-6, atol=1e-6)
    first = case.targets[0]
    same = replace(case, targets=first.expand(3, -1))
    assert torch.equal(
        ops.token_loss(case.hidden, case.unembedding[0], first, bias=case.bias[0], backend=backend), same.loss(backend)
    )
    alone = ops.token_loss(case.hidden[1], case.unembedding[0], first, bias=case.bias[0], backend=backend)
    assert alone.shape == first.shape
    torch.testing.assert_close(alone, same.loss(backend)[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides(backend) -> None:
    case = make_case(20, 12, 70, chains=2, own_weights=True, bias=True)
    expected = case.loss(backend)

    def strided(t, *, double):
        wide = torch.stack([t, torch.full_like(t, torch.nan)], -1) if double else t.transpose(1, 2).contiguous()
        return wide[..., 0] if double else wide.transpose(1, 2)

    for double in (False, True):
        other = replace(
            case,
            hidden=strided(case.hidden, double=double),
            unembedding=strided(case.unembedding, double=double),
            bias=strided(case.bias, double=True),
            targets=case.targets.t().contiguous().t(),
        )
        torch.testing.assert_close(other.loss(backend), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [1e4, -1e4])
def test_extreme_logits(backend, level) -> None:
    hidden, targets = torch.ones(1, 4, 1), torch.tensor([[0, 1, 2, 3]])
    flat = torch.full((1, 100, 1), level)
    loss = ops.token_loss(hidden, flat, targets, backend=backend)
    torch.testing.assert_close(loss, torch.full((1, 4), math.log(100.0)), rtol=0, atol=8 * UNIT * math.log(100.0))
    peak = flat.clone()
    peak[0, 1] += 200.0  # e^-200 is nothing: certain of token 1
    expected = torch.tensor([[200.0, 0.0, 200.0, 200.0]])
    assert torch.equal(ops.token_loss(hidden, peak, targets, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_infinity_excludes_a_token(backend) -> None:
    case = make_case(6, 4, 40, bias=True)
    case.bias[0, 20:] = -math.inf
    case.targets[:] = torch.tensor([[0, 3, 19, 25, 39, -100]])
    loss = case.loss(backend)
    truth = case.to(torch.float64).eager()
    assert loss[0, 3:5].tolist() == [math.inf, math.inf]
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 33, 69])
def test_a_broken_logit_is_seen_in_its_row_alone(backend, bad, at) -> None:
    case = make_case(5, 3, 70)
    case.targets[:] = 7
    case.hidden[0, 2] = 0
    bias = torch.zeros(1, 70)
    hidden = torch.cat([case.hidden, torch.zeros(1, 5, 1)], 2)
    unembedding = torch.cat([case.unembedding, torch.zeros(1, 70, 1)], 2)
    hidden[0, 3, -1], unembedding[0, at, -1] = bad, 1.0
    loss = ops.token_loss(hidden, unembedding, case.targets, bias=bias, backend=backend)
    # 0 · inf is NaN in the other rows' products only where the unembedding is 0: there hidden is 0 as well
    assert torch.isfinite(loss[0, [0, 1, 2, 4]]).all()
    assert not torch.isfinite(loss[0, 3])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_predict(backend) -> None:
    case = make_case(6, 4, 40)
    case.targets[:] = -100
    case.hidden[:] = torch.nan
    assert torch.equal(case.loss(backend), torch.zeros(1, 6))
    empty = replace(case, unembedding=torch.zeros(1, 0, 4))
    assert torch.equal(empty.loss(backend), torch.zeros(1, 6))


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_ignore_index(backend) -> None:
    case = make_case(50, 4, 40, ignore_index=0)
    torch.testing.assert_close(case.loss(backend).double(), case.to(torch.float64).eager(), rtol=1e-6, atol=1e-6)


@pytest.fixture
def every_isa():
    before = _C.build_facts()["isa"]
    yield _C.build_facts()["isa_runnable"]
    _C.use_isa(before)


def test_every_instruction_set(every_isa) -> None:
    case = make_case(40, 16, 1037, bias=True, softcap=4.0)
    truth, limit = case.to(torch.float64).eager(), bound(case)
    for isa in every_isa:
        _C.use_isa(isa)
        assert bool(((case.loss() - truth).abs() <= limit).all()), isa


def test_exponential_and_tangent_keep_their_bounds(every_isa) -> None:
    x = np.concatenate([np.linspace(-87, 88, 400_001), np.linspace(-1, 1, 100_001)]).astype(np.float32)
    wide = np.concatenate([x, np.float32(10.0) ** np.linspace(-38, 37, 1001, dtype=np.float32)])
    for isa in every_isa:
        _C.use_isa(isa)
        exact = np.exp(x.astype(np.float64))
        assert np.max(np.abs(_C.exponential(x) / exact - 1)) < 1.5e-7
        exact = np.tanh(wide.astype(np.float64))
        got = _C.hyperbolic_tangent(wide).astype(np.float64)
        assert np.max(np.abs(got - exact) - 3e-7 * np.abs(exact)) <= 0
        ends = np.array([-87.1, -1e4, -np.inf, np.nan] * 5, dtype=np.float32)
        assert np.array_equal(_C.exponential(ends), np.array([0, 0, 0, np.nan] * 5, np.float32), equal_nan=True)
        ends = np.array([np.inf, -np.inf, np.nan, 0] * 5, dtype=np.float32)
        assert np.array_equal(_C.hyperbolic_tangent(ends), np.array([1, -1, np.nan, 0] * 5, np.float32), equal_nan=True)
