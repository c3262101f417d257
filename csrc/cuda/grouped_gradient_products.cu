// sltfast::native_grouped_gradient_products and native_grouped_gradient_inner on CUDA: the same
// checks and the same choice of the form as on the CPU, one launch and a sum of its parts.
#include "../grouped_gradient_form.h"
#include "comoment_launch.h"
#include "grouped_gradient_inner.cuh"
#include "grouped_gradient_products.cuh"

namespace sltfast {
namespace {

// T·T' up to which dot products are taken: a tile would be less than 1/16 full. A choice by the
// count of loads and multiplications, not a measured one.
constexpr int64_t kShort = 256;
constexpr int64_t kParts = 4096;  // of all samples, unless there are more of those

Tensor doubles_like(const Tensor& t, std::initializer_list<int64_t> shape, bool zeros) {
  const auto dtype = std::make_optional(ScalarType::Double);
  return zeros ? torch::stable::new_zeros(t, shape, dtype)
               : torch::stable::new_empty(t, shape, dtype);
}

// `t`, [B, rows, columns], is replaced by a copy unless its rows are dense.
template <class T>
SampleMatrices<T> sample_matrices(Tensor& t) {
  if (t.size(2) > 1 && t.stride(2) != 1) t = torch::stable::contiguous(t);
  return {t.const_data_ptr<T>(), t.size(1), t.size(2), t.stride(0), t.stride(1)};
}

template <class T>
bool is_one(const SampleMatrices<T>& a, const SampleMatrices<T>& b) {
  return a.data == b.data && a.rows == b.rows && a.sample == b.sample && a.row == b.row;
}

void add_parts(const Tensor& parts, const Tensor& out, int64_t count, cudaStream_t stream) {
  constexpr int kWarps = kProductThreads / kWarp;
  sum_parts<<<blocks_for((out.numel() + kWarps - 1) / kWarps), kProductThreads, 0, stream>>>(
      parts.const_data_ptr<double>(), out.mutable_data_ptr<double>(), out.numel(), count);
  check_launch();
}

template <class T>
void products(Tensor left_a, Tensor right_a, Tensor left_b, Tensor right_b, const ProductSizes& s,
              const std::string& algorithm, const Tensor& out, cudaStream_t stream) {
  GradientPair<T> p{sample_matrices<T>(left_a),
                    sample_matrices<T>(right_a),
                    sample_matrices<T>(left_b),
                    sample_matrices<T>(right_b),
                    false,
                    s.samples,
                    1,
                    out.mutable_data_ptr<double>()};
  p.same = is_one(p.left_a, p.left_b) && is_one(p.right_a, p.right_b);
  const bool formed = s.formed(algorithm, p.same, kTileSide);
  if (!formed && s.positions_a * s.positions_b <= kShort) {
    short_products<T><<<blocks_for(s.samples), kProductThreads, 0, stream>>>(p);
    check_launch();
    return;
  }
  const int64_t tiles = formed ? tiles_of(s.rows) * tiles_of(s.columns)
                               : tiles_of(s.positions_a) * tiles_of(s.positions_b);
  // of the sizes alone, so that the bits do not depend on the GPU
  p.shares = std::min(tiles, std::max<int64_t>(1, kParts / s.samples));
  const Tensor parts = doubles_like(out, {s.samples, p.shares}, false);
  p.parts = parts.mutable_data_ptr<double>();
  const auto kernel = formed ? tiled_products<true, T> : tiled_products<false, T>;
  kernel<<<blocks_for(s.samples * p.shares), kProductThreads, 0, stream>>>(p);
  check_launch();
  add_parts(parts, out, p.shares, stream);
}

Tensor grouped_gradient_products(Tensor left_a, Tensor right_a, Tensor left_b, Tensor right_b,
                                 std::string algorithm) {
  STD_TORCH_CHECK(left_a.is_cuda(), "left_a must be on a CUDA device");
  const ProductSizes sizes(left_a, right_a, left_b, right_b, algorithm);
  const OnDevice here(left_a);
  const Tensor out = doubles_like(left_a, {sizes.samples}, sizes.empty());
  if (sizes.empty()) return out;
  const auto run = is_wide(left_a) ? products<double> : products<float>;
  run(left_a, right_a, left_b, right_b, sizes, algorithm, out, here.stream);
  return out;
}

template <class T>
void inner(const Tensor& left, const Tensor& right, const Tensor& v, const Tensor& out,
           cudaStream_t stream) {
  const int64_t rows = left.size(0) * left.size(1), r = left.size(2), k = right.size(2);
  const int64_t wide = tiles_of(r);
  const Tensor parts = doubles_like(out, {rows, wide}, false);
  inner_products<T><<<blocks_for(tiles_of(rows) * wide), kProductThreads, 0, stream>>>(
      {left.const_data_ptr<T>(), rows, r, 0, r}, {right.const_data_ptr<T>(), rows, k, 0, k},
      {v.const_data_ptr<T>(), r, k, 0, k}, parts.mutable_data_ptr<double>());
  check_launch();
  add_parts(parts, out, left.size(1) * wide, stream);
}

Tensor grouped_gradient_inner(Tensor left, Tensor right, Tensor v) {
  STD_TORCH_CHECK(left.is_cuda(), "left must be on a CUDA device");
  check_inner(left, right, v);
  const OnDevice here(left);
  const bool empty = left.numel() == 0 || right.numel() == 0;
  const Tensor out = doubles_like(left, {left.size(0)}, empty);
  if (empty) return out;
  const auto run = is_wide(left) ? inner<double> : inner<float>;
  run(torch::stable::contiguous(left), torch::stable::contiguous(right),
      torch::stable::contiguous(v), out, here.stream);
  return out;
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CUDA, m) {
  m.impl("native_grouped_gradient_products", TORCH_BOX(&sltfast::grouped_gradient_products));
  m.impl("native_grouped_gradient_inner", TORCH_BOX(&sltfast::grouped_gradient_inner));
}
