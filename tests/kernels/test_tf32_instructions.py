"""The TF32 product reaches the tensor cores as TF32, which the interpreter cannot show."""

import pytest

from benchmarks.static.triton_aot import compile_ahead
from sltfast.triton_kernels.tf32_matmul import AHEAD


@pytest.mark.parametrize("cc", [80, 90])
def test_products_are_tensor_core_instructions_on_tf32(cc: int) -> None:
    (variant,) = AHEAD
    compiled = compile_ahead(variant.kernel, variant.signature, variant.constexprs, cc, variant.num_warps)
    products = [
        line for line in compiled.asm["ptx"].splitlines() if "mma" in line and ".sync" in line and "f32" in line
    ]
    assert any(".tf32" in line for line in products)
    assert not any(".bf16" in line or ".f16." in line for line in products)
