"""Inner products of per-sample gradients against gradients that autograd forms one by one."""

import itertools
import re

import pytest
import torch
from torch import Tensor

from sltfast import ops
from sltfast.ops import registration

BACKENDS = ["native", "reference"]
ALGORITHMS = ["auto", "ghost", "formed"]
SHAPES = [  # B, T, T', R, K: T(R+K) on both sides of R·K, tiles of 256 crossed, single positions, nothing at all
    (3, 4, 5, 7, 9),
    (5, 1, 1, 63, 5),
    (2, 70, 3, 3, 65),
    (1, 300, 270, 4, 3),
    (2, 2, 3, 300, 270),
    (33, 3, 2, 5, 1),
    (0, 3, 3, 4, 4),
    (2, 0, 3, 4, 4),
    (2, 3, 3, 0, 4),
]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def factors(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, t, u, r, k = shape
    return tuple(normal(b, n, m, seed=s, dtype=dtype) for s, (n, m) in enumerate([(t, r), (t, k), (u, r), (u, k)]))


def formed(left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("btr,btk->brk", left.double(), right.double())


def tolerance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Each of the two tiles that are multiplied is a sum of n products (n = T, R or K): n + 2 roundings of its terms'
    absolute values, half an ulp each. Everything after that is in float64.
    """
    size = torch.einsum(
        "btr,bur,btk,buk->b", a[0].double().abs(), b[0].double().abs(), a[1].double().abs(), b[1].double().abs()
    )
    n = max(*a[0].shape[1:], *b[0].shape[1:], a[1].shape[2])
    return (n + 2) * torch.finfo(a[0].dtype).eps * size


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_and_norms(backend, algorithm, dtype, shape) -> None:
    la, ra, lb, rb = factors(shape, dtype)
    got = ops.grouped_gradient_products(la, ra, lb, rb, algorithm=algorithm, backend=backend)
    want = (formed(la, ra) * formed(lb, rb)).sum((1, 2))
    assert got.dtype == torch.float64
    assert not ((got - want).abs() > tolerance((la, ra), (lb, rb))).any()
    norms = ops.grouped_gradient_products(la, ra, la, ra, algorithm=algorithm, backend=backend)
    assert not ((norms - formed(la, ra).square().sum((1, 2))).abs() > tolerance((la, ra), (la, ra))).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_inner_product_with_a_matrix(backend, dtype, shape) -> None:
    left, right, *_ = factors(shape, dtype)
    v = normal(shape[3], shape[4], seed=9, dtype=dtype)
    got = ops.grouped_gradient_inner(left, right, v, backend=backend)
    want = (formed(left, right) * v.double()).sum((1, 2))
    # a row of V right is a sum of K products
    size = torch.einsum("btr,rk,btk->b", left.double().abs(), v.double().abs(), right.double().abs())
    assert not ((got - want).abs() > (shape[4] + 2) * torch.finfo(dtype).eps * size).any()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_of_one_in_autograd(algorithm) -> None:
    """A Linear and a weight [in, out] (Conv1D), used twice each: squared norm of the sum, in float64."""
    x = normal(4, 6, 5)
    for transpose in (False, True):
        weight = normal(5, 5, seed=1).requires_grad_()
        used = weight.T if transpose else weight
        want = []
        for i in range(4):
            hidden = torch.tanh(x[i] @ used.T)
            (grad,) = torch.autograd.grad(torch.sin(hidden @ used.T).sum(), weight)
            want.append(grad.square().sum())
        first = (x @ used.T).detach().requires_grad_()
        hidden = torch.tanh(first)
        second = (hidden @ used.T).detach().requires_grad_()
        (d2,) = torch.autograd.grad(torch.sin(second).sum(), second)
        (d1,) = torch.autograd.grad(hidden, first, d2 @ used.detach())
        uses = [(d1, x), (d2, hidden.detach())]
        if transpose:
            uses = [(right, left) for left, right in uses]
        got = sum(
            ops.grouped_gradient_products(*a, *b, algorithm=algorithm) for a, b in itertools.product(uses, repeat=2)
        )
        # float64 against float64, sums of a few hundred terms
        assert torch.allclose(got, torch.stack(want), rtol=1e-12)


@pytest.mark.parametrize("algorithm", ["ghost", "formed"])
def test_strides(algorithm) -> None:
    """Columns of a wider layer (a head), positions before samples, and a factor that is transposed."""
    left, right = normal(6, 3, 20).transpose(0, 1)[..., 4:11], normal(3, 8, 6, seed=1).transpose(1, 2)
    got = ops.grouped_gradient_products(left, right, left, right, algorithm=algorithm)
    want = ops.grouped_gradient_products(*(x.contiguous() for x in (left, right, left, right)), backend="reference")
    assert torch.allclose(got, want, rtol=1e-12)
    v = normal(8, 7, seed=2).T
    got = ops.grouped_gradient_inner(left, right, v)
    assert torch.allclose(got, ops.grouped_gradient_inner(left, right, v, backend="reference"), rtol=1e-12)


@pytest.mark.parametrize("algorithm", ["ghost", "formed"])
def test_threads_do_not_change_a_bit(algorithm) -> None:
    a, b = factors((5, 300, 280, 290, 70), torch.float32), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.grouped_gradient_products(*a, algorithm=algorithm))
            results.append(ops.grouped_gradient_products(*a[:2], *a[:2], algorithm=algorithm))
            results.append(ops.grouped_gradient_inner(*a[:2], normal(290, 70, dtype=torch.float32)))
    finally:
        torch.set_num_threads(b)
    for again in range(3, len(results)):
        assert torch.equal(results[again], results[again % 3])


OPS = ["grouped_gradient_products", "grouped_gradient_inner"]


def arguments(op: str) -> tuple:
    la, ra, lb, rb = factors((3, 4, 5, 7, 9), torch.float32)
    return (la, ra, lb, rb, "auto") if op == OPS[0] else (la, ra, normal(7, 9, dtype=torch.float32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", OPS)
def test_torch_contract(backend, op) -> None:
    registered = getattr(torch.ops.sltfast, f"{backend}_{op}").default
    assert str(registered._schema).split(op, 1)[1] == registration.OPS[op].schema
    torch.library.opcheck(registered, arguments(op))
    tensors = [x for x in arguments(op) if isinstance(x, Tensor)]
    face = getattr(ops, op)
    compiled = torch.compile(lambda *x: face(*x, backend=backend) + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors), face(*tensors, backend=backend) + 1)


BAD = {
    "low": (0, lambda x: x.bfloat16(), TypeError, "must be float32 or float64, got bfloat16"),
    "dtype": (1, lambda x: x.double(), TypeError, "right_a must be float32 like the first, got float64"),
    "rank": (0, lambda x: x[0], ValueError, "left_a must have shape [*, *, *], got [4, 7]"),
    "samples": (1, lambda x: x[:2], ValueError, "right_a must have shape [3, 4, *], got [2, 4, 9]"),
    "columns": (2, lambda x: x[..., 1:], ValueError, "left_b must have shape [3, *, 7], got [3, 5, 6]"),
    "positions": (3, lambda x: x[:, 1:], ValueError, "right_b must have shape [3, 5, 9], got [3, 4, 9]"),
    "name": (4, lambda _: "fast", ValueError, "algorithm must be one of auto, ghost, formed, got 'fast'"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(backend, name) -> None:
    where, change, error, message = BAD[name]
    given = list(arguments(OPS[0]))
    given[where] = change(given[where])
    with pytest.raises(error, match=re.escape(message)):
        ops.grouped_gradient_products(*given[:4], algorithm=given[4], backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_matrix(backend) -> None:
    left, right, v = arguments(OPS[1])
    with pytest.raises(ValueError, match=re.escape("v must have shape [7, 9], got [9, 7]")):
        ops.grouped_gradient_inner(left, right, v.T, backend=backend)
