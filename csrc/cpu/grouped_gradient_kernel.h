// What the kernel file compiled for one instruction set offers to the ops on grouped gradients.
#pragma once

#include <cstdint>

#include "../numerics/operands.h"
#include "langevin_kernel.h"

namespace sltfast {

// Rows on their way into a GEMM: [rows, columns], dense when gathered.
struct Gather {
  const void* from;
  Dtype dtype;
  int64_t rows, columns, row;  // row: elements from one row to the next
  const void* weights;         // of the target's type, one a row; null: all one
  Operands operands;           // rounded to them after the weight
  void* to;
};

struct GroupedGradientKernels {
  // Σ a·b over `count` values, products and sum in double.
  double (*dot_f32)(const float* a, const float* b, int64_t count);
  double (*dot_f64)(const double* a, const double* b, int64_t count);
  void (*gather_f32)(const Gather&);
  void (*gather_f64)(const Gather&);
};

const GroupedGradientKernels& generic_kernels(const GroupedGradientKernels*);
const GroupedGradientKernels& avx2_kernels(const GroupedGradientKernels*);
const GroupedGradientKernels& avx512_kernels(const GroupedGradientKernels*);

}  // namespace sltfast
