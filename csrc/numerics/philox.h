// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//   counter = (group low, group high | stream << 24, step, chain),  key = (seed low, seed high),
//   group = element / 4: word e % 4 of a counter belongs to element e of the full model.
#pragma once

#include "host_device.h"

namespace sltfast {
inline namespace SLT_ISA {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

// The stream of the words that round a low-precision copy (sltfast/ops/streams.py names all).
constexpr uint32_t kStreamRounding = 3;

// Everything but the first counter word, broadcast, with the first two rounds run as far as that
// word lets them: two of the twenty multiplications and some of the xors are the same for every
// coordinate of a chain.
template <class L>
struct PhiloxStream {
  using Wide = typename L::Wide;
  Wide c3_k1;   // chain ^ key: joins the high product of round 1
  Wide a1_k0;   // joins the high product of round 2
  Wide p0_k1;   // high(M0·a0) ^ key of round 2
  Wide p0_low;  // low(M0·a0)
  Wide key[8][2];

  SLT_HD PhiloxStream(uint64_t seed, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    const uint64_t p1 = static_cast<uint64_t>(c2) * kPhiloxM1;
    const uint32_t a0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint64_t p0 = static_cast<uint64_t>(a0) * kPhiloxM0;
    c3_k1 = L::broadcast_wide(c3 ^ k1);
    k0 += kPhiloxW0, k1 += kPhiloxW1;
    a1_k0 = L::broadcast_wide(static_cast<uint32_t>(p1) ^ k0);
    p0_k1 = L::broadcast_wide(static_cast<uint32_t>(p0 >> 32) ^ k1);
    p0_low = L::broadcast_wide(static_cast<uint32_t>(p0));
    for (int r = 0; r < 8; ++r) {
      k0 += kPhiloxW0, k1 += kPhiloxW1;
      key[r][0] = L::broadcast_wide(k0), key[r][1] = L::broadcast_wide(k1);
    }
  }
};

// The words of N counters. The ten rounds of one are a chain of dependent operations, longer than a
// CPU looks ahead: N chains side by side keep its multipliers busy.
template <class L, int N>
SLT_HD void philox_words(const PhiloxStream<L>& s, const typename L::Wide counters[N],
                         typename L::Wide out[4][N]) {
  using Wide = typename L::Wide;
  Wide *c0 = out[0], *c1 = out[1], *c2 = out[2], *c3 = out[3];
  SLT_UNROLL(8)
  for (int n = 0; n < N; ++n) {
    const Wide first = L::multiply(counters[n], kPhiloxM0);
    const Wide second = L::multiply(L::high(first) ^ s.c3_k1, kPhiloxM1);
    c0[n] = L::high(second) ^ s.a1_k0;
    c1[n] = second, c2[n] = first ^ s.p0_k1, c3[n] = s.p0_low;
  }
  SLT_UNROLL(8)
  for (int r = 0; r < 8; ++r) {
    SLT_UNROLL(8)
    for (int n = 0; n < N; ++n) {
      const Wide p0 = L::multiply(c0[n], kPhiloxM0);
      const Wide p1 = L::multiply(c2[n], kPhiloxM1);
      c0[n] = L::exclusive(L::high(p1), c1[n], s.key[r][0]);
      c1[n] = p1;
      c2[n] = L::exclusive(L::high(p0), c3[n], s.key[r][1]);
      c3[n] = p0;
    }
  }
}

}  // namespace SLT_ISA
}  // namespace sltfast
