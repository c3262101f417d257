// Blocks of matrices, and tasks shared among threads.
#pragma once

#include <algorithm>
#include <atomic>

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

// Runs task(worker, i) for i in 0 .. count − 1; each worker takes the next task when it is free.
// Matrix products inside run on one thread if there are several workers.
template <class Task>
void share_tasks(int64_t count, int64_t workers, const Task& task) {
  if (workers <= 1) {
    for (int64_t i = 0; i < count; ++i) task(0, i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker)
      for (int64_t i = next++; i < count; i = next++) task(worker, i);
  });
}

}  // namespace sltfast
