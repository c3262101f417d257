// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//   counter = (group low, group high | stream << 24, step, chain),  key = (seed low, seed high),
//   group = element / 4: word e % 4 of a counter belongs to element e of the full model.
#pragma once

#include "host_device.h"

namespace sltfast {
inline namespace SLT_ISA {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

// Everything but the first counter word, with the first two rounds run as far as that word lets
// them: two of the twenty multiplications, and some of the xors, are the same for every coordinate
// of a chain.
struct PhiloxStream {
  uint32_t c3_k1;   // chain ^ key: joins the high product of round 1
  uint32_t a1_k0;   // joins the high product of round 2
  uint32_t p0_k1;   // high(M0·a0) ^ key of round 2
  uint32_t p0_low;  // low(M0·a0)
  uint32_t key[10][2];

  SLT_HD PhiloxStream(uint64_t seed, uint32_t c1, uint32_t c2, uint32_t c3) {
    key[0][0] = static_cast<uint32_t>(seed);
    key[0][1] = static_cast<uint32_t>(seed >> 32);
    for (int r = 1; r < 10; ++r) {
      key[r][0] = key[r - 1][0] + kPhiloxW0;
      key[r][1] = key[r - 1][1] + kPhiloxW1;
    }
    const uint64_t p1 = static_cast<uint64_t>(c2) * kPhiloxM1;
    const uint32_t a0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key[0][0];
    const uint64_t p0 = static_cast<uint64_t>(a0) * kPhiloxM0;
    c3_k1 = c3 ^ key[0][1];
    a1_k0 = static_cast<uint32_t>(p1) ^ key[1][0];
    p0_k1 = static_cast<uint32_t>(p0 >> 32) ^ key[1][1];
    p0_low = static_cast<uint32_t>(p0);
  }
};

template <class L>
SLT_HD void philox_words(const PhiloxStream& s, typename L::Wide c0, typename L::Wide out[4]) {
  using Wide = typename L::Wide;
  const Wide zero = L::broadcast_wide(0);
  Wide c1, c2, c3;
  const Wide first = L::multiply(c0, kPhiloxM0);
  c2 = L::exclusive(L::high(first), L::broadcast_wide(s.c3_k1), zero);
  const Wide second = L::multiply(c2, kPhiloxM1);
  c0 = L::exclusive(L::high(second), L::broadcast_wide(s.a1_k0), zero);
  c1 = second;
  c2 = L::exclusive(first, L::broadcast_wide(s.p0_k1), zero);
  c3 = L::broadcast_wide(s.p0_low);
#pragma GCC unroll 8
  for (int r = 2; r < 10; ++r) {
    const Wide p0 = L::multiply(c0, kPhiloxM0);
    const Wide p1 = L::multiply(c2, kPhiloxM1);
    c0 = L::exclusive(L::high(p1), c1, L::broadcast_wide(s.key[r][0]));
    c1 = p1;
    c2 = L::exclusive(L::high(p0), c3, L::broadcast_wide(s.key[r][1]));
    c3 = p0;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

}  // namespace SLT_ISA
}  // namespace sltfast
