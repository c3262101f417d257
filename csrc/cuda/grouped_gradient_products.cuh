// Inner products of per-sample gradients g_i = Σ_t left[i,t]ᵀ right[i,t]. A block forms two tiles
// of 64 × 64 of two products of matrices, 4 × 4 of each a thread, and sums the products of their
// entries in double. An entry of a tile is a sum in T of n products (n: T, R or K), one after
// another with fma: n half ulps of its terms' absolute values. Every sum after it has a fixed
// order.
#pragma once

#include "grouped_gradient_tile.cuh"

namespace sltfast {

constexpr int kProductThreads = kTileThreads * kTileThreads;

// [B, rows, columns], columns neighbours in memory; strides in elements.
template <class T>
struct SampleMatrices {
  const T* data;
  int64_t rows, columns, sample, row;
};

template <class T>
struct GradientPair {
  SampleMatrices<T> left_a, right_a, left_b, right_b;
  bool same;  // a is b
  int64_t samples, shares;
  double* parts;  // [samples, shares]; of short_products [samples]
};

template <class T>
struct ProductPanel {
  alignas(
      16) T x[kTileDepth][kTileSide + 4];  // four more: half the conflicts where it is transposed
};

// This thread's share of a panel: four neighbours in memory. The tile's side runs over columns (and
// the sum over rows) where `Formed`, over rows otherwise.
template <bool Formed, class T>
__device__ __forceinline__ void load_product_panel(const SampleMatrices<T>& m, int64_t sample,
                                                   int64_t side, int64_t depth,
                                                   ProductPanel<T>& panel) {
  constexpr int kPlaces = (Formed ? kTileSide : kTileDepth) / 4;
  const int line = static_cast<int>(threadIdx.x) / kPlaces;
  const int place = static_cast<int>(threadIdx.x) % kPlaces * 4;
  const int64_t row = (Formed ? depth : side) + line, column = (Formed ? side : depth) + place;
  const int64_t left = m.columns - column;
  T x[4] = {};
  if (row < m.rows && left > 0) {
    const T* p = m.data + sample * m.sample + row * m.row + column;
    load_values(p, left >= 4 && holds_fours(p), left < 4 ? static_cast<int>(left) : 4, x);
  }
  if (Formed) {
    store_four(&panel.x[line][place], Four<T>{{x[0], x[1], x[2], x[3]}});
  } else {
    for (int j = 0; j < 4; ++j) panel.x[place + j][line] = x[j];
  }
}

// A tile of aᵀ b where `Formed`, else of a bᵀ.
template <bool Formed, class T>
__device__ __forceinline__ void sum_product(const SampleMatrices<T>& a, const SampleMatrices<T>& b,
                                            int64_t sample, int64_t r0, int64_t c0,
                                            T (&sums)[4][4]) {
  __shared__ ProductPanel<T> of_a, of_b;
  const int down = 4 * (static_cast<int>(threadIdx.x) / kTileThreads);
  const int across = 4 * (static_cast<int>(threadIdx.x) % kTileThreads);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) sums[i][j] = 0;
  const int64_t terms = Formed ? a.rows : a.columns;
  for (int64_t first = 0; first < terms; first += kTileDepth) {
    __syncthreads();  // the panels before these may still be read
    load_product_panel<Formed>(a, sample, r0, first, of_a);
    load_product_panel<Formed>(b, sample, c0, first, of_b);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kTileDepth; ++n) {
      const Four<T> x = load_four(&of_a.x[n][down]), y = load_four(&of_b.x[n][across]);
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sums[i][j] = Scalar<T>::fma(x.x[i], y.x[j], sums[i][j]);
    }
  }
}

// A block takes tiles share, share + shares, … of a sample: of g (formed), or of Gram matrices.
template <bool Formed, class T>
__global__ void __launch_bounds__(kProductThreads, 2)
    tiled_products(const __grid_constant__ GradientPair<T> p) {
  const int64_t rows = Formed ? p.left_a.columns : p.left_a.rows;
  const int64_t columns = Formed ? p.right_a.columns : p.left_b.rows;
  const int64_t wide = tiles_of(columns), tiles = tiles_of(rows) * wide;
  const int64_t down = threadIdx.x / kTileThreads * 4, across = threadIdx.x % kTileThreads * 4;
  for (int64_t unit = blockIdx.x; unit < p.samples * p.shares; unit += gridDim.x) {
    const int64_t sample = unit / p.shares;
    double total[1] = {0};
    for (int64_t tile = unit % p.shares; tile < tiles; tile += p.shares) {
      const int64_t r0 = tile / wide * kTileSide, c0 = tile % wide * kTileSide;
      const bool mirrored = !Formed && p.same && c0 != r0;
      if (mirrored && c0 < r0) continue;  // the same for the whole block
      T one[4][4], two[4][4];
      sum_product<Formed>(p.left_a, Formed ? p.right_a : p.left_b, sample, r0, c0, one);
      const bool again = !(Formed && p.same);
      if (again) sum_product<Formed>(Formed ? p.left_b : p.right_a, p.right_b, sample, r0, c0, two);
      double sum = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j)
          if (r0 + down + i < rows && c0 + across + j < columns)  // beyond: 0·∞ may be NaN
            sum +=
                static_cast<double>(one[i][j]) * static_cast<double>(again ? two[i][j] : one[i][j]);
      total[0] += mirrored ? 2 * sum : sum;
    }
    block_sums(total);
    if (threadIdx.x == 0) p.parts[unit] = total[0];
  }
}

template <class T>
__device__ __forceinline__ double warp_dot(const T* a, const T* b, int64_t count) {
  T sum = 0;
  for (int64_t i = threadIdx.x % kWarp; i < count; i += kWarp)
    sum = Scalar<T>::fma(a[i], b[i], sum);
  return warp_sum(static_cast<double>(sum));
}

// The ghost form of few positions: a block a sample, a warp an entry of both Gram matrices.
template <class T>
__global__ void __launch_bounds__(kProductThreads)
    short_products(const __grid_constant__ GradientPair<T> p) {
  const auto at = [](const SampleMatrices<T>& m, int64_t i, int64_t t) {
    return m.data + i * m.sample + t * m.row;
  };
  for (int64_t i = blockIdx.x; i < p.samples; i += gridDim.x) {
    double total[1] = {0};
    for (int64_t entry = threadIdx.x / kWarp; entry < p.left_a.rows * p.left_b.rows;
         entry += kProductThreads / kWarp) {
      const int64_t t = entry / p.left_b.rows, u = entry % p.left_b.rows;
      if (p.same && u < t) continue;
      const double x = warp_dot(at(p.left_a, i, t), at(p.left_b, i, u), p.left_a.columns);
      const double y = warp_dot(at(p.right_a, i, t), at(p.right_b, i, u), p.right_a.columns);
      if (threadIdx.x % kWarp == 0) total[0] += (p.same && u != t ? 2 * x : x) * y;
    }
    block_sums(total);
    if (threadIdx.x == 0) p.parts[i] = total[0];
  }
}

}  // namespace sltfast
