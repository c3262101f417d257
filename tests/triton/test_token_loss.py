"""The Triton kernels of `token_loss` under the interpreter, against float64 truth, eager PyTorch and the C++ op."""

import math
from dataclasses import replace

import pytest
import torch
from token_loss_cases import UNIT, errors, make_case

from sltfast import ops
from sltfast.triton_kernels import token_loss as forward
from sltfast.triton_kernels import token_loss_backward as backward

SHAPES = [(0, 5, 20), (1, 1, 1), (5, 3, 70), (70, 20, 5), (7, 40, 150)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    # several programs across the vocabulary, several slabs either way
    monkeypatch.setattr(forward, "SPLIT", 64)
    monkeypatch.setattr(backward, "SLAB_ROWS", 64)
    monkeypatch.setattr(backward, "SLAB_VALUES", 64 * 64)


@pytest.mark.parametrize("kind", ["triton", "triton, weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 3.0}], ids=["plain", "all"])
def test_losses_and_gradients(kind, shape, options) -> None:
    case = make_case(*shape, chains=2, own_weights=True, **options)
    truth = case.to(torch.float64).with_gradient("eager")
    got, eager = case.with_gradient(kind), case.with_gradient("eager")
    native = case.with_gradient("native")
    # the floor is for cases where eager is exact by luck: some u of the result, and of ρ or of one loss
    for ours, theirs, exact, g, n in zip(errors(got, truth), errors(eager, truth), truth, got, native, strict=True):
        limit = 2 * theirs + 64 * UNIT * (float(exact.norm()) + float(case.weights.norm()))
        assert ours <= limit
        assert float((g.double() - n.double()).norm()) <= 2 * limit


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes(dtype) -> None:
    case = make_case(7, 20, 70, bias=True).to(dtype)
    case.weights *= 10
    truth = case.to(torch.float64).with_gradient("eager")
    got, eager = case.with_gradient("triton"), case.with_gradient("eager")
    assert [g.dtype for g in got[1:]] == [dtype] * 3
    for ours, theirs, exact in zip(errors(got, truth), errors(eager, truth), truth, strict=True):
        assert ours <= 2 * theirs + (1e-12 if dtype == torch.float64 else 0) * float(exact.norm())


def test_bf16_precision_rounds_operands() -> None:
    case = make_case(7, 20, 70)
    rounded = replace(case, hidden=case.hidden.bfloat16().float(), unembedding=case.unembedding.bfloat16().float())
    torch.testing.assert_close(case.loss("triton", precision="bf16"), rounded.loss("native"), rtol=1e-5, atol=1e-5)


def test_ignored_and_broken_rows() -> None:
    case = make_case(5, 4, 70, bias=True)
    case.bias[0, :64] = -math.inf  # nothing at all in the first part
    case.targets[:] = torch.tensor([[66, -100, 3, 69, 65]])
    case.hidden[0, 1], case.hidden[0, 3] = torch.nan, torch.nan
    loss, hidden, _, bias = case.with_gradient("triton")
    truth = case.to(torch.float64).eager()
    assert loss[0, 1] == 0
    assert loss[0, 2] == math.inf
    assert torch.isnan(loss[0, 3])
    torch.testing.assert_close(loss[0, [0, 4]].double(), truth[0, [0, 4]], rtol=1e-6, atol=1e-6)
    assert torch.equal(hidden[0, 1], torch.zeros(4))
    assert bias.shape == (1, 70)


def test_a_target_out_of_range_is_nan_and_has_no_gradient() -> None:
    case = make_case(4, 3, 20)
    case.targets[:] = torch.tensor([[2, -1, 20, 1 << 40]])
    loss, hidden, unembedding = case.with_gradient("triton")
    assert torch.isnan(loss[0, 1:]).all()
    assert torch.equal(hidden[0, 1:], torch.zeros(3, 3))
    assert torch.isfinite(unembedding).all()


def test_strided_unembedding() -> None:
    case = make_case(5, 6, 70)
    other = replace(case, unembedding=case.unembedding.transpose(1, 2).contiguous().transpose(1, 2))
    assert torch.equal(other.loss("triton"), case.loss("triton"))


@pytest.mark.parametrize("name", ["token_loss", "token_loss_with_gradient"])
def test_opcheck(name) -> None:
    case = make_case(3, 4, 20, bias=True)
    given = (*(t.requires_grad_() for t in (case.hidden, case.unembedding, case.bias)), case.targets)
    rest = (-100, 0.7, 3.0, "fp32")
    arguments = (*given, *rest) if name == "token_loss" else (*given, case.weights, *rest, True, True)
    torch.library.opcheck(getattr(torch.ops.sltfast, f"triton_{name}").default, arguments)


def test_compiles_in_one_graph() -> None:
    case = make_case(3, 4, 20)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(hidden):
        return ops.token_loss(hidden, case.unembedding, case.targets, backend="triton")

    assert torch.equal(loss(case.hidden), case.loss("triton"))
