// A tile of 64 × 64 of Σ_n s_n·left[n]ᵀ right[n], 4 × 4 a thread, through shared memory 16
// positions at a time.
#pragma once

#include "../numerics/dtype.h"
#include "../numerics/gaussian.h"
#include "../numerics/langevin_chain.h"
#include "../numerics/operands.h"
#include "../numerics/scalar.h"
#include "device.cuh"

namespace sltfast {

constexpr int kTileThreads = 16;  // down and across
constexpr int kTileSide = 4 * kTileThreads;
constexpr int kTileDepth = 16;

// left or right: [C, N, columns], rows dense; strides in elements.
struct TileFactor {
  const void* data;
  Dtype dtype;
  int64_t columns, chain, row;
};

SLT_HD int64_t tiles_of(int64_t columns) { return (columns + kTileSide - 1) / kTileSide; }

// Up to four neighbours, zeros after `count`.
template <class S, class T>
__device__ __forceinline__ void load_values(const S* p, bool fours, int count, T (&out)[4]) {
  if (fours) {
    const Four<S> x = load_four(p);
    for (int j = 0; j < 4; ++j) out[j] = static_cast<T>(x.x[j]);
  } else {
    for (int j = 0; j < 4; ++j) out[j] = j < count ? static_cast<T>(p[j]) : T(0);
  }
}

template <class T>
__device__ __forceinline__ void load_widened(const void* data, Dtype dtype, int64_t at, int count,
                                             T (&out)[4]) {
  if (dtype == Dtype::f32) {
    const float* p = static_cast<const float*>(data) + at;
    load_values(p, count == 4 && holds_fours(p), count, out);
  } else if (dtype == Dtype::f64) {
    const double* p = static_cast<const double*>(data) + at;
    load_values(p, count == 4 && holds_fours(p), count, out);
  } else {
    const uint16_t* p = static_cast<const uint16_t*>(data) + at;
    uint16_t x[4];
    load_values(p, count == 4 && holds_fours(p), count, x);
    for (int j = 0; j < 4; ++j)
      out[j] = static_cast<T>(dtype == Dtype::bf16 ? from_bfloat16(x[j]) : from_float16(x[j]));
  }
}

// This thread's share of a panel of 16 positions: one of them, four columns.
template <class T>
__device__ __forceinline__ void load_panel(const TileFactor& f, const T* weights, Operands operands,
                                           int c, int64_t first_column, int64_t first,
                                           int64_t positions,
                                           Four<T> (&panel)[kTileDepth][kTileThreads]) {
  const int depth = static_cast<int>(threadIdx.x) / kTileThreads;
  const int place = static_cast<int>(threadIdx.x) % kTileThreads;
  const int64_t n = first + depth, column = first_column + 4 * place, left = f.columns - column;
  T x[4] = {};
  if (n < positions && left > 0) {
    load_widened(f.data, f.dtype, c * f.chain + n * f.row + column,
                 left < 4 ? static_cast<int>(left) : 4, x);
    const T weight = weights ? weights[n] : T(1);
    for (int j = 0; j < 4; ++j) x[j] = rounded(weights ? weight * x[j] : x[j], operands);
  }
  panel[depth][place] = Four<T>{{x[0], x[1], x[2], x[3]}};
}

// Sums in T, one position after another: the same bits for any grid.
template <class T>
__device__ __forceinline__ void sum_tile(const TileFactor& left, const TileFactor& right,
                                         const T* weights, Operands operands, int c, int64_t r0,
                                         int64_t k0, int64_t positions, T (&sums)[4][4]) {
  __shared__ Four<T> rows[kTileDepth][kTileThreads];
  __shared__ Four<T> columns[kTileDepth][kTileThreads];
  const int down = static_cast<int>(threadIdx.x) / kTileThreads;
  const int across = static_cast<int>(threadIdx.x) % kTileThreads;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) sums[i][j] = 0;
  const T* none = nullptr;
  for (int64_t first = 0; first < positions; first += kTileDepth) {
    __syncthreads();  // the panels before these may still be read
    load_panel(left, weights, operands, c, r0, first, positions, rows);
    load_panel(right, none, operands, c, k0, first, positions, columns);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kTileDepth; ++n) {
      const Four<T> a = rows[n][down], b = columns[n][across];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sums[i][j] = Scalar<T>::fma(a.x[i], b.x[j], sums[i][j]);
    }
  }
  __syncthreads();  // what thread 0 wrote before the sum is seen after it, also where N = 0
}

}  // namespace sltfast
