"""bfloat16 and float16 inside a kernel, as in `csrc/numerics/rounding.h`: widened exactly, rounded by either rule.

bfloat16 values travel as their 16 bits (load and store through `*u16`), because Triton's interpreter rounds them
differently from hardware; float16 is right everywhere.
"""

import triton
import triton.language as tl


@triton.jit
def from_bfloat16(bits):
    """float32 of bfloat16 values given as their bits (any 16-bit integer)."""
    return ((bits.to(tl.uint32) & 0xFFFF) << 16).to(tl.float32, bitcast=True)


@triton.jit
def to_bfloat16(x):
    """The bits (uint16) of float32 values rounded to bfloat16; a NaN stays one."""
    word = x.to(tl.uint32, bitcast=True)
    # the sum cannot overflow: what lies above infinity's word is a NaN, and selected away
    rounded = ((word & 0x7FFFFFFF) + 0x7FFF + ((word >> 16) & 1)) >> 16
    nan = ((word >> 16) & 0x7FFF) | 0x40
    magnitude = tl.where((word & 0x7FFFFFFF) > 0x7F800000, nan, rounded)
    return (magnitude | ((word >> 16) & 0x8000)).to(tl.uint16)


@triton.jit
def to_bfloat16_at_random(x, random):
    """The bits of float32 values rounded up or down: up with the probability that 16 of the word's bits leave."""
    word = x.to(tl.uint32, bitcast=True)
    special = (word & 0x7F800000) == 0x7F800000
    magnitude = ((word & 0x7FFFFFFF) + (random >> 16)) >> 16
    return tl.where(special, to_bfloat16(x), (magnitude | ((word >> 16) & 0x8000)).to(tl.uint16))


@triton.jit
def to_float16_at_random(x, random):
    """The bits of float32 values rounded up or down: 13 random bits decide, 21 below 2^-14."""
    word = x.to(tl.uint32, bitcast=True)
    magnitude = word & 0x7FFFFFFF
    small = magnitude < 0x38800000
    units = tl.where(small, magnitude, 0).to(tl.uint32).to(tl.float32, bitcast=True) * 35184372088832.0  # 2^45
    subnormal = (units.to(tl.int32).to(tl.uint32) + (random >> 11)) >> 21
    carried = (magnitude + (random >> 19)) >> 13
    normal = tl.where(carried < 0x23C00, carried - 0x1C000, 0x7C00)
    usual = tl.where(small, subnormal, normal) | ((word >> 16) & 0x8000)
    special = x.to(tl.float16).to(tl.uint16, bitcast=True)
    return tl.where(magnitude >= 0x7F800000, special, usual.to(tl.uint16))


@triton.jit
def pointer_to(address, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """A pointer from an int64; ALIGNED promises that it is a multiple of 16 bytes."""
    pointer = address.to(tl.pointer_type(dtype))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def load_values(address, offsets, mask, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Values at `address` (int64) + offsets, widened: float64 where KIND is "f64", else float32; 0 where masked."""
    if KIND == "f64":
        x = tl.load(pointer_to(address, tl.float64, ALIGNED) + offsets, mask=mask, other=0.0)
    elif KIND == "f32":
        x = tl.load(pointer_to(address, tl.float32, ALIGNED) + offsets, mask=mask, other=0.0)
    elif KIND == "f16":
        x = tl.load(pointer_to(address, tl.float16, ALIGNED) + offsets, mask=mask, other=0.0).to(tl.float32)
    else:
        x = from_bfloat16(tl.load(pointer_to(address, tl.uint16, ALIGNED) + offsets, mask=mask, other=0))
    return x


@triton.jit
def store_low(address, offsets, x, random, mask, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Round float32 values to KIND ("bf16" or "f16") and store them; to nearest where `random` is None."""
    if KIND == "bf16":
        bits = to_bfloat16(x) if random is None else to_bfloat16_at_random(x, random)
    elif random is None:
        bits = x.to(tl.float16).to(tl.uint16, bitcast=True)
    else:
        bits = to_float16_at_random(x, random)
    tl.store(pointer_to(address, tl.uint16, ALIGNED) + offsets, bits, mask=mask)
