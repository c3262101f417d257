// The elementwise halves of `token_loss`: a tile of products ⟨h_n, w_v⟩ becomes logits and is
// reduced, one block a token; or becomes the gradient by the products.
#pragma once

#include "../numerics/logsumexp.h"
#include "../numerics/rounding.h"
#include "device.cuh"

namespace sltfast {

template <class T>
struct DeviceTile {
  T* values;
  int64_t stride, rows, columns;
  int64_t first, vocabulary;  // of the columns; of the whole
  const T* bias;              // of the columns; null: none
  const int64_t* targets;     // of the rows
  int64_t ignore_index;
  double scale, softcap;  // softcap 0: none

  __device__ bool counts(int64_t row) const { return targets[row] != ignore_index; }
  __device__ bool in_range(int64_t row) const {
    return targets[row] >= 0 && targets[row] < vocabulary;
  }
  __device__ bool holds_fours_of(int64_t row) const {
    return holds_fours(values + row * stride) && (!bias || holds_fours(bias));
  }
};

// Calls visit(column, value&) for this thread's share of a row, values in fours where aligned, and
// writes back what visit leaves if `write`.
template <class T, class Visit>
__device__ __forceinline__ void each_of_row(const DeviceTile<T>& tile, int64_t row, bool write,
                                            const Visit& visit) {
  T* const values = tile.values + row * tile.stride;
  const int64_t fours = tile.holds_fours_of(row) ? tile.columns / 4 : 0;
  for (int64_t i = threadIdx.x; i < fours; i += blockDim.x) {
    Four<T> four = load_four(values + 4 * i);
#pragma unroll
    for (int k = 0; k < 4; ++k) visit(4 * i + k, four.x[k]);
    if (write) store_four(values + 4 * i, four);
  }
  for (int64_t i = 4 * fours + threadIdx.x; i < tile.columns; i += blockDim.x) {
    T value = values[i];
    visit(i, value);
    if (write) values[i] = value;
  }
}

__device__ __forceinline__ Partial merge_with_lane(Partial x, int by) {
  const double largest = __shfl_xor_sync(kWholeWarp, x.largest, by);
  const double sum = __shfl_xor_sync(kWholeWarp, x.sum, by);
  return merged(x, {largest, sum});
}

// Adds a tile to `parts` ([rows], largest and sum) and finds `at_target`; leaves logits in it.
template <class T>
__device__ __forceinline__ void reduce_tile(const DeviceTile<T>& tile, double* parts,
                                            double* at_target) {
  using One = Scalar<T>;
  __shared__ Partial of_warp[kWarp];
  const LogitRule<One> rule(tile.scale, tile.softcap);
  const bool rewrite = tile.bias || tile.scale != 1 || tile.softcap > 0;
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int64_t row = blockIdx.x; row < tile.rows; row += gridDim.x) {
    const int64_t target = tile.targets[row] - tile.first;
    T largest = -INFINITY, sum = 0;
    each_of_row(tile, row, rewrite, [&](int64_t i, T& value) {
      if (rewrite) value = rule.logit(tile.bias ? value + tile.bias[i] : value);
      if (i == target) at_target[row] = value;
      if (value > largest) {  // rare: a running maximum of n values is beaten ln n times
        if (sum != 0) sum *= exponential<One>(shift_of(largest) - shift_of(value));
        largest = value;
      }
      sum += exponential<One>(value - shift_of(largest));
    });
    Partial mine{largest, sum};
#pragma unroll
    for (int by = kWarp / 2; by > 0; by /= 2) mine = merge_with_lane(mine, by);
    __syncthreads();  // thread 0 may still read the parts of the row before
    if (threadIdx.x % kWarp == 0) of_warp[warp] = mine;
    __syncthreads();
    if (threadIdx.x != 0) continue;
    Partial all{parts[2 * row], parts[2 * row + 1]};
    for (int w = 0; w < warps; ++w) all = merged(all, of_warp[w]);
    parts[2 * row] = all.largest, parts[2 * row + 1] = all.sum;
  }
}

// The loss and lse of row `i` from its parts; 0 where ignored, NaN where the target is out of
// range.
template <class T>
__device__ __forceinline__ void finish_row(const DeviceTile<T>& tile, int64_t i,
                                           const double* parts, const double* at_target, T* loss,
                                           double* lse) {
  const double shift = shift_of(parts[2 * i]), logarithm = log(parts[2 * i + 1]);
  const double total = shift + logarithm;
  // logits are subtracted first: their difference is exact where the size of lse would round
  const double value = tile.in_range(i) ? shift - at_target[i] + logarithm : NAN;
  loss[i] = tile.counts(i) ? static_cast<T>(value) : T(0);
  lse[i] = tile.counts(i) ? total : 0.0;
}

// ρ_n·(exp(z − lse_n) − [v = y_n])·dz/da in place; `logits`: the tile holds z, else products. A row
// whose ρ is 0, or whose target is not in range, becomes 0.
template <class T>
__device__ __forceinline__ void gradient_tile(const DeviceTile<T>& tile, bool logits,
                                              const double* lse, const T* weights) {
  using One = Scalar<T>;
  const LogitRule<One> rule(tile.scale, tile.softcap);
  for (int64_t row = blockIdx.x; row < tile.rows; row += gridDim.x) {
    const int64_t target = tile.targets[row] - tile.first;
    const T weight = tile.counts(row) && tile.in_range(row) ? weights[row] : T(0);
    // in two values of T: z − high is exact near the maximum, and low mends high
    const T high = static_cast<T>(lse[row]);
    const T low = high - high == 0 ? static_cast<T>(lse[row] - high) : T(0);
    each_of_row(tile, row, true, [&](int64_t i, T& value) {
      const T z = logits ? value : rule.logit(tile.bias ? value + tile.bias[i] : value);
      const T probability = exponential<One>((z - high) - low);
      const T difference = i == target ? probability - 1 : probability;
      value = weight == 0 ? T(0) : weight * difference * rule.slope(z);
    });
  }
}

// Σ ρ·ℓ by one block; a weight of 0 leaves its token out, whatever its loss.
template <class T>
__device__ __forceinline__ void weighted_sum(const T* loss, const T* weights, int64_t count,
                                             T* total) {
  double sum[1] = {0};
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x)
    if (weights[i] != 0) sum[0] += static_cast<double>(weights[i]) * loss[i];
  block_sums(sum);
  if (threadIdx.x == 0) *total = static_cast<T>(sum[0]);
}

}  // namespace sltfast
