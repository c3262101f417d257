// How the factors of a product are rounded before it: sums are float's in every precision.
#pragma once

#include "rounding.h"

namespace sltfast {

enum class Operands : uint8_t { ieee, tf32, bf16 };

inline namespace SLT_ISA {

// 10 bits of mantissa, ties away from zero, as tensor cores take their operands; infinities and NaN
// are kept.
SLT_HD float to_tf32(float x) {
  const uint32_t w = float_word(x);
  const bool finite = (w & 0x7F800000u) != 0x7F800000u;
  return finite ? word_float((w + 0x1000u) & ~0x1FFFu) : x;
}

SLT_HD float rounded(float x, Operands operands) {
  return operands == Operands::tf32   ? to_tf32(x)
         : operands == Operands::bf16 ? from_bfloat16(to_bfloat16(x))
                                      : x;
}
SLT_HD double rounded(double x, Operands) { return x; }

}  // namespace SLT_ISA
}  // namespace sltfast
