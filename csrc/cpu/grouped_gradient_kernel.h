// What the kernel file compiled for one instruction set offers to the ops on grouped gradients.
#pragma once

#include <cstdint>

namespace sltfast {

struct GroupedGradientKernels {
  // Σ a·b over `count` values, products and sum in double.
  double (*dot_f32)(const float* a, const float* b, int64_t count);
  double (*dot_f64)(const double* a, const double* b, int64_t count);
};

const GroupedGradientKernels& generic_kernels(const GroupedGradientKernels*);
const GroupedGradientKernels& avx2_kernels(const GroupedGradientKernels*);
const GroupedGradientKernels& avx512_kernels(const GroupedGradientKernels*);

}  // namespace sltfast
