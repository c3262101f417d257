// ⟨g_i, V⟩ = Σ_t left[i,t]·(V right[i,t]): tiles of right Vᵀ, all samples' positions one below the
// other, against left; and the sum of what blocks leave behind.
#pragma once

#include "grouped_gradient_products.cuh"

namespace sltfast {

// left [1, B·T, R], right [1, B·T, K], V [1, R, K]; parts [B·T, tiles of R]. An entry of a tile is
// a sum in T of K products; all after it is in double.
template <class T>
__global__ void __launch_bounds__(kProductThreads, 2)
    inner_products(const __grid_constant__ SampleMatrices<T> left,
                   const __grid_constant__ SampleMatrices<T> right,
                   const __grid_constant__ SampleMatrices<T> v, double* parts) {
  const int64_t wide = tiles_of(left.columns), units = tiles_of(left.rows) * wide;
  const int64_t down = threadIdx.x / kTileThreads * 4, across = threadIdx.x % kTileThreads * 4;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t r0 = unit / wide * kTileSide, c0 = unit % wide * kTileSide;
    T sums[4][4];
    sum_product<false>(right, v, 0, r0, c0, sums);
    const int64_t column = c0 + across, beyond = left.columns - column;
    const int count = beyond < 4 ? static_cast<int>(beyond) : 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = r0 + down + i;
      double total = 0;
      if (row < left.rows && count > 0) {
        const T* p = left.data + row * left.row + column;
        T x[4];
        load_values(p, count == 4 && holds_fours(p), count, x);
        for (int j = 0; j < 4; ++j)
          if (j < count) total += static_cast<double>(sums[i][j]) * static_cast<double>(x[j]);
      }
      for (int by = kTileThreads / 2; by > 0; by /= 2)
        total += __shfl_xor_sync(kWholeWarp, total, by);
      if (across == 0 && row < left.rows) parts[row * wide + unit % wide] = total;
    }
  }
}

// out[i] = Σ parts[i, :], a warp a sample.
__global__ void __launch_bounds__(kProductThreads)
    sum_parts(const double* parts, double* out, int64_t samples, int64_t count) {
  constexpr int64_t kWarps = kProductThreads / kWarp;
  const int64_t lane = threadIdx.x % kWarp;
  for (int64_t i = blockIdx.x * kWarps + threadIdx.x / kWarp; i < samples;
       i += gridDim.x * kWarps) {
    double total = 0;
    for (int64_t j = lane; j < count; j += kWarp) total += parts[i * count + j];
    total = warp_sum(total);
    if (lane == 0) out[i] = total;
  }
}

}  // namespace sltfast
