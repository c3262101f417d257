"""bfloat16 and float16 in Triton against torch and against the plain PyTorch stochastic rounding, bit for bit."""

import math

import pytest
import torch
import triton
import triton.language as tl

from sltfast.ops.reference.rounding import stochastic_round
from sltfast.triton_kernels import rounding


@triton.jit
def _round(x, words, out, back, n, KIND: tl.constexpr, STOCHASTIC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < tl.load(n)
    values = tl.load(x + i, mask=inside, other=0.0)
    random = None
    if STOCHASTIC:
        random = tl.load(words + i, mask=inside, other=0).to(tl.uint32)
    address = tl.load(out)
    rounding.store_low(address, i, values, random, inside, KIND, False)
    tl.store(back + i, rounding.load_values(address, i, inside, KIND, False), mask=inside)


def awkward(low: torch.dtype) -> torch.Tensor:
    """Values of `low` and their neighbours, halfway cases, subnormals, overflow, infinities and NaN."""
    every = torch.arange(0, 1 << 16, 37, dtype=torch.int32).to(torch.int16).view(low).float()
    every = every[every.isfinite()]
    up = torch.nextafter(every, torch.tensor(math.inf))
    halfway = (every + torch.roll(every, -1)) / 2
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 65504.0, 65519.9, 65520.0, 3.4e38, -3.4e38])
    return torch.cat([every, up, halfway, torch.logspace(-46, -4, 500), special])


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stochastic", [False, True])
def test_every_rounding_case(low, stochastic) -> None:
    x = awkward(low)
    words = torch.randint(0, 1 << 32, x.shape, generator=torch.Generator().manual_seed(0))
    words[::5], words[1::5] = 0, (1 << 32) - 1
    out, back = torch.full(x.shape, math.nan, dtype=low), torch.full(x.shape, math.nan)
    kind, block = ("bf16" if low == torch.bfloat16 else "f16"), triton.next_power_of_2(x.numel())
    where, count = torch.tensor(out.data_ptr()), torch.tensor(x.numel())
    _round[(1,)](x, words, where, back, count, KIND=kind, STOCHASTIC=stochastic, BLOCK=block)
    want = stochastic_round(x, words, low) if stochastic else x
    want = want.to(low)
    number = ~x.isnan()
    assert torch.equal(out[number].view(torch.int16), want[number].view(torch.int16))
    assert out[~number].isnan().all()
    assert torch.equal(back.nan_to_num(), out.float().nan_to_num())
