// Standard normals from Philox words by Box–Muller:
//   u = (⌊x0/2⌋ + ½)/2^31 rounded to float, θ = 2π·x1/2^32,  ξ0 = √(−2 ln u)·cos θ,  ξ1 = √(−2 ln
//   u)·sin θ.
// Within 2e-6 of the exact value over all words, and the same bits wherever fma is fused.
#pragma once

#include "philox.h"

namespace sltfast {
inline namespace SLT_ISA {

// −2 ln(z/2^31) for z in [½, 2^31]: z = 2^k·(1 + f) with 1 + f in [√½, √2), exactly.
template <class L>
SLT_HD typename L::Real minus_two_log(typename L::Real z) {
  using Real = typename L::Real;
  using Int = typename L::Int;
  const Int bits = L::bits(z);
  const Int k23 = (bits - 0x3F3504F3) & ~0x7FFFFF;  // k·2^23; 0x3F3504F3 = √½
  const Real f = L::from_bits(bits - k23) - 1.0f;
  // −2 ln(1 + f) = f·(−2 + f·P(f)); minimax, relative error 3e-8
  Real p = L::broadcast(-0.17469672858715057f);
  p = L::fma(p, f, L::broadcast(0.28615036606788635f));
  p = L::fma(p, f, L::broadcast(-0.2983594834804535f));
  p = L::fma(p, f, L::broadcast(0.33141016960144043f));
  p = L::fma(p, f, L::broadcast(-0.39924144744873047f));
  p = L::fma(p, f, L::broadcast(0.5000351071357727f));
  p = L::fma(p, f, L::broadcast(-0.6666790246963501f));
  p = L::fma(p, f, L::broadcast(0.9999998211860657f));
  p = L::fma(p, f, L::broadcast(-2.0f)) * f;
  // (31 − k)·2 ln 2, with k still times 2^23
  return L::fma(L::from_int((31 << 23) - k23), L::broadcast(0x1p-23f * 1.3862943611198906f), p);
}

template <class L>
SLT_HD void box_muller(typename L::Word x0, typename L::Word x1, typename L::Real& cosine,
                       typename L::Real& sine) {
  using Real = typename L::Real;
  using Int = typename L::Int;
  const Real radius = L::root(minus_two_log<L>(L::from_int((Int)(x0 >> 1)) + 0.5f));
  // θ = turn·π + q·π/2 with q in [−1, 1]; a half turn flips the sign of both
  const typename L::Word turn = (x1 + 0x40000000u) & 0x80000000u;
  const Real q = L::from_int((Int)(x1 ^ turn)) * 0x1p-30f;
  const Real signed_radius = L::from_bits(L::bits(radius) ^ (Int)turn);
  const Real z = q * q;
  // sin(πq/2)/q and cos(πq/2); minimax, absolute error 4e-9 and 5e-8
  Real s = L::broadcast(0.00015082057507243007f);
  s = L::fma(s, z, L::broadcast(-0.004672227893024683f));
  s = L::fma(s, z, L::broadcast(0.07968848198652267f));
  s = L::fma(s, z, L::broadcast(-0.6459633708000183f));
  s = L::fma(s, z, L::broadcast(1.570796251296997f));
  Real c = L::broadcast(0.0008596900734119117f);
  c = L::fma(c, z, L::broadcast(-0.020813966169953346f));
  c = L::fma(c, z, L::broadcast(0.2536531984806061f));
  c = L::fma(c, z, L::broadcast(-1.233698844909668f));
  c = L::fma(c, z, L::broadcast(1.0f));
  cosine = signed_radius * c;
  sine = signed_radius * (s * q);
}

// The four words of `width` groups, word by word, N times over: 4·N of them.
template <class L, int N = 1>
SLT_HD void words_of_groups(const PhiloxStream<L>& stream, const uint32_t* groups,
                            typename L::Word* x) {
  using Wide = typename L::Wide;
  Wide counters[N * L::halves], words[4][N * L::halves];
  SLT_UNROLL(8)
  for (int n = 0; n < N; ++n) L::load_counters(groups + n * L::width, counters + n * L::halves);
  philox_words<L, N * L::halves>(stream, counters, words);
  SLT_UNROLL(8)
  for (int n = 0; n < N; ++n)
    for (int i = 0; i < 4; ++i) x[4 * n + i] = L::narrow(words[i] + n * L::halves);
}

// The 4·width normals of `width` groups, in memory order, N times over.
template <class L, int N = 1>
SLT_HD void normals_of_groups(const PhiloxStream<L>& stream, const uint32_t* groups,
                              typename L::Value* out) {
  typename L::Word x[4 * N];
  words_of_groups<L, N>(stream, groups, x);
  SLT_UNROLL(8)
  for (int n = 0; n < N; ++n) {
    typename L::Real n0, n1, n2, n3;
    box_muller<L>(x[4 * n], x[4 * n + 1], n0, n1);
    box_muller<L>(x[4 * n + 2], x[4 * n + 3], n2, n3);
    L::store_groups(out + 4 * n * L::width, n0, n1, n2, n3);
  }
}

}  // namespace SLT_ISA
}  // namespace sltfast
