"""Learning coefficients λ and multiplicities m that are known in closed form.

λ and m are those of the volume V(ε) = ∫_{L < L* + ε} φ(w) dw ~ c ε^λ (−log ε)^(m−1), ε → 0 (Watanabe 2009).
They are what λ̂ = nβ (E[L] − L*) tends to as nβ → ∞; when m > 1 it does so only logarithmically, so compare
finite-nβ estimates with `sltfast.theory.quadrature_llc` and not with λ.
"""

from collections.abc import Sequence
from fractions import Fraction
from operator import index

__all__ = [
    "dln_learning_coefficient",
    "monomial_learning_coefficient",
    "rrr_learning_coefficient",
    "separable_learning_coefficient",
]


def dln_learning_coefficient(widths: Sequence[int], rank: int) -> tuple[float, int]:
    """Learning coefficient of a deep linear network y = B_L ⋯ B_1 x at a true map of the given rank.

    With widths H_0 … H_L and M_s = H_s − r, let Σ ⊂ {0 … L}, |Σ| = l + 1, be the set with
    max_Σ M < min_{Σᶜ} M, Σ_Σ M ≥ l · max_Σ M and Σ_Σ M < l · min_{Σᶜ} M.
    Write S = Σ_Σ M, M = ⌈S/l⌉, a = S − (M − 1) l. Then

        λ = ½ (r (H_0 + H_L) − r²) + a (l − a)/(4l) − ¼ l (l − 1) (S/l)² + ½ Σ_{i<j ∈ Σ} M_i M_j,
        m = a (l − a) + 1.

    Source: M. Aoyagi, "Consideration on the learning efficiency of multiple-layered neural networks with
    linear units", Neural Networks 172 (2024).

    Args:
        widths: H_0 … H_L from the input to the output, at least two of them.
        rank: r, the rank of the true product, at most the smallest width.

    Returns:
        (λ, m); λ is exact: a multiple of 1/(4l) rounded once to a float.

    Raises:
        ValueError: fewer than two widths, a width < 1, or a rank outside 0 … min(widths).
        TypeError: a width or the rank is not an integer.
    """
    sizes = [index(width) for width in widths]
    r = index(rank)
    if len(sizes) < 2:
        raise ValueError(f"widths must name at least an input and an output size, got {list(widths)}")
    if min(sizes) < 1:
        raise ValueError(f"widths must be >= 1, got {sizes}")
    if not 0 <= r <= min(sizes):
        raise ValueError(f"rank must be in 0 … {min(sizes)} (the smallest of widths {sizes}), got {r}")

    excess = sorted(size - r for size in sizes)  # Σ is a prefix of the sorted M_s
    chosen = excess
    for size in range(2, len(excess)):
        inside, next_out = excess[:size], excess[size]
        total, layers = sum(inside), size - 1
        if inside[-1] < next_out and layers * inside[-1] <= total < layers * next_out:
            chosen = inside
            break

    layers = len(chosen) - 1
    total = sum(chosen)
    a = total - (-(-total // layers) - 1) * layers
    pairs = (total**2 - sum(m * m for m in chosen)) // 2  # Σ_{i<j} M_i M_j
    value = (
        Fraction(r * (sizes[0] + sizes[-1]) - r * r, 2)
        + Fraction(a * (layers - a), 4 * layers)
        - Fraction((layers - 1) * total * total, 4 * layers)
        + Fraction(pairs, 2)
    )
    return float(value), a * (layers - a) + 1


def rrr_learning_coefficient(M: int, H: int, N: int, r: int) -> tuple[float, int]:
    """Learning coefficient of reduced rank regression y = B A x, A: H × M, B: N × H, at a true map of rank r.

    1. N + r ≤ M + H, M + r ≤ N + H, H + r ≤ M + N:
       λ = [2(H + r)(M + N) + 2MN − (H + r)² − M² − N²]/8, m = 1, if M + H + N + r is even;
       the same with + 1 in the bracket, m = 2, if it is odd.
    2. M + H < N + r: λ = (HM − Hr + Nr)/2, m = 1.
    3. N + H < M + r: λ = (HN − Hr + Mr)/2, m = 1.
    4. M + N < H + r: λ = MN/2, m = 1.

    Source: M. Aoyagi and S. Watanabe, "Stochastic complexities of reduced rank regression in Bayesian
    estimation", Neural Networks 18 (2005). It is the case L = 2 of `dln_learning_coefficient([M, H, N], r)`.

    Args:
        M: input size.
        H: hidden size.
        N: output size.
        r: rank of the true map, at most min(M, H, N).

    Returns:
        (λ, m).

    Raises:
        ValueError: a size < 1 or a rank outside 0 … min(M, H, N).
        TypeError: an argument is not an integer.
    """
    M, H, N, r = index(M), index(H), index(N), index(r)
    if min(M, H, N) < 1:
        raise ValueError(f"M, H and N must be >= 1, got M={M}, H={H}, N={N}")
    if not 0 <= r <= min(M, H, N):
        raise ValueError(f"r must be in 0 … {min(M, H, N)} (the smallest of M={M}, H={H}, N={N}), got {r}")

    if N + r > M + H:
        return (H * M - H * r + N * r) / 2, 1
    if M + r > N + H:
        return (H * N - H * r + M * r) / 2, 1
    if H + r > M + N:
        return M * N / 2, 1
    eightfold = 2 * (H + r) * (M + N) + 2 * M * N - (H + r) ** 2 - M * M - N * N
    odd = (M + H + N + r) % 2
    return (eightfold + odd) / 8, 1 + odd


def monomial_learning_coefficient(k: Sequence[int], h: Sequence[int] | None = None) -> tuple[float, int]:
    """Learning coefficient of the normal crossing K(w) = ∏ w_i^(2k_i) under a prior ∝ ∏ |w_i|^(h_i) near 0.

        λ = min_i (h_i + 1)/(2k_i) over the i with k_i > 0,    m = number of i that attain it.

    Source: S. Watanabe, "Algebraic Geometry and Statistical Learning Theory", Cambridge (2009), §4.

    Args:
        k: half exponents k_1 … k_d, not all zero.
        h: exponents h_1 … h_d of the prior or Jacobian; zero when omitted.

    Returns:
        (λ, m).

    Raises:
        ValueError: a negative k_i or h_i, no k_i > 0, or k and h of different length.
        TypeError: an exponent is not an integer.
    """
    half = [index(exponent) for exponent in k]
    jacobian = [0] * len(half) if h is None else [index(exponent) for exponent in h]
    if len(jacobian) != len(half):
        raise ValueError(f"k and h must have one entry per coordinate, got {len(half)} and {len(jacobian)}")
    if any(exponent < 0 for exponent in half + jacobian):
        raise ValueError(f"exponents must be >= 0, got k={half}, h={jacobian}")
    ratios = [Fraction(hi + 1, 2 * ki) for ki, hi in zip(half, jacobian, strict=True) if ki > 0]
    if not ratios:
        raise ValueError(f"K must depend on w: at least one k_i must be > 0, got k={half}")
    smallest = min(ratios)
    return float(smallest), ratios.count(smallest)


def separable_learning_coefficient(powers: Sequence[int]) -> tuple[float, int]:
    """Learning coefficient of K(w) = Σ c_i w_i^(p_i) with c_i > 0 and even p_i.

        λ = Σ 1/p_i,    m = 1.

    Without localization E[nβ K] = Σ 1/p_i holds at every nβ, not only in the limit: nβ c_i w_i^(p_i) is
    Gamma(1/p_i, 1).

    Args:
        powers: p_1 … p_d, even and >= 2.

    Returns:
        (λ, m).

    Raises:
        ValueError: no powers, or a power that is odd or < 2.
        TypeError: a power is not an integer.
    """
    exponents = [index(power) for power in powers]
    if not exponents:
        raise ValueError("powers must name at least one coordinate, got none")
    if any(power < 2 or power % 2 for power in exponents):
        raise ValueError(f"powers must be even and >= 2 (0 is then an isolated minimum), got {exponents}")
    return float(sum(Fraction(1, power) for power in exponents)), 1
