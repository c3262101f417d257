"""Gradients of `token_loss`, formed in the backward or with the losses, against float64 autograd."""

import math
from dataclasses import replace

import pytest
import torch
from token_loss_cases import UNIT, errors, make_case

from sltfast import _C, ops

KINDS = ("native", "native, weighted", "reference", "reference, weighted")
SHAPES = [
    *((n, 5, 63) for n in (0, 1, 3, 63, 1000)),
    *((4, d, 63) for d in (0, 1, 64)),
    *((5, 4, v) for v in (1, 3, 4, 1000)),
    (300, 16, 5003),
]


def check(case, kind) -> None:
    """As near to the truth as eager PyTorch within a factor of two.

    The floor is for the cases where eager is exact by luck: 16 u of the gradient, and of each token's share ρ·p, whose
    exponent is a logit rounded to some u of its size, 64 u of ρ.
    """
    truth = case.to(torch.float64).with_gradient("eager")
    got, eager = case.with_gradient(kind), case.with_gradient("eager")
    for ours, theirs, exact, g in zip(errors(got, truth), errors(eager, truth), truth, got, strict=True):
        assert g.shape == exact.shape
        size = 16 * UNIT * float(exact.norm()) + 64 * UNIT * float(case.weights.norm())
        assert ours <= 2 * theirs + size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 3.0}], ids=["plain", "all"])
def test_is_the_gradient(kind, shape, options) -> None:
    check(make_case(*shape, chains=2, own_weights=True, **options), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision(kind, dtype) -> None:
    case = make_case(100, 40, 333, bias=True, softcap=5.0).to(dtype)
    case.weights *= 100  # float16 cannot hold gradients of a mean
    truth = case.to(torch.float64).with_gradient("eager")
    got, eager = case.with_gradient(kind), case.with_gradient("eager")
    assert [g.dtype for g in got[1:]] == [dtype] * 3
    for ours, theirs in zip(errors(got, truth), errors(eager, truth), strict=True):
        assert ours <= 2 * theirs


@pytest.mark.parametrize("kind", KINDS)
def test_shared_weights_sum_over_chains(kind) -> None:
    check(make_case(9, 6, 50, chains=3, bias=True), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_chains_that_share_only_the_bias(kind) -> None:
    case = make_case(9, 6, 50, chains=3, own_weights=True, bias=True)
    check(replace(case, bias=case.bias[:1]), kind)
    shared = make_case(9, 6, 50, chains=3, bias=True)
    check(replace(shared, bias=case.bias), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_gradcheck(kind) -> None:
    case = make_case(7, 3, 20, chains=2, own_weights=True, bias=True, softcap=2.0, scale=1.3).to(torch.float64)
    backend, _, weighted = kind.partition(", ")

    def value(hidden, unembedding, bias):
        leaf = replace(case, hidden=hidden, unembedding=unembedding, bias=bias)
        if weighted:
            return 3 * leaf.loss(backend, token_weights=case.weights).total
        return leaf.loss(backend)

    assert torch.autograd.gradcheck(value, [t.requires_grad_() for t in case.parameters()])


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_only_what_is_asked_for(backend) -> None:
    case = make_case(30, 4, 40, bias=True)
    whole = case.with_gradient(backend)[1:]
    for moving in range(3):
        leaves = [t.clone().requires_grad_(i == moving) for i, t in enumerate(case.parameters())]
        leaf = replace(case, hidden=leaves[0], unembedding=leaves[1], bias=leaves[2])
        (leaf.loss(backend) * case.weights).sum().backward()
        assert [t.grad is not None for t in leaves] == [i == moving for i in range(3)]
        assert torch.equal(leaves[moving].grad, whole[moving])


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_without_weight_has_no_gradient(kind) -> None:
    case = make_case(6, 4, 40, bias=True)
    case.weights[0, 2] = 0
    case.hidden[0, 1:3] = torch.nan  # one is ignored, the other weighs nothing
    loss, hidden, unembedding, bias = case.with_gradient(kind)
    assert loss[0, 1] == 0
    assert torch.equal(hidden[0, 1:3], torch.zeros(2, 4))
    assert torch.isfinite(bias).all()
    # NaN times a gradient of zero: what eager PyTorch gives as well
    assert torch.isnan(unembedding).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_excluded_token_has_probability_zero(kind) -> None:
    case = make_case(6, 4, 40, bias=True)
    case.bias[0, 20:] = -math.inf
    case.targets %= 20
    _, _, unembedding, bias = case.with_gradient(kind)
    assert torch.equal(bias[0, 20:], torch.zeros(20))
    assert torch.equal(unembedding[0, 20:], torch.zeros(20, 4))
    assert torch.isfinite(unembedding).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [1e4, -1e4])
def test_extreme_logits(kind, level) -> None:
    case = make_case(4, 1, 100, bias=True)
    case.hidden[:], case.unembedding[:], case.bias[:] = 1, level, 0
    case.targets[:] = 5
    _, _, _, bias = case.with_gradient(kind)
    total = float(case.weights.sum())
    expected = torch.full((100,), total / 100)
    expected[5] = total / 100 - total
    # the size of lse must not cost the probability digits
    torch.testing.assert_close(bias[0], expected, rtol=16 * UNIT, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [200.0, -200.0])
def test_logits_that_rise_along_the_vocabulary(kind, last) -> None:
    case = make_case(70, 8, 4096, chains=2, own_weights=True, bias=True)
    case.bias += torch.linspace(0, last, 4096)
    check(case, kind)


def test_a_retained_graph_gives_its_gradients_again() -> None:
    case = make_case(30, 4, 300, bias=True)
    expected = case.with_gradient("native, weighted")[1:]
    leaves = [t.clone().requires_grad_() for t in case.parameters()]
    total = (
        replace(case, hidden=leaves[0], unembedding=leaves[1], bias=leaves[2]).loss(token_weights=case.weights).total
    )
    total.backward(retain_graph=True)
    assert all(torch.equal(t.grad, e) for t, e in zip(leaves, expected, strict=True))
    total.backward()
    assert all(torch.equal(t.grad, 2 * e) for t, e in zip(leaves, expected, strict=True))


def test_the_weighted_total_scales_with_what_follows_it() -> None:
    case = make_case(20, 4, 40)
    expected = case.with_gradient("native")[1:]
    hidden = case.hidden.clone().requires_grad_()
    out = replace(case, hidden=hidden).loss(token_weights=case.weights)
    assert isinstance(out, ops.WeightedTokenLoss)
    (-2.5 * out.total).backward()
    torch.testing.assert_close(hidden.grad, -2.5 * expected[0], rtol=1e-5, atol=1e-7)
    counted = case.targets != -100
    truth = (out.losses.double() * case.weights)[counted].sum()
    assert abs(float(out.total.detach()) - float(truth)) <= 2 * UNIT * float(truth)
    with torch.no_grad():
        plain = case.loss(token_weights=case.weights)
    torch.testing.assert_close(plain.total, out.total.detach(), rtol=1e-6, atol=0)
    assert torch.equal(plain.losses, case.loss())


def test_misuse_of_the_weighted_loss_is_refused() -> None:
    case = make_case(20, 4, 40)
    hidden = case.hidden.clone().requires_grad_()
    out = replace(case, hidden=hidden).loss(token_weights=case.weights)
    assert not out.losses.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        out.losses.sum().backward()
    with pytest.raises(ValueError, match="token_weights must not require a gradient"):
        case.loss(token_weights=case.weights.clone().requires_grad_())


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_no_second_derivative(backend) -> None:
    case = make_case(5, 4, 40)
    hidden = case.hidden.clone().requires_grad_()
    loss = replace(case, hidden=hidden).loss(backend).sum()
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_threads_do_not_change_bits() -> None:
    before = torch.get_num_threads()
    case = make_case(700, 24, 5003, chains=2, own_weights=True, bias=True, softcap=5.0)
    try:
        for kind in ("native", "native, weighted"):
            results = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                results.append(case.with_gradient(kind))
            assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    finally:
        torch.set_num_threads(before)


def test_every_instruction_set() -> None:
    case = make_case(40, 16, 1037, bias=True, softcap=4.0)
    before = _C.build_facts()["isa"]
    try:
        for isa in _C.build_facts()["isa_runnable"]:
            _C.use_isa(isa)
            for kind in ("native", "native, weighted"):
                check(case, kind)
    finally:
        _C.use_isa(before)
