// The chains of a step as a block sees them, and what the last block makes of them.
#pragma once

#include <new>

#include "../numerics/langevin.h"
#include "langevin_table.cuh"

namespace sltfast {

constexpr int kChains = kWarp;  // chains whose coefficients a block holds at a time

template <class T>
struct MovingChain {
  Langevin<Scalar<T>> step;
  int index;
  uint32_t step_word, id;
};

// Shared memory for them; nothing is built in it before read_chains does.
template <class T>
struct alignas(16) ChainRoom {
  unsigned char bytes[kChains * sizeof(MovingChain<T>)];
  __device__ __forceinline__ MovingChain<T>* chains() {
    return reinterpret_cast<MovingChain<T>*>(bytes);
  }
};

__device__ __forceinline__ bool finite(double x) { return x - x == 0; }

// Those of the chains [first, first + kChains) that take this step, in order; returns their number.
template <class T>
__device__ __forceinline__ int read_chains(const LangevinStep& s, int first, MovingChain<T>* out) {
  __shared__ int count;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int c = first + static_cast<int>(threadIdx.x);
    const bool moves = c < s.chains && (!s.alive || s.alive[c]) && (!s.loss || finite(s.loss[c]));
    const unsigned moving = __ballot_sync(kWholeWarp, moves);
    if (moves) {
      const ChainStep chain = chain_step(s.method, s.hyper + 6 * c, *s.step, s.chain_ids[c],
                                         s.thermostat ? s.thermostat[c] : 0.0);
      new (out + __popc(moving & ((1u << threadIdx.x) - 1)))
          MovingChain<T>{Langevin<Scalar<T>>(chain), c, chain.step, chain.chain};
    }
    if (threadIdx.x == 0) count = __popc(moving);
  }
  __syncthreads();
  return count;
}

// Sum `k` of chain `c` over all blocks, by one warp, in a fixed order.
__device__ __forceinline__ double sum_of_blocks(const LangevinStep& s, int c, int k) {
  double sum = 0;
  for (uint32_t b = threadIdx.x % kWarp; b < s.blocks; b += kWarp)
    sum += s.sums[(static_cast<int64_t>(b) * s.chains + c) * kSums + k];
  return warp_sum(sum);
}

// The end of chain `c`, by one warp.
__device__ __forceinline__ void finish_chain(const LangevinStep& s, int c) {
  const bool leads = threadIdx.x % kWarp == 0;
  const bool lives = !s.alive || s.alive[c];
  const bool moved = lives && (!s.loss || finite(s.loss[c]));
  const bool dies = lives && (!moved || s.broken[c]);
  const double zeta = s.thermostat ? s.thermostat[c] : 0.0;
  const ChainStep chain = chain_step(s.method, s.hyper + 6 * c, *s.step, s.chain_ids[c], zeta);
  __syncwarp();  // every lane has read what the first now writes
  if (s.metrics) {
    double m[9];
    for (int k = 0; k < 9; ++k) m[k] = moved ? sum_of_blocks(s, c, k) : 0.0;
    finish_metrics(chain, m);
    for (int k = 0; k < 9 && leads; ++k) s.metrics[9 * c + k] = moved ? m[k] : nan("");
  }
  if (s.thermostat && moved && !dies) {
    const double squares = sum_of_blocks(s, c, 9), movable = sum_of_blocks(s, c, 10);
    if (leads && movable > 0) s.thermostat[c] = next_thermostat(zeta, squares / movable, chain.lr);
  }
  if (!dies || !leads) return;
  if (s.alive) s.alive[c] = 0;
  if (s.death_step) s.death_step[c] = *s.step;
}

// No block sees a chain die in the middle of a step: the last block decides when all are done.
__device__ __forceinline__ void finish_step(const LangevinStep& s) {
  if (!s.alive && !s.death_step && !s.metrics && !s.thermostat) return;
  if (!last_block(s.ticket, s.blocks)) return;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int c = static_cast<int>(threadIdx.x) / kWarp; c < s.chains; c += warps) finish_chain(s, c);
}

}  // namespace sltfast
