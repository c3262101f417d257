// bfloat16 and float16 to float and back; branch-free, so that loops over them vectorise. Rounding
// is to nearest even, or stochastic: of a 32-bit random word the highest k bits are added to the k
// bits that are lost, and what carries is kept, so that the expectation is the value itself.
#pragma once

#include <cstring>

#include "host_device.h"

namespace sltfast {
inline namespace SLT_ISA {

SLT_HD uint32_t float_word(float x) {
  uint32_t out;
  std::memcpy(&out, &x, sizeof out);
  return out;
}

SLT_HD float word_float(uint32_t x) {
  float out;
  std::memcpy(&out, &x, sizeof out);
  return out;
}

SLT_HD float from_bfloat16(uint16_t x) { return word_float(static_cast<uint32_t>(x) << 16); }

SLT_HD uint16_t to_bfloat16(float x) {
  const uint32_t w = float_word(x);
  const uint32_t rounded = (w + 0x7FFFu + ((w >> 16) & 1u)) >> 16;
  const uint32_t nan = (w >> 16) | 0x40u;
  return static_cast<uint16_t>((w & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

SLT_HD float from_float16(uint16_t x) {
  // The exponent is rebiased by a multiplication, which also makes half's subnormals normal.
  const uint32_t magnitude = static_cast<uint32_t>(x & 0x7FFFu) << 13;
  const uint32_t special = magnitude | 0x7F800000u;
  const uint32_t usual = float_word(word_float(magnitude) * 0x1p112f);
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000u) << 16;
  return word_float(sign | (magnitude >= 0x0F800000u ? special : usual));
}

SLT_HD uint16_t to_float16(float x) {
  const uint32_t w = float_word(x);
  const uint32_t sign = (w >> 16) & 0x8000u;
  const uint32_t magnitude = w & 0x7FFFFFFFu;
  // Below 2^-14 adding ½ leaves the subnormal, rounded to nearest even, in the low bits of the sum.
  const uint32_t subnormal = float_word(word_float(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t nan = 0x7E00u, infinity = 0x7C00u;
  const uint32_t large = magnitude > 0x7F800000u ? nan : infinity;
  const uint32_t usual = magnitude < 0x38800000u ? subnormal : normal;
  return static_cast<uint16_t>(sign | (magnitude >= 0x477FF000u ? large : usual));
}

SLT_HD uint16_t to_bfloat16(float x, uint32_t random) {
  const uint32_t w = float_word(x);
  const bool special = (w & 0x7F800000u) == 0x7F800000u;
  return special ? to_bfloat16(x) : static_cast<uint16_t>((w + (random >> 16)) >> 16);
}

SLT_HD uint16_t to_float16(float x, uint32_t random) {
  const uint32_t w = float_word(x);
  const uint32_t sign = (w >> 16) & 0x8000u;
  const uint32_t magnitude = w & 0x7FFFFFFFu;
  // Below 2^-14 the spacing is 2^-24, counted in units of 2^-21 of it.
  const bool small = magnitude < 0x38800000u;
  const float units = (small ? word_float(magnitude) : 0.0f) * 0x1p45f;
  const uint32_t subnormal =
      (static_cast<uint32_t>(static_cast<int32_t>(units)) + (random >> 11)) >> 21;
  const uint32_t carried = (magnitude + (random >> 19)) >> 13;
  const uint32_t infinity = 0x7C00u;
  const uint32_t normal = carried < 0x47800000u >> 13 ? carried - (0x38000000u >> 13) : infinity;
  const uint16_t usual = static_cast<uint16_t>(sign | (small ? subnormal : normal));
  return magnitude >= 0x7F800000u ? to_float16(x) : usual;
}

}  // namespace SLT_ISA
}  // namespace sltfast
