// The primitives that every CUDA kernel here is made of. Under SLT_ON_THREADS the same kernels run
// on CPU threads (tests/cuda_threads).
#pragma once

#if defined(SLT_ON_THREADS)
#include "atomics.h"
#include "threads.h"
#include "votes.h"
#endif

#include <cstdint>

namespace sltfast {

constexpr unsigned kWholeWarp = 0xFFFFFFFFu;
constexpr int kWarp = 32;

// Four neighbours in memory, moved by accesses of 16 bytes (8 where four take less).
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T x[4];
};

template <class T>
__device__ __forceinline__ Four<T> load_four(const T* p) {
  return *reinterpret_cast<const Four<T>*>(p);
}
template <class T>
__device__ __forceinline__ void store_four(T* p, const Four<T>& x) {
  *reinterpret_cast<Four<T>*>(p) = x;
}

// True where Four<T> may be loaded from p.
template <class T>
__host__ __device__ inline bool holds_fours(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % alignof(Four<T>) == 0;
}

// Σ over the lanes of a warp, the same tree every time; every lane gets it.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int by = kWarp / 2; by > 0; by /= 2) x += __shfl_xor_sync(kWholeWarp, x, by);
  return x;
}

// Σ over the threads of a block of whole warps, in a fixed order: valid in thread 0.
template <int N, class T>
__device__ __forceinline__ void block_sums(T (&x)[N]) {
  __shared__ T of_warp[kWarp][N];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  __syncthreads();  // thread 0 may still read the sums before these
  for (int i = 0; i < N; ++i) {
    x[i] = warp_sum(x[i]);
    if (lane == 0) of_warp[warp][i] = x[i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < static_cast<int>(blockDim.x) / kWarp; ++w)
    for (int i = 0; i < N; ++i) x[i] += of_warp[w][i];
}

// True in every thread of the block that is the last of `blocks` to come here: it sees what the
// others wrote before. `ticket` starts at zero.
__device__ __forceinline__ bool last_block(unsigned* ticket, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == blocks - 1;
  __syncthreads();
  __threadfence();
  return last;
}

}  // namespace sltfast
