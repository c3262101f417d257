// One coordinate at a time: the lanes of a GPU thread, of loop tails, and of CPUs without known
// vectors.
#pragma once

#include <cmath>
#include <cstring>

#include "host_device.h"

namespace sltfast {
inline namespace SLT_ISA {

SLT_HD float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
  return __builtin_fmaf(a, b, c);
#else
  // Exact product; the sum is rounded twice, which differs from fma in about one case of 2^29.
  return static_cast<float>(static_cast<double>(a) * b + c);
#endif
}

SLT_HD double fused(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

template <class T>
struct Scalar {
  static constexpr int width = 1;
  static constexpr int halves = 1;  // wide vectors that hold one word of `width` Philox counters
  using Value = T;
  using Real = T;
  using Word = uint32_t;
  using Int = int32_t;
  using Wide = uint64_t;  // a 32-bit word in the low half; the high half is free to hold anything
  using Mask = bool;

  static SLT_HD Real load(const T* p) { return *p; }
  static SLT_HD void store(T* p, Real x) { *p = x; }
  static SLT_HD Real broadcast(T x) { return x; }
  static SLT_HD Real fma(Real a, Real b, Real c) { return fused(a, b, c); }
  static SLT_HD Real root(Real x) {
#if defined(__CUDA_ARCH__)
    return sqrt(x);
#else
    if constexpr (sizeof(T) == 4)
      return __builtin_sqrtf(x);
    else
      return __builtin_sqrt(x);
#endif
  }
  static SLT_HD Real lower(Real a, Real b) { return a < b ? a : b; }
  static SLT_HD Real upper(Real a, Real b) { return a > b ? a : b; }
  static SLT_HD double sum(Real x) { return static_cast<double>(x); }

  static SLT_HD Real largest(Real x) { return x; }

  static SLT_HD Mask below(Real a, Real b) { return a < b; }
  static SLT_HD Mask load_zeros(const uint8_t* p) { return *p == 0; }
  static SLT_HD Mask either(Mask a, Mask b) { return a || b; }
  static SLT_HD bool any(Mask m) { return m; }
  static SLT_HD Real select(Mask m, Real a, Real b) { return m ? a : b; }
  static SLT_HD Mask not_finite(Real x) { return !(x - x == Real(0)); }
  static SLT_HD Mask differ(Real a, Real b) { return a != b; }

  static SLT_HD Real from_int(Int x) { return static_cast<Real>(x); }
  static SLT_HD Int bits(Real x) {
    Int out;
    std::memcpy(&out, &x, sizeof out);
    return out;
  }
  static SLT_HD Real from_bits(Int x) {
    Real out;
    std::memcpy(&out, &x, sizeof out);
    return out;
  }

  static SLT_HD void load_counters(const uint32_t* groups, Wide out[1]) { out[0] = *groups; }
  static SLT_HD Wide broadcast_wide(uint32_t x) { return x; }
  static SLT_HD Wide multiply(Wide a, uint32_t m) { return (a & 0xFFFFFFFFu) * m; }
  static SLT_HD Wide high(Wide p) { return p >> 32; }
  static SLT_HD Wide exclusive(Wide a, Wide b, Wide c) { return a ^ b ^ c; }
  static SLT_HD Word narrow(const Wide x[1]) { return static_cast<Word>(x[0]); }
  // The normals 4j..4j+3 of counter j, in memory order.
  static SLT_HD void store_groups(T* p, Real n0, Real n1, Real n2, Real n3) {
    p[0] = n0, p[1] = n1, p[2] = n2, p[3] = n3;
  }
};

}  // namespace SLT_ISA
}  // namespace sltfast
