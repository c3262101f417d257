"""The CUDA kernels of grouped_gradient_products and _inner, on CPU threads, against the C++ op and the reference."""

import ctypes

import pytest
import torch
from cuda_threads.build import assert_clean, library
from torch import Tensor

from sltfast import ops

FORMS = {"formed": 0, "ghost": 1, "short": 2}
SHAPES = [  # B, T, T', R, K: tiles of 64 and panels of 16 crossed, tails, single positions, columns
    (3, 1, 1, 63, 5),
    (2, 67, 70, 3, 17),
    (1, 17, 3, 66, 70),
    (2, 3, 2, 5, 1),
]


def normal(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def factors(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    b, t, u, r, k = shape
    return [normal(b, n, m, seed=s, dtype=dtype) for s, (n, m) in enumerate([(t, r), (t, k), (u, r), (u, k)])]


def matrix_words(x: Tensor) -> list[int]:
    assert x.stride(2) == 1 or x.shape[2] == 1
    return [x.data_ptr(), x.shape[1], x.shape[2], x.stride(0), x.stride(1)]


def call(function: str, words: list[int]) -> None:
    getattr(library("grouped_gradient_products"), function)((ctypes.c_int64 * len(words))(*words))


def products(given: list[Tensor], form: str, *, shares: int = 1, blocks: int = 2, backward: bool = False) -> Tensor:
    out = torch.full((given[0].shape[0],), torch.nan, dtype=torch.float64)
    words = [word for x in given for word in matrix_words(x)]
    same = given[0] is given[2] and given[1] is given[3]
    wide = given[0].dtype == torch.float64
    call(
        "grouped_gradient_products_words",
        [*words, same, len(out), shares, FORMS[form], blocks, backward, out.data_ptr(), wide],
    )
    return out


def inner(left: Tensor, right: Tensor, v: Tensor, *, blocks: int = 2, backward: bool = False) -> Tensor:
    out = torch.full((left.shape[0],), torch.nan, dtype=torch.float64)
    words = [word for x in (left.flatten(0, 1), right.flatten(0, 1), v) for word in matrix_words(x[None])]
    wide = left.dtype == torch.float64
    call("grouped_gradient_inner_words", [*words, len(out), blocks, backward, out.data_ptr(), wide])
    return out


def bound(given: list[Tensor]) -> Tensor:
    """Each of the two tiles is a sum of n products (n: T, R or K): n + 2 half ulps of the terms' absolute values, for
    two tiles; everything after that is in float64.
    """
    size = torch.einsum("btr,bur,btk,buk->b", *(given[i].double().abs() for i in (0, 2, 1, 3)))
    n = max(*given[0].shape[1:], *given[2].shape[1:], given[1].shape[2])
    return (n + 2) * torch.finfo(given[0].dtype).eps * size


@pytest.mark.parametrize(
    ("shape", "form"), [(s, f) for s in SHAPES for f in FORMS if f != "short" or s[1] * s[2] <= 64]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_and_norms(shape, dtype, form) -> None:
    la, ra, lb, rb = factors(shape, dtype)
    algorithm = "formed" if form == "formed" else "ghost"
    for given in ([la, ra, lb, rb], [la, ra, la, ra]):
        ours = products(given, form)
        # the reference has the rounding of float64 alone; the native op the same bound as ours
        reference = ops.grouped_gradient_products(*given, algorithm=algorithm, backend="reference")
        native = ops.grouped_gradient_products(*given, algorithm=algorithm, backend="native")
        assert not ((ours - reference).abs() > bound(given)).any()
        assert not ((ours - native).abs() > 2 * bound(given)).any()
        # tiles are dealt out to blocks: the same terms in another order
        dealt = products(given, form, shares=2, blocks=3, backward=True)
        assert not ((dealt - ours).abs() > bound([x.double() for x in given])).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_inner_product_with_a_matrix(shape, dtype) -> None:
    left, right, *_ = factors(shape, dtype)
    v = normal(shape[3], shape[4], seed=9, dtype=dtype)
    ours = inner(left, right, v)
    size = torch.einsum("btr,rk,btk->b", left.double().abs(), v.double().abs(), right.double().abs())
    bound = (shape[4] + 2) * torch.finfo(dtype).eps * size  # a row of V right is a sum of K products
    assert not ((ours - ops.grouped_gradient_inner(left, right, v, backend="reference")).abs() > bound).any()
    assert not ((ours - ops.grouped_gradient_inner(left, right, v, backend="native")).abs() > 2 * bound).any()
    assert torch.equal(inner(left, right, v, blocks=5, backward=True), ours)


@pytest.mark.parametrize("form", FORMS)
def test_strides(form) -> None:
    """Columns of a wider layer, off the alignment of 16 bytes, positions before samples, and a shared factor."""
    left = normal(6, 3, 20, seed=0, dtype=torch.float32).transpose(0, 1)[..., 5:12]
    right = normal(1, 6, 8, seed=1, dtype=torch.float32).expand(3, -1, -1)
    dense = [x.contiguous() for x in (left, right)]
    ours = products([left, right] * 2, form, shares=2)
    assert torch.equal(ours, products(dense * 2, form, shares=2, blocks=5, backward=True))


@pytest.mark.parametrize("form", ["formed", "ghost"])
def test_what_is_beyond_a_tile_stays_out(form) -> None:
    """An infinite factor meets the zeros that fill a tile, and must not make a NaN of an infinite norm."""
    left, right = (x.abs() for x in factors((2, 3, 3, 5, 6), torch.float32)[:2])
    left[1, 1, 2] = torch.inf
    got = products([left, right, left, right], form)
    assert got[0].isfinite()
    assert got[1] == torch.inf


@pytest.mark.parametrize("sanitizer", ["plain", "memory", "races"])
def test_clean(sanitizer) -> None:
    assert_clean("grouped_gradient_products", sanitizer)
