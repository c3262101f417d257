// Blocks of matrices.
#pragma once

#include "gemm.h"

namespace sltfast {

inline Matrices block_of(const Matrices& m, int64_t row, int64_t rows, int64_t column,
                         int64_t columns) {
  return m.some_rows(row, rows).some_columns(column, columns);
}

// C = A·B, or C += A·B.
inline void multiply(const Matrices& a, const Matrices& b, const Matrices& c, bool add) {
  if (c.rows == 0 || c.columns == 0) return;
  if (!add) return multiply(a, b, c);
  const torch::stable::Tensor out = c.tensor(), left = a.tensor(), right = b.tensor();
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_cpu_addmm_out(out.get(), out.get(), left.get(), right.get(), 1, 1));
}

inline int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace sltfast
