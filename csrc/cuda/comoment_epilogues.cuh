// What is read from co-moments on the device: correlations, standardised draws, the best of each
// row.
#pragma once

#include "../numerics/moments.h"
#include "fours.cuh"

namespace sltfast {

constexpr int kRowThreads = 128;

// Threads kRowThreads, a block a row: out = block / √(m2_x·m2_y); `own`: y is x.
template <class Out>
__global__ void __launch_bounds__(kRowThreads, 1)
    correlate(Out* out, int64_t out_group, int64_t out_row, const double* block,
              int64_t block_group, int64_t block_row, const double* m2_x, const double* m2_y,
              bool own, int64_t groups, int64_t rows, int64_t columns) {
  for (int64_t row = blockIdx.x; row < groups * rows; row += gridDim.x) {
    const int64_t g = row / rows, i = row % rows;
    const double* from = block + g * block_group + i * block_row;
    Out* to = out + g * out_group + i * out_row;
    const double* m2 = m2_y + g * columns;
    const bool from_fours = holds_fours(from), to_fours = holds_fours(to);
    const double inverse_x = inverse_root(m2_x[row]);
    for (int64_t j = 4 * threadIdx.x; j < columns; j += 4 * kRowThreads) {
      double s[4];
      read_four(from + j, columns - j, from_fours, s);
      for (int c = 0; c < 4; ++c) {
        if (j + c >= columns) continue;
        s[c] = own && j + c == i && inverse_x > 0
                   ? 1
                   : correlation(s[c], inverse_x, inverse_root(m2[j + c]));
      }
      write_four(to + j, columns - j, to_fours, s);
    }
  }
}

struct StandardiseArguments {
  void* z;
  const void* x;
  const double *mean, *scale;  // [G, N]
  const uint8_t* valid;        // [G, k]
  int64_t groups, draws, variables, z_group, z_draw, x_group, x_draw;
};

// Threads kRowThreads, a block a draw.
template <class T, class Z>
__global__ void __launch_bounds__(kRowThreads) standardise(StandardiseArguments a) {
  for (int64_t row = blockIdx.x; row < a.groups * a.draws; row += gridDim.x) {
    const int64_t g = row / a.draws, t = row % a.draws;
    const T* from = static_cast<const T*>(a.x) + g * a.x_group + t * a.x_draw;
    Z* to = static_cast<Z*>(a.z) + g * a.z_group + t * a.z_draw;
    const bool counts = !a.valid || a.valid[row];
    const bool from_fours = holds_fours(from), to_fours = holds_fours(to);
    for (int64_t j = 4 * threadIdx.x; j < a.variables; j += 4 * kRowThreads) {
      const int64_t left = a.variables - j;
      double v[4] = {};
      if (counts) {
        read_four(from + j, left, from_fours, v);
        for (int c = 0; c < 4 && c < left; ++c)
          v[c] = (v[c] - a.mean[g * a.variables + j + c]) * a.scale[g * a.variables + j + c];
      }
      write_four(to + j, left, to_fours, v);
    }
  }
}

// One warp (a block of kWarp threads) a row: 32 columns at a time, those that beat the last place
// go in one after the other, and all lanes move the places behind. k > 0.
template <class T>
__global__ void __launch_bounds__(kWarp)
    rank_rows(T* values, int64_t* indices, int64_t k, const T* block, int64_t stride, int64_t rows,
              int64_t columns, int64_t column, int64_t own_row, bool absolute) {
  const int lane = threadIdx.x;
  for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    T* value = values + i * k;
    int64_t* index = indices + i * k;
    for (int64_t first = 0; first < columns; first += kWarp) {
      const int64_t j = first + lane, mine = column + j;
      const T x = j < columns ? block[i * stride + j] : T(0);
      const bool in_play = j < columns && (own_row < 0 || mine != own_row + i);
      const bool enters = in_play && ranks_before(x, mine, value[k - 1], index[k - 1], absolute);
      unsigned entering = __ballot_sync(kWholeWarp, enters);
      for (int source = 0; entering; entering >>= 1, ++source) {
        if (!(entering & 1)) continue;
        const T best = __shfl_sync(kWholeWarp, x, source);
        const int64_t at = __shfl_sync(kWholeWarp, mine, source);
        // from the back: a place is taken over from the one before it while the newcomer beats that
        for (int64_t top = (k - 1) / kWarp * kWarp; top >= 0; top -= kWarp) {
          const int64_t p = top + lane;
          const bool behind = p < k && ranks_before(best, at, value[p], index[p], absolute);
          const bool shifts =
              behind && p > 0 && ranks_before(best, at, value[p - 1], index[p - 1], absolute);
          const T v = shifts ? value[p - 1] : best;
          const int64_t n = shifts ? index[p - 1] : at;
          __syncwarp();
          if (behind) value[p] = v, index[p] = n;
          __syncwarp();
        }
      }
    }
  }
}

}  // namespace sltfast
