// Dot products in double. Compiled once for each instruction set (SLT_ISA), without torch and
// without std templates: nothing here may be merged by the linker with code for another instruction
// set.
#include "grouped_gradient_kernel.h"

#include "../numerics/host_device.h"

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

}  // namespace
}  // namespace SLT_ISA

#define SLT_KERNELS_OF_(isa) isa##_kernels
#define SLT_KERNELS_OF(isa) SLT_KERNELS_OF_(isa)

const GroupedGradientKernels& SLT_KERNELS_OF(SLT_ISA)(const GroupedGradientKernels*) {
  static const GroupedGradientKernels kernels{dot<float>, dot<double>};
  return kernels;
}

}  // namespace sltfast
