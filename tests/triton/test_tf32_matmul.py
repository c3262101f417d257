"""The TF32 product's indexing; the interpreter multiplies in float32, so the rounding is not seen here."""

import pytest
import torch

from sltfast.triton_kernels.tf32_matmul import matmul


@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (1, 1, 1), (5, 0, 3), (63, 33, 65), (64, 32, 64), (3, 100, 70)])
@pytest.mark.parametrize("turned", ["neither", "left", "right"])
def test_products_of_any_shape_and_stride(m: int, k: int, n: int, turned: str) -> None:
    random = torch.Generator().manual_seed(m + k + n)
    a = torch.randn(k, m, generator=random).t() if turned == "left" else torch.randn(m, k, generator=random)
    b = torch.randn(n, k, generator=random).t() if turned == "right" else torch.randn(k, n, generator=random)
    # sums of up to 100 products of normals in float32, in another order: 100 roundings of partial sums below 50
    torch.testing.assert_close(matmul(a, b).double(), a.double() @ b.double(), rtol=0, atol=100 * 50 * 2.0**-24)
