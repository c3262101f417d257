// Eight floats: AVX2 and FMA. What Scalar names, by intrinsics; + − × & ^ >> are the compiler's
// own.
#pragma once

#include <immintrin.h>

#include "../numerics/host_device.h"

namespace sltfast {
inline namespace SLT_ISA {

struct Lanes {
  static constexpr int width = 8;
  static constexpr int halves = 2;
  using Value = float;
  typedef float Real __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(32)));
  typedef int32_t Int __attribute__((vector_size(32)));
  typedef uint64_t Wide __attribute__((vector_size(32)));
  using Mask = Int;

  static SLT_HD Real load(const float* p) { return (Real)_mm256_loadu_ps(p); }
  static SLT_HD void store(float* p, Real x) { _mm256_storeu_ps(p, (__m256)x); }
  static SLT_HD Real broadcast(float x) { return (Real)_mm256_set1_ps(x); }
  static SLT_HD Real fma(Real a, Real b, Real c) {
    return (Real)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  }
  static SLT_HD Real root(Real x) { return (Real)_mm256_sqrt_ps((__m256)x); }
  static SLT_HD Real lower(Real a, Real b) { return (Real)_mm256_min_ps((__m256)a, (__m256)b); }
  static SLT_HD Real upper(Real a, Real b) { return (Real)_mm256_max_ps((__m256)a, (__m256)b); }
  static SLT_HD double sum(Real x) {
    double total = 0;
    for (int i = 0; i < width; ++i) total += x[i];
    return total;
  }
  static SLT_HD float largest(Real x) {
    float out = x[0];
    for (int i = 1; i < width; ++i) out = x[i] > out ? x[i] : out;
    return out;
  }

  static SLT_HD Mask below(Real a, Real b) { return a < b; }
  static SLT_HD Mask load_zeros(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return (Int)_mm256_cvtepu8_epi32(bytes) == 0;
  }
  static SLT_HD Mask either(Mask a, Mask b) { return a | b; }
  static SLT_HD bool any(Mask m) { return _mm256_movemask_ps((__m256)m) != 0; }
  static SLT_HD Real select(Mask m, Real a, Real b) {
    return (Real)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
  }
  static SLT_HD Mask not_finite(Real x) { return (bits(x) & 0x7F800000) == 0x7F800000; }
  static SLT_HD Mask differ(Real a, Real b) { return a != b; }

  static SLT_HD Real from_int(Int x) { return (Real)_mm256_cvtepi32_ps((__m256i)x); }
  static SLT_HD Int bits(Real x) { return (Int)x; }
  static SLT_HD Real from_bits(Int x) { return (Real)x; }

  // Lane 4l + i holds group 2i + l, so that 4×4 transposes inside 128 bits leave the normals in
  // order.
  static SLT_HD void load_counters(const uint32_t* groups, Wide out[2]) {
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i g = _mm256_permutevar8x32_epi32(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(groups)), order);
    out[0] = (Wide)g;
    out[1] = (Wide)_mm256_srli_epi64(g, 32);
  }
  static SLT_HD Wide broadcast_wide(uint32_t x) {
    return (Wide)_mm256_set1_epi64x(static_cast<long long>(x));
  }
  static SLT_HD Wide multiply(Wide a, uint32_t m) {
    return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)broadcast_wide(m));
  }
  static SLT_HD Wide high(Wide p) { return p >> 32; }
  static SLT_HD Wide exclusive(Wide a, Wide b, Wide c) { return a ^ (b ^ c); }
  static SLT_HD Word narrow(const Wide x[2]) {
    return (Word)_mm256_blend_epi32((__m256i)x[0], _mm256_slli_epi64((__m256i)x[1], 32), 0xAA);
  }
  static SLT_HD void store_groups(float* p, Real n0, Real n1, Real n2, Real n3) {
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps((__m256)n0, (__m256)n1));
    const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps((__m256)n0, (__m256)n1));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps((__m256)n2, (__m256)n3));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps((__m256)n2, (__m256)n3));
    store(p, (Real)_mm256_unpacklo_pd(a, c));
    store(p + 8, (Real)_mm256_unpackhi_pd(a, c));
    store(p + 16, (Real)_mm256_unpacklo_pd(b, d));
    store(p + 24, (Real)_mm256_unpackhi_pd(b, d));
  }
};

}  // namespace SLT_ISA
}  // namespace sltfast
