// Exponential, tanh and the pieces of a streamed logsumexp:
//   z = s·tanh(κ·(a + b)/s)  (s = 0: no cap),   lse = m + ln Σ_v exp(z_v − m).
// In float the exponential is within 1.5e-7 of exact, relative, and 0 below −87; the tanh is within
// 3e-7, relative. Both hand NaN through. Doubles take the library's functions.
#pragma once

#include "scalar.h"

namespace sltfast {
inline namespace SLT_ISA {

// e^x for x <= 88.
template <class L>
SLT_HD typename L::Real exponential(typename L::Real x) {
  using Real = typename L::Real;
  using Word = typename L::Word;
  using Int = typename L::Int;
  if constexpr (sizeof(typename L::Value) == 8) {
#if defined(__CUDA_ARCH__)
    return exp(x);
#else
    return __builtin_exp(x);
#endif
  } else {
    // x = n·ln 2 + r with |r| <= ½ ln 2; adding 1.5·2^23 rounds to n and leaves it in the low bits.
    const Real shifted = L::fma(x, L::broadcast(1.44269504f), L::broadcast(12582912.0f));
    const Real n = shifted - 12582912.0f;
    Real r = L::fma(n, L::broadcast(-0.693359375f), x);
    r = L::fma(n, L::broadcast(2.12194440e-4f), r);
    // e^r = 1 + r + r²·Q(r); minimax, relative error 3e-9
    Real q = L::broadcast(0.0013814467f);
    q = L::fma(q, r, L::broadcast(0.0083687808f));
    q = L::fma(q, r, L::broadcast(0.0416683927f));
    q = L::fma(q, r, L::broadcast(0.1666651964f));
    q = L::fma(q, r, L::broadcast(0.4999999404f));
    const Real p = L::fma(q, r * r, r) + 1.0f;
    // times 2^n: not added to the exponent of p, which would turn NaN into a number
    const Real power = L::from_bits((Int)(((Word)L::bits(shifted) + 127u) << 23));
    return L::select(L::below(x, L::broadcast(-87.0f)), L::broadcast(0), p * power);
  }
}

template <class L>
SLT_HD typename L::Real hyperbolic_tangent(typename L::Real x) {
  using Real = typename L::Real;
  using Int = typename L::Int;
  if constexpr (sizeof(typename L::Value) == 8) {
#if defined(__CUDA_ARCH__)
    return tanh(x);
#else
    return __builtin_tanh(x);
#endif
  } else {
    const Int sign = L::bits(x) & static_cast<int32_t>(0x80000000u);
    const Real size = L::from_bits(L::bits(x) ^ sign);
    // tanh x = x + x³·P(x²) up to 0.65; minimax, relative error 7e-9
    const Real y = x * x;
    Real p = L::broadcast(-0.0055150851f);
    p = L::fma(p, y, L::broadcast(0.0204693470f));
    p = L::fma(p, y, L::broadcast(-0.0536880009f));
    p = L::fma(p, y, L::broadcast(0.1333083063f));
    p = L::fma(p, y, L::broadcast(-0.3333325982f));
    const Real small = L::fma(p * y, x, x);
    // 1 − 2/(e^2|x| + 1); at 10 it is 1, and lower(10, NaN) is NaN
    const Real doubled = L::lower(L::broadcast(10.0f), size) * 2.0f;
    const Real large = 1.0f - 2.0f / (exponential<L>(doubled) + 1.0f);
    const Real signed_large = L::from_bits(L::bits(large) | sign);
    return L::select(L::below(size, L::broadcast(0.65f)), small, signed_large);
  }
}

// From a product a = ⟨h, w_v⟩ and a bias to the logit z, and back: dz/da.
template <class L>
struct LogitRule {
  using Real = typename L::Real;
  Real scale, cap, inverse_cap;
  bool capped;

  SLT_HD LogitRule(double scale, double cap)
      : scale(L::broadcast(scale)),
        cap(L::broadcast(cap)),
        inverse_cap(L::broadcast(cap > 0 ? 1.0 / cap : 0.0)),
        capped(cap > 0) {}

  SLT_HD Real logit(Real product) const {
    const Real z = scale * product;
    return capped ? cap * hyperbolic_tangent<L>(z * inverse_cap) : z;
  }
  SLT_HD Real slope(Real z) const {
    if (!capped) return scale;
    const Real t = z * inverse_cap;
    return scale * L::fma(-t, t, L::broadcast(1));
  }
};

// What exp subtracts: the largest logit, or 0 where that is infinite (−∞: every term is then 0).
template <class T>
SLT_HD T shift_of(T largest) {
  return largest - largest == T(0) ? largest : T(0);
}

// ln Σ exp of a row, in parts that merge: Σ = sum·exp(shift_of(largest)).
struct Partial {
  double largest, sum;
};

SLT_HD double sum_at(Partial p, double shift) {
  const double own = shift_of(p.largest);
  // a part of nothing but −∞ holds 0, whatever it would be scaled by
  if (own == shift || p.sum == 0) return p.sum;
  return p.sum * exponential<Scalar<double>>(own - shift);
}

SLT_HD Partial merged(Partial a, Partial b) {
  const double largest = a.largest > b.largest ? a.largest : b.largest;
  const double shift = shift_of(largest);
  return {largest, sum_at(a, shift) + sum_at(b, shift)};
}

}  // namespace SLT_ISA
}  // namespace sltfast
