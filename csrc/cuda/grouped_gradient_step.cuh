// The Langevin step in the epilogue of the group's gradient G_c = Σ_n s_n·left[n]ᵀ right[n]: a
// block sums a tile of 64 × 64 in registers, and every thread moves the 4 × 4 coordinates it has
// summed.
#pragma once

#include "../numerics/langevin.h"
#include "grouped_gradient_tile.cuh"

namespace sltfast {

// Everything that a chain owns lies in device memory.
struct GroupedGradientStep {
  TileFactor left, right;
  const void* weights;  // of w's type; null: all one
  int64_t positions;    // N
  Operands operands;
  void* w;
  int64_t row, offset;  // coordinates from one chain to the next; where the segment starts
  const void* anchor;
  Dtype anchor_dtype;
  int64_t element, element_row;  // of the full model: the first, and from one row to the next
  int chains;
  LangevinMethod method;
  const double* hyper;
  const int64_t *step, *chain_ids;
  const double* loss;
  uint8_t* alive;
  int64_t* death_step;
  uint32_t* ticket;  // blocks that are done
  uint32_t* broken;  // [C]: a new value was not finite
};

__device__ __forceinline__ bool takes_step(const GroupedGradientStep& s, int c) {
  return (!s.alive || s.alive[c]) && (!s.loss || s.loss[c] - s.loss[c] == 0);
}

template <class T>
__device__ __forceinline__ T chosen(const T (&x)[4], uint32_t place) {
  return place & 2 ? (place & 1 ? x[3] : x[2]) : (place & 1 ? x[1] : x[0]);
}

// The normals of a group of four elements.
__device__ __forceinline__ void group_normals(const ChainStep& c, int64_t group, float (&out)[4]) {
  const uint32_t low = static_cast<uint32_t>(group);
  const PhiloxStream<Scalar<float>> stream(
      c.seed, static_cast<uint32_t>(group >> 32) | c.stream << 24, c.step, c.chain);
  normals_of_groups<Scalar<float>>(stream, &low, out);
}

// Moves `count` (1 to 4) neighbours whose gradients are g; returns whether a new value was not
// finite.
template <class T>
__device__ __forceinline__ bool move_neighbours(const GroupedGradientStep& s, const ChainStep& c,
                                                const Langevin<Scalar<T>>& step, T* w, int64_t at,
                                                int64_t element, int count, const T (&g)[4]) {
  float first[4], second[4];
  const uint32_t place = static_cast<uint32_t>(element & 3);
  group_normals(c, element >> 2, first);
  const bool two = place + static_cast<uint32_t>(count) > 4;
  for (int j = 0; j < 4; ++j) second[j] = 0;
  if (two) group_normals(c, (element >> 2) + 1, second);
  T old[4], anchor[4];
  const bool fours = count == 4 && holds_fours(w);
  load_values(w, fours, count, old);
  load_widened(s.anchor, s.anchor_dtype, at, count, anchor);
  bool broken = false;
  for (int j = 0; j < 4; ++j) {
    const uint32_t from = place + static_cast<uint32_t>(j);
    const T xi = static_cast<T>(from < 4 ? chosen(first, from) : chosen(second, from - 4));
    const T moved = old[j] + step.plain_increment(g[j], old[j], old[j] - anchor[j], xi);
    const bool lost = Scalar<T>::not_finite(moved) && j < count;
    broken |= lost;
    old[j] = lost ? old[j] : step.boxed(moved, anchor[j]);
  }
  if (fours) {
    store_four(w, Four<T>{{old[0], old[1], old[2], old[3]}});
  } else {
    for (int j = 0; j < 4; ++j)
      if (j < count) w[j] = old[j];
  }
  return broken;
}

template <class T>
__device__ __forceinline__ void move_tile(const GroupedGradientStep& s, const ChainStep& chain,
                                          int c, int64_t r0, int64_t k0, const T (&sums)[4][4]) {
  const Langevin<Scalar<T>> step(chain);
  const int64_t r = r0 + threadIdx.x / kTileThreads * 4, k = k0 + threadIdx.x % kTileThreads * 4;
  const int64_t across = s.right.columns;
  if (k >= across) return;
  const int count = across - k < 4 ? static_cast<int>(across - k) : 4;
  bool broken = false;
#pragma unroll  // or the sums, picked by i, would leave the registers
  for (int i = 0; i < 4; ++i) {
    if (r + i < s.left.columns) {
      const int64_t at = (r + i) * across + k;
      T* w = static_cast<T*>(s.w) + c * s.row + s.offset + at;
      broken |= move_neighbours(s, chain, step, w, at, s.element + (r + i) * s.element_row + k,
                                count, sums[i]);
    }
  }
  if (broken) atomicOr(s.broken + c, 1u);
}

// No block sees a chain die in the middle of a step: the last block decides when all are done.
__device__ __forceinline__ void end_step(const GroupedGradientStep& s) {
  if (!s.alive && !s.death_step) return;
  if (!last_block(s.ticket, gridDim.x)) return;
  for (int c = static_cast<int>(threadIdx.x); c < s.chains; c += static_cast<int>(blockDim.x)) {
    if ((s.alive && !s.alive[c]) || (takes_step(s, c) && !s.broken[c])) continue;
    if (s.alive) s.alive[c] = 0;
    if (s.death_step) s.death_step[c] = *s.step;
  }
}

// Chains innermost: blocks that run together share the anchor's tile.
template <class T>
__global__ void __launch_bounds__(kTileThreads* kTileThreads, 2)
    grouped_gradient_step(const __grid_constant__ GroupedGradientStep s) {
  __shared__ ChainStep chain;
  const int64_t down = tiles_of(s.left.columns), across = tiles_of(s.right.columns);
  for (int64_t unit = blockIdx.x; unit < down * across * s.chains; unit += gridDim.x) {
    const int c = static_cast<int>(unit % s.chains);
    if (!takes_step(s, c)) continue;
    const int64_t r0 = unit / s.chains / across * kTileSide;
    const int64_t k0 = unit / s.chains % across * kTileSide;
    __syncthreads();  // the tile before this one may still read its chain
    if (threadIdx.x == 0)
      chain = chain_step(s.method, s.hyper + 6 * c, *s.step, s.chain_ids[c], 0.0);
    T sums[4][4];
    const T* weights = s.weights ? static_cast<const T*>(s.weights) + c * s.positions : nullptr;
    sum_tile(s.left, s.right, weights, s.operands, c, r0, k0, s.positions, sums);
    move_tile(s, chain, c, r0, k0, sums);
  }
  end_step(s);
}

}  // namespace sltfast
