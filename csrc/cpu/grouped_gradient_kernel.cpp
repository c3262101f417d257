// Dot products in double, and the gathering of a GEMM's factors. Compiled once for each
// instruction set (SLT_ISA), without torch and without std templates: nothing here may be merged by
// the linker with code for another instruction set.
#include "grouped_gradient_kernel.h"

#include "../numerics/operands.h"

namespace sltfast {
inline namespace SLT_ISA {
namespace {

// 32 sums, the same on every instruction set: the compiler may split them over its vectors, but not
// reorder them, so the result has the same bits everywhere.
template <class T>
double dot(const T* a, const T* b, int64_t count) {
  constexpr int kSums = 32;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums)
    for (int j = 0; j < kSums; ++j)
      sums[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  for (int j = 0; i + j < count; ++j)
    sums[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  for (int half = kSums / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

template <class T, class S, class Widen>
void gather_from(const Gather& g, const Widen& widen) {
  const T* weights = static_cast<const T*>(g.weights);
  T* to = static_cast<T*>(g.to);
  for (int64_t n = 0; n < g.rows; ++n, to += g.columns) {
    const S* from = static_cast<const S*>(g.from) + n * g.row;
    const T weight = weights ? weights[n] : T(1);
    for (int64_t i = 0; i < g.columns; ++i)
      to[i] = rounded(weight * static_cast<T>(widen(from[i])), g.operands);
  }
}

template <class T>
void gather(const Gather& g) {
  const auto same = [](auto x) { return x; };
  if (g.dtype == Dtype::f32) return gather_from<T, float>(g, same);
  if (g.dtype == Dtype::f64) return gather_from<T, double>(g, same);
  if (g.dtype == Dtype::bf16)
    return gather_from<T, uint16_t>(g, [](uint16_t x) { return from_bfloat16(x); });
  gather_from<T, uint16_t>(g, [](uint16_t x) { return from_float16(x); });
}

}  // namespace
}  // namespace SLT_ISA

#define SLT_KERNELS_OF_(isa) isa##_kernels
#define SLT_KERNELS_OF(isa) SLT_KERNELS_OF_(isa)

const GroupedGradientKernels& SLT_KERNELS_OF(SLT_ISA)(const GroupedGradientKernels*) {
  static const GroupedGradientKernels kernels{dot<float>, dot<double>, gather<float>,
                                              gather<double>};
  return kernels;
}

}  // namespace sltfast
