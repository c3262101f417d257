// Sixteen floats: AVX-512 F, BW, DQ, VL. What Scalar names, by intrinsics; + − × & ^ >> are the
// compiler's own.
#pragma once

#include <immintrin.h>

#include "../numerics/host_device.h"

namespace sltfast {
inline namespace SLT_ISA {

struct Lanes {
  static constexpr int width = 16;
  static constexpr int halves = 2;
  using Value = float;
  typedef float Real __attribute__((vector_size(64)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  typedef int32_t Int __attribute__((vector_size(64)));
  typedef uint64_t Wide __attribute__((vector_size(64)));
  using Mask = __mmask16;

  static SLT_HD Real load(const float* p) { return (Real)_mm512_loadu_ps(p); }
  static SLT_HD void store(float* p, Real x) { _mm512_storeu_ps(p, (__m512)x); }
  static SLT_HD Real broadcast(float x) { return (Real)_mm512_set1_ps(x); }
  static SLT_HD Real fma(Real a, Real b, Real c) {
    return (Real)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  }
  static SLT_HD Real root(Real x) { return (Real)_mm512_sqrt_ps((__m512)x); }
  static SLT_HD Real lower(Real a, Real b) { return (Real)_mm512_min_ps((__m512)a, (__m512)b); }
  static SLT_HD Real upper(Real a, Real b) { return (Real)_mm512_max_ps((__m512)a, (__m512)b); }
  static SLT_HD double sum(Real x) {
    const __m512 v = (__m512)x;
    return _mm512_reduce_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(v))) +
           _mm512_reduce_add_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
  }
  static SLT_HD float largest(Real x) { return _mm512_reduce_max_ps((__m512)x); }

  static SLT_HD Mask below(Real a, Real b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
  }
  static SLT_HD Mask load_zeros(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm_testn_epi8_mask(bytes, bytes);
  }
  static SLT_HD Mask either(Mask a, Mask b) { return a | b; }
  static SLT_HD bool any(Mask m) { return m != 0; }
  static SLT_HD Real select(Mask m, Real a, Real b) {
    return (Real)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
  }
  static SLT_HD Mask not_finite(Real x) {
    return _mm512_fpclass_ps_mask((__m512)x, 0x99);  // quiet and signalling NaN, ±∞
  }
  static SLT_HD Mask differ(Real a, Real b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ);
  }

  static SLT_HD Real from_int(Int x) { return (Real)_mm512_cvtepi32_ps((__m512i)x); }
  static SLT_HD Int bits(Real x) { return (Int)x; }
  static SLT_HD Real from_bits(Int x) { return (Real)x; }

  // Lane 4l + i holds group 4i + l, so that 4×4 transposes inside 128 bits leave the normals in
  // order.
  static SLT_HD void load_counters(const uint32_t* groups, Wide out[2]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i g = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(groups));
    out[0] = (Wide)g;
    out[1] = (Wide)_mm512_srli_epi64(g, 32);
  }
  static SLT_HD Wide broadcast_wide(uint32_t x) {
    return (Wide)_mm512_set1_epi64(static_cast<long long>(x));
  }
  static SLT_HD Wide multiply(Wide a, uint32_t m) {
    return (Wide)_mm512_mul_epu32((__m512i)a, (__m512i)broadcast_wide(m));
  }
  static SLT_HD Wide high(Wide p) { return p >> 32; }
  static SLT_HD Wide exclusive(Wide a, Wide b, Wide c) {
    return (Wide)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
  }
  static SLT_HD Word narrow(const Wide x[2]) {
    return (Word)_mm512_mask_shuffle_epi32((__m512i)x[0], 0xAAAA, (__m512i)x[1], _MM_PERM_CCAA);
  }
  static SLT_HD void store_groups(float* p, Real n0, Real n1, Real n2, Real n3) {
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps((__m512)n0, (__m512)n1));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps((__m512)n0, (__m512)n1));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps((__m512)n2, (__m512)n3));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps((__m512)n2, (__m512)n3));
    store(p, (Real)_mm512_unpacklo_pd(a, c));
    store(p + 16, (Real)_mm512_unpackhi_pd(a, c));
    store(p + 32, (Real)_mm512_unpacklo_pd(b, d));
    store(p + 48, (Real)_mm512_unpackhi_pd(b, d));
  }
};

}  // namespace SLT_ISA
}  // namespace sltfast
