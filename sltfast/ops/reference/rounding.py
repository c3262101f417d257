"""Stochastic rounding of float32 to bfloat16 and float16, in integers."""

import torch
from torch import Tensor

_LOST = {torch.bfloat16: 16, torch.float16: 13}  # bits of a float32 significand that the dtype does not keep
_SUBNORMAL = 2.0**-14  # of float16: below it the spacing is 2^-24 whatever the exponent


def stochastic_round(values: Tensor, words: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to one of the two neighbours, to the larger magnitude with the probability of the fraction lost.

    The fraction is a whole number of 2^-k: a random k-bit number is added, and what carries is kept. k = 16 for
    bfloat16 and 13 for float16, all the bits that are lost; float16's subnormals, in units of 2^-24, keep k = 21.

    Args:
        values: float32; what the dtype holds exactly stays, and so do infinities and NaN.
        words: int64 32-bit random words of the same shape; the highest k bits are used.
        dtype: bfloat16 or float16.
    """
    k = _LOST[dtype]
    bits = values.view(torch.int32).long() & 0xFFFFFFFF
    magnitude = bits & 0x7FFFFFFF
    kept = (magnitude + (words >> (32 - k))) >> k << k
    rounded = kept.int().view(torch.float32)
    if dtype == torch.float16:
        small = values.abs() < _SUBNORMAL
        units = torch.where(small, values.abs(), 0.0) * 2.0**45  # 2^-24 in 2^-21
        rounded = torch.where(small, ((units.long() + (words >> 11)) >> 21).float() * 2.0**-24, rounded)
    return torch.where(values.isfinite(), torch.copysign(rounded, values), values).to(dtype)
