"""Chan's rule and what is read from moments, as `csrc/numerics/moments.h`."""

import triton
import triton.language as tl


@triton.jit
def merge_share(n, m):
    """M / (n + m), 0 where nothing is counted."""
    total = n + m
    return tl.where(total > 0, m / tl.where(total > 0, total, 1.0), 0.0)


@triton.jit
def inverse_root(m2):
    """1/√m2, and 0 for a variable that does not vary."""
    varies = m2 >= 2.2250738585072014e-308
    return tl.where(varies, 1.0 / tl.sqrt(tl.where(varies, m2, 1.0)), 0.0)


@triton.jit
def correlation(s, inverse_x, inverse_y):
    """S / √(m2_x·m2_y), held to [−1, 1]; NaN stays NaN."""
    r = s * (inverse_x * inverse_y)
    return tl.where(r > 1, 1.0, tl.where(r < -1, -1.0, r))
