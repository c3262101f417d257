// Tables of segments and the tensors that go with them, checked before anything is written.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <type_traits>
#include <vector>

#include "numerics/dtype.h"

namespace sltfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct Segment {
  int64_t offset, numel, element, run, stride;
};

inline Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return Dtype::f32;
    case ScalarType::Double:
      return Dtype::f64;
    case ScalarType::BFloat16:
      return Dtype::bf16;
    case ScalarType::Half:
      return Dtype::f16;
    default:
      return Dtype::none;
  }
}

// Returns the dtype of w.
inline Dtype check_weights(const Tensor& w) {
  const Dtype dtype = dtype_of(w);
  STD_TORCH_CHECK(dtype == Dtype::f32 || dtype == Dtype::f64, "w must be float32 or float64");
  STD_TORCH_CHECK(w.dim() == 2 && w.is_contiguous(), "w must be a contiguous [C, P] tensor");
  return dtype;
}

inline void check_beside(const char* name, const Tensor& t, const Tensor& w) {
  STD_TORCH_CHECK(t.device() == w.device(), name, " must be on w's device");
}

// A tensor of one of `dtypes`, or null.
template <class T>
T* dense(const char* name, const std::optional<Tensor>& t, const Tensor& w,
         std::initializer_list<int64_t> shape, std::initializer_list<ScalarType> dtypes) {
  if (!t) return nullptr;
  check_beside(name, *t, w);
  bool fits = false;
  for (ScalarType dtype : dtypes) fits |= t->scalar_type() == dtype;
  STD_TORCH_CHECK(fits, name, " has the wrong dtype");
  STD_TORCH_CHECK(t->dim() == static_cast<int64_t>(shape.size()), name, " has the wrong rank");
  int64_t d = 0;
  for (int64_t size : shape) STD_TORCH_CHECK(t->size(d++) == size, name, " has the wrong shape");
  STD_TORCH_CHECK(t->is_contiguous(), name, " must be contiguous");
  if constexpr (std::is_const_v<T>)
    return static_cast<T*>(t->const_data_ptr());
  else
    return static_cast<T*>(t->mutable_data_ptr());
}

inline std::vector<Segment> read_segments(const Tensor& t, int64_t row) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Long && t.dim() == 2 &&
                      t.size(1) == 5 && t.is_contiguous(),
                  "segments must be a contiguous int64 tensor of shape [S, 5] on the CPU");
  const int64_t* p = t.const_data_ptr<int64_t>();
  std::vector<Segment> out(t.size(0));
  int64_t end = 0;
  for (Segment& s : out) {
    s = {p[0], p[1], p[2], p[3], p[4]};
    p += 5;
    STD_TORCH_CHECK(s.offset >= end && s.numel >= 0 && s.element >= 0 && s.stride >= 0,
                    "segments must be sorted, disjoint and not negative");
    STD_TORCH_CHECK(s.numel <= row && s.offset <= row - s.numel, "a segment ends beyond w");
    STD_TORCH_CHECK(s.numel == 0 || s.run >= 1, "a segment's run must be >= 1");
    end = s.offset + s.numel;
  }
  return out;
}

// One tensor a segment, `copies`·numel values each. Inputs that are not contiguous are replaced by
// copies.
struct List {
  std::vector<Tensor> tensors;
  std::vector<Values> values;  // data null: nothing given for this segment

  List(const char* name, std::vector<Tensor> given, const Tensor& w,
       const std::vector<Segment>& segments, int64_t copies, std::initializer_list<Dtype> allowed,
       bool may_be_absent, bool may_be_empty, bool written = false)
      : tensors(std::move(given)), values(segments.size()) {
    if (tensors.empty() && may_be_absent) return;
    STD_TORCH_CHECK(tensors.size() == segments.size(), name, " must hold one tensor a segment");
    for (size_t s = 0; s < segments.size(); ++s) {
      Tensor& t = tensors[s];
      const int64_t numel = t.numel();
      if (numel == 0 && (may_be_empty || segments[s].numel == 0)) continue;
      STD_TORCH_CHECK(numel == copies * segments[s].numel, name, " has a wrong number of values");
      check_beside(name, t, w);
      const Dtype dtype = dtype_of(t);
      bool fits = false;
      for (Dtype d : allowed) fits |= d == dtype && (d != Dtype::none || is_bool(t));
      STD_TORCH_CHECK(fits, name, " has a wrong dtype");
      if (!t.is_contiguous()) {
        STD_TORCH_CHECK(!written, name, " must be contiguous");
        t = torch::stable::contiguous(t);
      }
      values[s] = {written ? t.mutable_data_ptr() : t.const_data_ptr(), dtype};
    }
  }

  static bool is_bool(const Tensor& t) { return t.scalar_type() == ScalarType::Bool; }

  // The values of chain `c` from coordinate `first` on.
  Values at(size_t s, int64_t c, int64_t numel, int64_t first) const {
    Values v = values[s];
    if (v.data) v.data = static_cast<const char*>(v.data) + (c * numel + first) * size_of(v.dtype);
    return v;
  }
};

}  // namespace sltfast
