// Tensors of the stable ABI as the CPU ops use them: rules that name the argument.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>

namespace sltfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_float(const Tensor& t) {
  return t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double;
}
inline bool is_wide(const Tensor& t) { return t.scalar_type() == ScalarType::Double; }

inline void check_shape(const char* name, const Tensor& t, std::initializer_list<int64_t> shape) {
  STD_TORCH_CHECK(t.is_cpu(), name, " must be on the CPU");
  STD_TORCH_CHECK(t.dim() == static_cast<int64_t>(shape.size()), name, " has the wrong rank");
  int64_t d = 0;
  for (int64_t size : shape) STD_TORCH_CHECK(t.size(d++) == size, name, " has the wrong shape");
}

// Any strides but the last, which must be 1: a slice of columns needs no copy.
inline void check_rows(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                       bool dtype_fits) {
  STD_TORCH_CHECK(dtype_fits, name, " has the wrong dtype");
  check_shape(name, t, shape);
  const int64_t last = t.dim() - 1;
  STD_TORCH_CHECK(t.size(last) <= 1 || t.stride(last) == 1, name, " must have contiguous rows");
}

inline void check_contiguous(const char* name, const Tensor& t,
                             std::initializer_list<int64_t> shape, bool dtype_fits) {
  check_rows(name, t, shape, dtype_fits);
  STD_TORCH_CHECK(t.is_contiguous(), name, " must be contiguous");
}

}  // namespace sltfast
