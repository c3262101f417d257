// Votes of a warp, over the lanes that the warp has.
#pragma once

#include <bit>

#include "threads.h"

inline unsigned __ballot_sync(unsigned mask, int vote) {
  const unsigned in_block = blockDim.x * blockDim.y * blockDim.z;
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned lanes = std::min<unsigned>(warpSize, in_block - thread / warpSize * warpSize);
  return cuda_threads::exchange(mask, static_cast<uint64_t>(vote != 0), [&](const uint64_t* votes) {
    unsigned out = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) out |= static_cast<unsigned>(votes[lane]) << lane;
    return out;
  });
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }
