// Vectors of float for the instruction set this file is compiled with. Intrinsics live in lanes_*.h
// and nowhere else.
#pragma once

#include "../numerics/scalar.h"

#if defined(__AVX512F__)
#include "lanes_avx512.h"
#elif defined(__AVX2__)
#include "lanes_avx2.h"
#else
namespace sltfast {
inline namespace SLT_ISA {
using Lanes = Scalar<float>;
}  // namespace SLT_ISA
}  // namespace sltfast
#endif
