"""Random words and normals inside a kernel, bit for bit those of `csrc/numerics/philox.h` and `gaussian.h`.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
    counter = (group low, group high | stream << 24, step, chain),  key = (seed low, seed high),  group = element / 4;
word e % 4 of a counter belongs to element e of the full model.
"""

import triton
import triton.language as tl

from sltfast.triton_kernels.ahead import Ahead

_M0 = tl.constexpr(0xD2511F53)
_M1 = tl.constexpr(0xCD9E8D57)
_W0 = tl.constexpr(0x9E3779B9)
_W1 = tl.constexpr(0xBB67AE85)


@triton.jit
def _word(x):
    """The low 32 bits of an integer, as uint32."""
    return x.to(tl.uint32)


@triton.jit
def _product(word, multiplier: tl.constexpr):
    """High and low word of a 64-bit product: one widening multiplication."""
    wide = word.to(tl.uint64) * tl.full((), multiplier, tl.uint64)
    return (wide >> 32).to(tl.uint32), wide.to(tl.uint32)


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """The four words of Philox4x32-10; counter and key are uint32 scalars or blocks that broadcast."""
    for round in tl.static_range(10):
        high0, low0 = _product(c0, _M0)
        high1, low1 = _product(c2, _M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        if round < 9:
            # through 64 bits, where the sum cannot overflow
            k0 = (k0.to(tl.uint64) + _W0).to(tl.uint32)
            k1 = (k1.to(tl.uint64) + _W1).to(tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def words_of_groups(seed, stream, step, chain, group):
    """The four words of every group; int64 scalars, and `group` an int64 block of element / 4."""
    tag = stream << 24  # an int64 scalar or a constexpr
    high = ((group >> 32) & 0xFFFFFF | tag).to(tl.uint32)
    return philox4x32(_word(group), high, _word(step), _word(chain), _word(seed), _word(seed >> 32))


@triton.jit
def minus_two_log(z):
    """−2 ln(z/2^31) for z in [½, 2^31], float32: z = 2^k·(1 + f) with 1 + f in [√½, √2), exactly."""
    bits = z.to(tl.int32, bitcast=True)
    k23 = (bits - 0x3F3504F3) & -0x800000  # k·2^23; 0x3F3504F3 = √½
    f = (bits - k23).to(tl.float32, bitcast=True) - 1.0
    # −2 ln(1 + f) = f·(−2 + f·P(f)); minimax, relative error 3e-8
    p = tl.fma(f, -0.17469672858715057, 0.28615036606788635)
    p = tl.fma(p, f, -0.2983594834804535)
    p = tl.fma(p, f, 0.33141016960144043)
    p = tl.fma(p, f, -0.39924144744873047)
    p = tl.fma(p, f, 0.5000351071357727)
    p = tl.fma(p, f, -0.6666790246963501)
    p = tl.fma(p, f, 0.9999998211860657)
    p = tl.fma(p, f, -2.0) * f
    # (31 − k)·2 ln 2, with k still times 2^23
    return tl.fma(((31 << 23) - k23).to(tl.float32), 1.3862943611198906 / 8388608.0, p)


@triton.jit
def box_muller(x0, x1):
    """Two float32 normals ξ0 = √(−2 ln u)·cos θ, ξ1 = √(−2 ln u)·sin θ of two words.

    u = (⌊x0/2⌋ + ½)/2^31 rounded to float32, θ = 2π·x1/2^32; within 2e-6 of the exact value.
    """
    radius = tl.sqrt_rn(minus_two_log((x0 >> 1).to(tl.int32).to(tl.float32) + 0.5))
    # θ = turn·π + q·π/2 with q in [−1, 1]; a half turn flips the sign of both
    turn = (x1 ^ (x1 << 1)) & 0x80000000
    q = (x1 ^ turn).to(tl.int32, bitcast=True).to(tl.float32) * 9.313225746154785e-10  # 2^-30
    signed_radius = (radius.to(tl.uint32, bitcast=True) ^ turn).to(tl.float32, bitcast=True)
    z = q * q
    # sin(πq/2)/q and cos(πq/2); minimax, absolute error 4e-9 and 5e-8
    s = tl.fma(z, 0.00015082057507243007, -0.004672227893024683)
    s = tl.fma(s, z, 0.07968848198652267)
    s = tl.fma(s, z, -0.6459633708000183)
    s = tl.fma(s, z, 1.570796251296997)
    c = tl.fma(z, 0.0008596900734119117, -0.020813966169953346)
    c = tl.fma(c, z, 0.2536531984806061)
    c = tl.fma(c, z, -1.233698844909668)
    c = tl.fma(c, z, 1.0)
    return signed_radius * c, signed_radius * (s * q)


@triton.jit
def elements_in_order(x0, x1, x2, x3):
    """[4·G] of four blocks [G]: x0[0], x1[0], x2[0], x3[0], x0[1], …"""
    return tl.reshape(tl.join(tl.join(x0, x2), tl.join(x1, x3)), (4 * x0.shape[0],))


@triton.jit
def normals_of_groups(seed, stream, step, chain, group):
    """The normals of elements 4j..4j+3 for every j in `group` [G], in element order: float32 [4·G].

    Each thread holds its own groups' normals: nothing moves between threads.
    """
    x0, x1, x2, x3 = words_of_groups(seed, stream, step, chain, group)
    n0, n1 = box_muller(x0, x1)
    n2, n3 = box_muller(x2, x3)
    return elements_in_order(n0, n1, n2, n3)


@triton.jit
def normals_of_elements(seed, stream, step, chain, element):
    """The normals of any elements (an int64 block), float32: each draws its pair; four times the work of groups."""
    x0, x1, x2, x3 = words_of_groups(seed, stream, step, chain, element >> 2)
    second = (element & 2) != 0
    cosine, sine = box_muller(tl.where(second, x2, x0), tl.where(second, x3, x1))
    return tl.where((element & 1) != 0, sine, cosine)


@triton.jit
def word_of_elements(seed, stream, step, chain, element):
    """The word that belongs to each of any elements (an int64 block), uint32."""
    x0, x1, x2, x3 = words_of_groups(seed, stream, step, chain, element >> 2)
    odd = (element & 1) != 0
    return tl.where((element & 2) != 0, tl.where(odd, x3, x2), tl.where(odd, x1, x0))


@triton.jit
def fill_normals(out, ids, count, BLOCK: tl.constexpr):
    """Normals of elements 0 .. count − 1, 16 bytes at a time; `ids` (int64) holds seed, stream, step and chain."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    groups = (first >> 2) + tl.arange(0, BLOCK // 4)
    normals = normals_of_groups(tl.load(ids), tl.load(ids + 1), tl.load(ids + 2), tl.load(ids + 3), groups)
    offsets = first + tl.arange(0, BLOCK)
    tl.store(out + offsets, normals, mask=offsets < tl.load(count))


AHEAD = (
    Ahead(
        "normals fp32",
        fill_normals,
        {"out": "*fp32", "ids": "*i64", "count": "*i64"},
        {"BLOCK": 512},
        num_warps=4,
    ),
)
