"""Linear layers in TF32, layer by layer: torch's own switch is a global flag.

y = round(x)·round(W)ᵀ + b with round to 10 bits of mantissa (nearest, ties away from zero, as tensor cores take their
operands), products exact, sums in float32; the two products of the backward likewise. On CUDA devices with Triton the
tensor cores do it; elsewhere the rounding is explicit, which shows the effect and not the speed.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_DROPPED = 13  # of float32's 23 bits of mantissa


def round_tf32(x: Tensor) -> Tensor:
    """Float32 values rounded to TF32's 10 bits of mantissa, ties away from zero; infinities and NaN are kept."""
    bits = x.view(torch.int32)
    rounded = (bits + (1 << (_DROPPED - 1))) & -(1 << _DROPPED)
    return torch.where(torch.isfinite(x), rounded.view(torch.float32), x)


def tf32_matmul(a: Tensor, b: Tensor) -> Tensor:
    """[M, K] × [K, N] float32 in TF32."""
    if a.is_cuda and find_spec("triton") is not None:
        from sltfast.triton_kernels.tf32_matmul import matmul

        return matmul(a, b)
    return round_tf32(a) @ round_tf32(b)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return tf32_matmul(x, weight.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        return (
            tf32_matmul(grad, weight) if ctx.needs_input_grad[0] else None,
            tf32_matmul(grad.t(), x) if ctx.needs_input_grad[1] else None,
        )


def tf32_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [..., in] · weight [out, in]ᵀ + bias, in TF32; other dtypes than float32 take torch's own product."""
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        return torch.nn.functional.linear(x, weight, bias)
    y = _Product.apply(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias
