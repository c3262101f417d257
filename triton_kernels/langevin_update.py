"""The arithmetic of one Langevin update in a kernel, operation for operation that of `csrc/numerics/langevin.h`:

d = nβ·g + λ·w + γ·(w − w*);  w ← w − (ε/2)·G·d + √ε·σ·√G·ξ;  then clamp to w* ± b.
With momentum: m ← (1 − ζ)·m − (ε/2)·d + √(A·ε)·σ·ξ;  w ← w + m;  where clamped, m ← −m.
G = 1, or 1/(√v̂ + eps) with v ← α·v + (1 − α)·g², v̂ = v·correction.
"""

import triton
import triton.language as tl


@triton.jit
def root(x):
    """√x, correctly rounded."""
    return tl.sqrt_rn(x) if x.dtype == tl.float32 else tl.sqrt(x)


@triton.jit
def reciprocal(x):
    """1/x, correctly rounded."""
    return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), x) if x.dtype == tl.float32 else 1.0 / x


@triton.jit
def bias_correction(alpha, step):
    """1/(1 − α^{t+1}), float64, without cancellation: 1 − α^{m+n} = q_m + (1 − q_m)·q_n with q_n = 1 − α^n."""
    q = tl.full((), 0.0, tl.float64)
    power = 1.0 - alpha
    n = step + 1
    while n > 0:
        if n % 2 == 1:
            q = tl.fma(1.0 - q, power, q)
        power = power * (2.0 - power)
        n = n // 2
    return 1.0 / q


@triton.jit
def noise_scale(lr, sigma, friction, INERT: tl.constexpr):
    """√ε·σ, or √(A·ε)·σ with momentum; float64."""
    if INERT:
        lr = friction * lr
    return tl.sqrt(lr) * sigma


@triton.jit
def plain_increment(lr, n_beta, gamma, decay, noise, g, w, distance, xi, T: tl.constexpr):
    """−(ε/2)·d + noise·ξ in T; the chain's ε, nβ, γ, λ and noise (√ε·σ) are float64 scalars."""
    minus_half = -0.5 * lr
    pulled = tl.fma(w, (minus_half * decay).to(T), noise.to(T) * xi)
    return tl.fma(g, (minus_half * n_beta).to(T), tl.fma(distance, (minus_half * gamma).to(T), pulled))


@triton.jit
def prior_of(gamma, decay, w, distance, T: tl.constexpr):
    """γ·(w − w*) + λ·w in T."""
    return tl.fma(distance, gamma.to(T), decay.to(T) * w)


@triton.jit
def preconditioned_increment(lr, n_beta, noise, g, prior, xi, root_g, T: tl.constexpr):
    """−(ε/2)·G·(nβ·g + prior) + noise·√G·ξ in T."""
    drift = (-0.5 * lr).to(T) * (root_g * root_g)
    return tl.fma(drift, tl.fma(g, n_beta.to(T), prior), (noise.to(T) * root_g) * xi)


@triton.jit
def add_to(cell, first, x):
    """Add Σx of a block to this program's own cell (float64); the `first` of a launch overwrites it.

    One thread owns the cell: it alone writes, and reads what it wrote.
    """
    sum = tl.sum(x).to(tl.float64)
    tl.store(cell, sum + tl.load(cell, mask=first == 0, other=0.0))


@triton.jit
def metric_of(i: tl.constexpr, sum, hyper, noise):
    """Number i of `metrics` from its raw sum, float64: norms of the parts (0–5), then their dot products."""
    half = 0.5 * tl.load(hyper)
    gradient = half * tl.load(hyper + 1)
    if i < 2:
        factor = gradient * gradient
    elif i == 2:
        factor = half * half * tl.load(hyper + 2) * tl.load(hyper + 2)
    elif i == 3:
        factor = half * half * tl.load(hyper + 3) * tl.load(hyper + 3)
    elif i == 4:
        factor = noise * noise
    elif i == 5:
        factor = tl.full((), 1.0, tl.float64)
    elif i == 6:
        factor = gradient * half
    elif i == 7:
        factor = gradient * noise
    else:
        factor = half * noise
    return tl.sqrt(factor * sum) if i < 6 else factor * sum
