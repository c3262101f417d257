"""grouped_gradient_products and grouped_gradient_inner in Triton, interpreted, against gradients in float64."""

import pytest
import torch
from torch import Tensor

from sltfast import ops

SHAPES = [  # B, T, T', R, K: single positions, both tile sizes and their tails, B = 0 and 1, nothing to sum
    (0, 3, 3, 4, 4),
    (1, 1, 1, 63, 5),
    (3, 4, 5, 7, 9),
    (2, 16, 3, 33, 20),
    (1, 70, 17, 3, 5),
    (2, 5, 3, 17, 65),
    (2, 0, 3, 4, 4),
    (2, 3, 3, 0, 4),
]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def factors(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, t, u, r, k = shape
    return tuple(normal(b, n, m, seed=s, dtype=dtype) for s, (n, m) in enumerate([(t, r), (t, k), (u, r), (u, k)]))


def tolerance(la: Tensor, ra: Tensor, lb: Tensor, rb: Tensor) -> Tensor:
    """Two tiles are multiplied, each a sum of n products (n = T, R or K): n + 2 roundings of its terms' absolute
    values, half an ulp each. Everything after that is in float64.
    """
    size = torch.einsum("btr,bur,btk,buk->b", *(x.double().abs() for x in (la, lb, ra, rb)))
    n = max(*la.shape[1:], lb.shape[1], ra.shape[2])
    return (n + 2) * torch.finfo(la.dtype).eps * size


def inner_tolerance(left: Tensor, right: Tensor, v: Tensor) -> Tensor:
    """An entry of V right is a sum of K products."""
    size = torch.einsum("btr,rk,btk->b", *(x.double().abs() for x in (left, v, right)))
    return (v.shape[1] + 2) * torch.finfo(v.dtype).eps * size


@pytest.mark.parametrize("algorithm", ["auto", "ghost", "formed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_and_norms(shape, dtype, algorithm) -> None:
    la, ra, lb, rb = factors(shape, dtype)
    for given in ((la, ra, lb, rb), (la, ra, la, ra), (la, ra, la.clone(), ra)):
        got = ops.grouped_gradient_products(*given, algorithm=algorithm, backend="triton")
        want = ops.grouped_gradient_products(*(x.double() for x in given), backend="reference")
        assert got.dtype == torch.float64
        # two float64 results err by one tolerance each
        assert not ((got - want).abs() > 2 * tolerance(*given)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_inner_product_with_a_matrix(shape, dtype) -> None:
    left, right, *_ = factors(shape, dtype)
    v = normal(shape[3], shape[4], seed=9, dtype=dtype)
    got = ops.grouped_gradient_inner(left, right, v, backend="triton")
    want = ops.grouped_gradient_inner(left.double(), right.double(), v.double(), backend="reference")
    assert not ((got - want).abs() > 2 * inner_tolerance(left, right, v)).any()


@pytest.mark.parametrize("algorithm", ["ghost", "formed"])
def test_rows_in_fours_and_native(algorithm) -> None:
    """Where rows start on 16 bytes; the C++ op errs by as much."""
    given = factors((2, 19, 6, 20, 36), torch.float32)
    for four in (given, given[:2] * 2):
        got = ops.grouped_gradient_products(*four, algorithm=algorithm, backend="triton")
        want = ops.grouped_gradient_products(*four, algorithm=algorithm, backend="native")
        assert not ((got - want).abs() > 2 * tolerance(*four)).any()
    v = normal(20, 36, seed=9, dtype=torch.float32)
    got = ops.grouped_gradient_inner(*given[:2], v, backend="triton")
    want = ops.grouped_gradient_inner(*given[:2], v, backend="native")
    assert not ((got - want).abs() > 2 * inner_tolerance(*given[:2], v)).any()


@pytest.mark.parametrize("algorithm", ["ghost", "formed"])
def test_strides(algorithm) -> None:
    """Columns of a wider layer (a head), positions before samples, a transposed factor, and one sample for all."""
    left, right = normal(6, 3, 20).transpose(0, 1)[..., 4:11], normal(3, 8, 6, seed=1).transpose(1, 2)
    other = normal(1, 6, 8, seed=2).expand(3, -1, -1)
    for four in ((left, right, left, right), (left, other, left, right)):
        got = ops.grouped_gradient_products(*four, algorithm=algorithm, backend="triton")
        want = ops.grouped_gradient_products(*four, backend="reference")
        assert not ((got - want).abs() > 2 * tolerance(*four)).any()
    v = normal(8, 7, seed=3).T
    got = ops.grouped_gradient_inner(left, right, v, backend="triton")
    want = ops.grouped_gradient_inner(left, right, v, backend="reference")
    assert not ((got - want).abs() > 2 * inner_tolerance(left, right, v)).any()


def test_auto_is_the_form_with_fewer_multiplications() -> None:
    """The two forms round differently in float32, so their bits tell them apart."""
    a, b = factors((3, 17, 17, 30, 30), torch.float32)[:2], factors((3, 17, 17, 30, 30), torch.float32)[2:]
    long = factors((3, 33, 17, 3, 5), torch.float32)
    # T·T'·(R + K) against (T + T')·R·K, for norms T·R·K: 17,340 < 30,600; 17,340 > 15,300; 4,488 > 750
    for four, form, other in (((*a, *b), "ghost", "formed"), (a * 2, "formed", "ghost"), (long, "formed", "ghost")):
        auto, same, not_same = (
            ops.grouped_gradient_products(*four, algorithm=x, backend="triton") for x in ("auto", form, other)
        )
        assert torch.equal(auto, same)
        assert not torch.equal(auto, not_same)


def test_torch_contract() -> None:
    given = factors((2, 4, 5, 7, 9), torch.float32)
    v = normal(7, 9, dtype=torch.float32)
    torch.library.opcheck(torch.ops.sltfast.triton_grouped_gradient_products.default, (*given, "auto"))
    torch.library.opcheck(torch.ops.sltfast.triton_grouped_gradient_inner.default, (*given[:2], v))
    with pytest.raises(ValueError, match="algorithm must be one of auto, ghost, formed, got 'fast'"):
        ops.grouped_gradient_products(*given, algorithm="fast", backend="triton")
    with pytest.raises(ValueError, match="v must have shape"):
        ops.grouped_gradient_inner(*given[:2], v.T, backend="triton")
    for op in ("grouped_gradient_products", "grouped_gradient_inner"):
        assert "triton" not in ops.backend.refusals(op, "cpu")
