"""The CUDA kernels of `token_loss`, on CPU threads, against the float64 truth and the C++ op."""

import ctypes

import pytest
import torch
from cuda_threads.build import SANITIZERS, assert_clean, library
from token_loss_cases import UNIT, make_case


def run(case, columns: int, *, logits: bool, offset: int = 0):
    """(total, ℓ, lse, D) of a case of one chain; `offset` values of misalignment."""
    products = (case.hidden[0] @ case.unembedding[0].T).contiguous()
    rows, vocabulary = products.shape
    memory = torch.full((products.numel() + offset,), torch.nan, dtype=products.dtype)
    memory[offset:] = products.flatten()
    tile = memory[offset:].view(rows, vocabulary)
    loss = torch.full((rows,), torch.nan, dtype=products.dtype)
    lse = torch.full((rows,), torch.nan, dtype=torch.float64)
    total = torch.full((), torch.nan, dtype=products.dtype)
    weights = case.weights[0].to(products.dtype)
    call = getattr(library("token_loss"), f"token_loss_f{8 * products.element_size()}")

    def at(t):
        return ctypes.c_void_p(None if t is None else t.data_ptr())

    i64, f64 = ctypes.c_int64, ctypes.c_double
    bias = None if case.bias is None else case.bias[0]
    scale, softcap = case.options.get("scale", 1.0), case.options.get("softcap", 0.0)
    call(
        at(tile), i64(rows), i64(vocabulary), i64(columns), at(bias), at(case.targets[0]), f64(scale), f64(softcap),
        at(weights), ctypes.c_bool(logits), at(loss), at(lse), at(total),
    )  # fmt: skip
    return total, loss, lse, tile


def truth(case):
    """(ℓ, D) in float64: D by differentiating with respect to the products, through an identity unembedding."""
    exact = case.to(torch.float64)
    exact.hidden = (exact.hidden @ exact.unembedding.transpose(1, 2)).requires_grad_()
    exact.unembedding = torch.eye(exact.hidden.shape[2], dtype=torch.float64)[None]
    loss = exact.eager()
    (loss * case.weights).sum().backward()
    return loss.detach()[0], exact.hidden.grad[0]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(("columns", "offset"), [(1000, 0), (60, 0), (47, 1)])
@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 3.0}], ids=["plain", "all"])
@pytest.mark.parametrize("vocabulary", [1, 252])
def test_losses_and_gradients(vocabulary, options, columns, offset, logits) -> None:
    case = make_case(6, 4, vocabulary, **options)
    total, loss, lse, d = run(case, columns, logits=logits, offset=offset)
    expected, gradient = truth(case)
    # products of 4 terms are off by 6 u of their size, softcap's tanh by 5 u, exp by 3 u and a sum of V by V u
    size = float((case.hidden.abs() @ case.unembedding[0].abs().T).max()) + 1
    limit = UNIT * (2 * 12 * size + vocabulary + 8)
    assert float((loss - expected).abs().max()) <= limit
    assert float((d - gradient).abs().max()) <= limit * float(case.weights.max())
    assert abs(float(total) - float((loss.double() * case.weights[0]).sum())) <= 8 * UNIT * float(loss.abs().sum())
    native = torch.ops.sltfast.native_token_loss(
        case.hidden, case.unembedding, case.bias, case.targets, -100, options.get("scale", 1.0),
        options.get("softcap", 0.0), "fp32",
    )  # fmt: skip
    assert float((loss - native[0][0]).abs().max()) <= limit
    assert float((lse - native[1][0]).abs().max()) <= limit


def test_float64() -> None:
    case = make_case(6, 4, 252, bias=True, softcap=3.0).to(torch.float64)
    _, loss, _, d = run(case, 100, logits=False)
    expected, gradient = truth(case)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    # the weights are rounded to float32 on neither side
    torch.testing.assert_close(d, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("logits", [False, True])
def test_targets_out_of_range_are_seen_and_touch_nothing(logits) -> None:
    case = make_case(6, 4, 50)
    case.targets[0] = torch.tensor([3, -1, 50, 1 << 40, -100, 7])
    _, loss, _, d = run(case, 20, logits=logits)
    assert torch.isnan(loss[1:4]).all()
    assert torch.isfinite(loss[[0, 4, 5]]).all()
    assert torch.equal(d[1:5], torch.zeros(4, 50))


def test_extreme_and_broken_rows() -> None:
    case = make_case(6, 1, 50, bias=True)
    case.targets[:] = 3
    case.unembedding[:] = 1
    case.bias[:] = 0
    case.bias[0, 40:] = -torch.inf
    case.hidden[0, :, 0] = torch.tensor([1e4, -1e4, torch.nan, torch.inf, 0.0, 3.0])
    _, loss, _, d = run(case, 16, logits=False)
    good = [0, 1, 4, 5]
    torch.testing.assert_close(loss[good], torch.full((4,), 40.0).log(), rtol=8 * UNIT, atol=0)
    assert not torch.isfinite(loss[2:4]).any()
    assert torch.equal(d[good][:, 40:], torch.zeros(4, 10))
    assert torch.isfinite(d[good]).all()


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers_find_nothing(sanitizer) -> None:
    assert_clean("token_loss", sanitizer)
