// C = A·B, or C += A·B, for one or a stack of row-major float or double matrices, by the BLAS that
// torch carries.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

namespace sltfast {

// [count, rows, columns]; strides in elements, one of the last two is 1.
struct Matrices {
  char* data;
  int64_t count, rows, columns;
  int64_t each, row, column;
  int64_t width;  // bytes of an element: 4 or 8

  static Matrices dense(void* data, int64_t count, int64_t rows, int64_t columns, int64_t width) {
    return {static_cast<char*>(data), count, rows, columns, rows * columns, columns, 1, width};
  }
  Matrices transposed() const { return {data, count, columns, rows, each, column, row, width}; }
  Matrices some(int64_t first, int64_t n) const {
    Matrices out = *this;
    out.data += first * each * width, out.count = n;
    return out;
  }
  Matrices some_rows(int64_t first, int64_t n) const {
    Matrices out = *this;
    out.data += first * row * width, out.rows = n;
    return out;
  }
  Matrices some_columns(int64_t first, int64_t n) const {
    return transposed().some_rows(first, n).transposed();
  }

  torch::stable::Tensor tensor() const {
    const auto dtype =
        width == 4 ? torch::headeronly::ScalarType::Float : torch::headeronly::ScalarType::Double;
    const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
    if (count == 1)
      return torch::stable::from_blob(data, {rows, columns}, {row, column}, cpu, dtype);
    return torch::stable::from_blob(data, {count, rows, columns}, {each, row, column}, cpu, dtype);
  }
};

inline void multiply(const Matrices& a, const Matrices& b, const Matrices& c) {
  const torch::stable::Tensor out = c.tensor(), left = a.tensor(), right = b.tensor();
  const auto product = c.count == 1 ? aoti_torch_cpu_mm_out : aoti_torch_cpu_bmm_out;
  STABLE_TORCH_ERROR_CODE_CHECK(product(out.get(), left.get(), right.get()));
}

// c += a·b, for one matrix each.
inline void multiply_add(const Matrices& a, const Matrices& b, const Matrices& c) {
  const torch::stable::Tensor out = c.tensor(), left = a.tensor(), right = b.tensor();
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_cpu_addmm_out(out.get(), out.get(), left.get(), right.get(), 1.0, 1.0));
}

// A [count, rows, columns] tensor as matrices; `t` is replaced by a copy unless its rows are dense.
inline Matrices matrices_of(torch::stable::Tensor& t) {
  const int64_t width = t.scalar_type() == torch::headeronly::ScalarType::Float ? 4 : 8;
  if (t.size(2) > 1 && t.stride(2) != 1) t = torch::stable::contiguous(t);
  const int64_t rows = t.size(1), columns = t.size(2);
  // a dimension of size one may carry any stride, and BLAS wants one of at least the row's length
  const int64_t row = rows > 1 ? t.stride(1) : columns;
  if (rows > 1 && row < columns) t = torch::stable::contiguous(t);
  return {static_cast<char*>(const_cast<void*>(t.const_data_ptr())),
          t.size(0),
          rows,
          columns,
          t.size(0) > 1 ? t.stride(0) : rows * columns,
          rows > 1 ? t.stride(1) : columns,
          1,
          width};
}

}  // namespace sltfast
