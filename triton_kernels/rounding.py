"""bfloat16 and float16 inside a kernel, as `csrc/numerics/rounding.h`: exact widening, rounding to nearest even.

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
def load_values(address, offsets, mask, KIND: tl.constexpr):
    """Values at `address` (int64) + offsets, widened: float64 where KIND is "f64", else float32; 0 where masked."""
    if KIND == "f64":
        x = tl.load(address.to(tl.pointer_type(tl.float64)) + offsets, mask=mask, other=0.0)
    elif KIND == "f32":
        x = tl.load(address.to(tl.pointer_type(tl.float32)) + offsets, mask=mask, other=0.0)
    elif KIND == "f16":
        x = tl.load(address.to(tl.pointer_type(tl.float16)) + offsets, mask=mask, other=0.0).to(tl.float32)
    else:
        x = from_bfloat16(tl.load(address.to(tl.pointer_type(tl.uint16)) + offsets, mask=mask, other=0))
    return x
