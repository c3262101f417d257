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

template <class L>
SLT_HD void philox_words(const PhiloxStream<L>& s, typename L::Wide c0, typename L::Wide out[4]) {
  using Wide = typename L::Wide;
  const Wide first = L::multiply(c0, kPhiloxM0);
  const Wide second = L::multiply(L::high(first) ^ s.c3_k1, kPhiloxM1);
  c0 = L::high(second) ^ s.a1_k0;
  Wide c1 = second, c2 = first ^ s.p0_k1, c3 = s.p0_low;
  SLT_UNROLL(8)
  for (int r = 0; r < 8; ++r) {
    const Wide p0 = L::multiply(c0, kPhiloxM0);
    const Wide p1 = L::multiply(c2, kPhiloxM1);
    c0 = L::exclusive(L::high(p1), c1, s.key[r][0]);
    c1 = p1;
    c2 = L::exclusive(L::high(p0), c3, s.key[r][1]);
    c3 = p0;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

}  // namespace SLT_ISA
}  // namespace sltfast
