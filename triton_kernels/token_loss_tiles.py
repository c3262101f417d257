"""A tile of logits z = s·tanh(κ·(⟨h_n, w_v⟩ + b_v)/s) in registers: both directions of `token_loss` are made of it."""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.triton_kernels.rounding import from_bfloat16, to_bfloat16

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def tangent(x):
    """Tanh of float32 or float64 within 3e-7 relative, the form of `csrc/numerics/logsumexp.h`; NaN stays NaN."""
    size = tl.abs(x)
    y = x * x
    p = -0.0055150851 * y + 0.0204693470
    p = p * y - 0.0536880009
    p = p * y + 0.1333083063
    p = p * y - 0.3333325982
    doubled = 2.0 * tl.where(size > 10.0, 10.0, size)
    large = 1.0 - 2.0 / (tl.exp(doubled) + 1.0)
    return tl.where(size < 0.65, p * y * x + x, tl.where(x < 0.0, -large, large))


@triton.jit
def logits(
    hidden, unembedding, bias, rule, row, column, tokens, vocabulary, depth, w_row, w_column,
    PRECISION: tl.constexpr, LOW: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr, SUM: tl.constexpr,
    DEPTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Logits and dz/da of tokens `row` by entries `column` (int64 blocks); `rule` holds κ and s in float64."""
    z = tl.zeros((row.shape[0], column.shape[0]), SUM)
    for start in range(0, depth, DEPTH):
        k = start + tl.arange(0, DEPTH).to(tl.int64)
        h = tl.load(
            hidden + row[:, None] * depth + k[None, :],
            mask=(row[:, None] < tokens) & (k[None, :] < depth), other=0.0,
        )  # fmt: skip
        w = tl.load(
            unembedding + column[None, :] * w_row + k[:, None] * w_column,
            mask=(column[None, :] < vocabulary) & (k[:, None] < depth), other=0.0,
        )  # fmt: skip
        if LOW and WIDE:
            h, w = from_bfloat16(to_bfloat16(h)), from_bfloat16(to_bfloat16(w))
        elif LOW:
            h, w = h.to(tl.bfloat16), w.to(tl.bfloat16)
        elif WIDE:
            h, w = h.to(SUM), w.to(SUM)
        z = tl.dot(h, w, z, input_precision=PRECISION, out_dtype=SUM)
    if BIASED:
        z += tl.load(bias + column, mask=column < vocabulary, other=0.0).to(SUM)[None, :]
    scale, cap = tl.load(rule).to(SUM), tl.load(rule + 1).to(SUM)
    z = z * scale
    slope = tl.zeros_like(z) + scale
    if CAPPED:
        t = tangent(z / cap)
        z = cap * t
        slope = scale * (1.0 - t * t)
    return z, slope


def rule_of(scale: float, softcap: float, device: torch.device) -> Tensor:
    """κ and s on the device, filled there: a copy from the host could not be captured in a CUDA graph."""
    rule = torch.full((2,), scale, dtype=torch.float64, device=device)
    rule[1].fill_(softcap)
    return rule


def constants_of(hidden: Tensor, bias: Tensor | None, softcap: float, precision: str) -> dict[str, object]:
    """What a kernel is specialised by: dtypes, precision, and which parts the logits have; never a number."""
    single = hidden.dtype == torch.float32
    return {
        "PRECISION": "tf32" if single and precision == "tf32" else "ieee",
        "LOW": single and precision == "bf16",
        "BIASED": bias is not None,
        "CAPPED": softcap > 0,
        "SUM": tl.float64 if hidden.dtype == torch.float64 else tl.float32,
        # 32 deep spills with float32 operands on sm_80
        "DEPTH": 32 if hidden.element_size() == 2 and hidden.shape[2] > 16 else 16,
        # the interpreter multiplies bfloat16 operands as integers, and rounds to it differently from hardware
        "WIDE": INTERPRETED,
    }


def chain(shared: Tensor | None, c: int, like: Tensor) -> Tensor:
    """The entry of chain `c` (or the one for all); `like` stands in for nothing."""
    return like if shared is None else shared[c if shared.shape[0] > 1 else 0]
