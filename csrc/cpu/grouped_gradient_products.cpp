// sltfast::native_grouped_gradient_products and native_grouped_gradient_inner on the CPU: inner
// products of per-sample gradients g_i = Σ_t left[i,t]ᵀ right[i,t] without storing any g_i.
#include <torch/csrc/stable/library.h>

#include <string>
#include <vector>

#include "../grouped_gradient_form.h"
#include "dispatch.h"
#include "gemm.h"
#include "grouped_gradient_kernel.h"
#include "share_work.h"

namespace sltfast {
namespace {

constexpr int64_t kTile = 256;   // rows and columns of a tile: two float tiles fill half an L2
constexpr int64_t kDirect = 16;  // entries of a Gram matrix that dot products form sooner than BLAS
constexpr int64_t kInnerRows = 256;  // positions of a unit of work of the inner product

double dot(const char* a, const char* b, int64_t count, int64_t width) {
  const GroupedGradientKernels& k = kernels<GroupedGradientKernels>();
  if (width == 4)
    return k.dot_f32(reinterpret_cast<const float*>(a), reinterpret_cast<const float*>(b), count);
  return k.dot_f64(reinterpret_cast<const double*>(a), reinterpret_cast<const double*>(b), count);
}

Tensor zeros_like_samples(int64_t samples) {
  Tensor out = torch::stable::empty({samples}, ScalarType::Double);
  torch::stable::zero_(out);
  return out;
}

// Two products of matrices whose entry-by-entry sum of products is the answer.
struct Pair {
  Matrices a1, b1, a2, b2;
  bool same;       // the second product equals the first
  bool symmetric;  // both are symmetric
};

void tiled(const Pair& p, double* out) {
  const int64_t samples = p.a1.count, m = p.a1.rows, n = p.b1.columns, width = p.a1.width;
  struct Tile {
    int64_t row, rows, column, columns;
    double times;
  };
  std::vector<Tile> tiles;
  for (int64_t r = 0; r < m; r += kTile)
    for (int64_t c = p.symmetric ? r : 0; c < n; c += kTile)
      tiles.push_back({r, std::min(kTile, m - r), c, std::min(kTile, n - c),
                       p.symmetric && c != r ? 2.0 : 1.0});
  const int64_t area = std::min(kTile, m) * std::min(kTile, n);
  // samples of a unit of work: few enough that several threads find some
  const int64_t together = std::min((samples + 3) / 4, std::max<int64_t>(1, kTile * kTile / area));
  const int64_t blocks = (samples + together - 1) / together, shapes = tiles.size();
  const int64_t units = blocks * shapes, workers = workers_for(units);
  std::vector<std::vector<char>> scratch(workers);
  std::vector<double> parts(samples * shapes);
  share_work(units, workers, [&](int64_t worker, int64_t unit) {
    const Tile& t = tiles[unit % shapes];
    const int64_t first = unit / shapes * together, count = std::min(together, samples - first);
    const int64_t bytes = t.rows * t.columns * width;
    std::vector<char>& room = scratch[worker];
    if (room.empty()) room.resize(2 * together * area * width);
    const auto form = [&](const Matrices& a, const Matrices& b, char* to) {
      multiply(a.some(first, count).some_rows(t.row, t.rows),
               b.some(first, count).some_columns(t.column, t.columns),
               Matrices::dense(to, count, t.rows, t.columns, width));
    };
    char* one = room.data();
    char* two = p.same ? one : one + together * area * width;
    form(p.a1, p.b1, one);
    if (!p.same) form(p.a2, p.b2, two);
    for (int64_t i = 0; i < count; ++i)
      parts[(first + i) * shapes + unit % shapes] =
          t.times * dot(one + i * bytes, two + i * bytes, t.rows * t.columns, width);
  });
  for (int64_t i = 0; i < samples; ++i)
    for (int64_t s = 0; s < shapes; ++s) out[i] += parts[i * shapes + s];
}

// The ghost form of short samples: every entry of both Gram matrices by a dot product.
void direct(const Matrices& la, const Matrices& ra, const Matrices& lb, const Matrices& rb,
            bool symmetric, double* out) {
  const auto at = [](const Matrices& m, int64_t i, int64_t t) {
    return m.data + (i * m.each + t * m.row) * m.width;
  };
  constexpr int64_t kSamples = 16;
  const int64_t units = (la.count + kSamples - 1) / kSamples;
  share_work(units, workers_for(units), [&](int64_t, int64_t unit) {
    for (int64_t i = unit * kSamples; i < std::min((unit + 1) * kSamples, la.count); ++i)
      for (int64_t t = 0; t < la.rows; ++t)
        for (int64_t u = symmetric ? t : 0; u < lb.rows; ++u)
          out[i] += (symmetric && u != t ? 2.0 : 1.0) *
                    dot(at(la, i, t), at(lb, i, u), la.columns, la.width) *
                    dot(at(ra, i, t), at(rb, i, u), ra.columns, ra.width);
  });
}

Tensor grouped_gradient_products(Tensor left_a, Tensor right_a, Tensor left_b, Tensor right_b,
                                 std::string algorithm) {
  const ProductSizes sizes(left_a, right_a, left_b, right_b, algorithm);
  Tensor out = zeros_like_samples(sizes.samples);
  if (sizes.empty()) return out;
  const Matrices la = matrices_of(left_a), ra = matrices_of(right_a), lb = matrices_of(left_b),
                 rb = matrices_of(right_b);
  const auto one = [](const Matrices& a, const Matrices& b) {
    return a.data == b.data && a.each == b.each && a.row == b.row;
  };
  const int64_t ta = sizes.positions_a, tb = sizes.positions_b;
  const bool symmetric = ta == tb && one(la, lb) && one(ra, rb);
  double* sums = out.mutable_data_ptr<double>();
  if (sizes.formed(algorithm, symmetric, kTile))
    tiled({la.transposed(), ra, lb.transposed(), rb, symmetric, false}, sums);
  else if (ta * tb <= kDirect)
    direct(la, ra, lb, rb, symmetric, sums);
  else
    tiled({la, lb.transposed(), ra, rb.transposed(), false, symmetric}, sums);
  return out;
}

Tensor grouped_gradient_inner(Tensor left, Tensor right, Tensor v) {
  check_inner(left, right, v);
  const int64_t samples = left.size(0), t = left.size(1), r = left.size(2), k = right.size(2);
  Tensor out = zeros_like_samples(samples);
  if (samples * t * r * k == 0) return out;
  left = torch::stable::contiguous(left), right = torch::stable::contiguous(right);
  Tensor stacked = torch::stable::unsqueeze(v, 0);
  Matrices l = matrices_of(left), x = matrices_of(right);
  const Matrices matrix = matrices_of(stacked);
  l = Matrices::dense(l.data, 1, samples * t, r, l.width);
  x = Matrices::dense(x.data, 1, samples * t, k, x.width);
  const int64_t units = (l.rows + kInnerRows - 1) / kInnerRows, workers = workers_for(units);
  const int64_t columns = std::min(kTile, r);
  std::vector<std::vector<char>> scratch(workers);
  std::vector<double> parts(l.rows, 0.0);
  share_work(units, workers, [&](int64_t worker, int64_t unit) {
    std::vector<char>& room = scratch[worker];
    if (room.empty()) room.resize(kInnerRows * columns * l.width);
    const int64_t first = unit * kInnerRows, rows = std::min(kInnerRows, l.rows - first);
    for (int64_t c = 0; c < r; c += columns) {
      const int64_t n = std::min(columns, r - c);
      multiply(x.some_rows(first, rows), matrix.some_rows(c, n).transposed(),
               Matrices::dense(room.data(), 1, rows, n, l.width));
      for (int64_t i = 0; i < rows; ++i)
        parts[first + i] += dot(room.data() + i * n * l.width,
                                l.data + ((first + i) * r + c) * l.width, n, l.width);
    }
  });
  double* sums = out.mutable_data_ptr<double>();
  for (int64_t i = 0; i < samples; ++i)
    for (int64_t j = 0; j < t; ++j) sums[i] += parts[i * t + j];
  return out;
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_grouped_gradient_products", TORCH_BOX(&sltfast::grouped_gradient_products));
  m.impl("native_grouped_gradient_inner", TORCH_BOX(&sltfast::grouped_gradient_inner));
}
