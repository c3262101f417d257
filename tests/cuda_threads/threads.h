// CUDA's execution model on CPU threads, for tests: one std::thread for each CUDA thread of a
// block, blocks one after another.
//   __shared__ is static (what a block leaves behind the next one finds, as on a GPU);
//   __syncthreads is a std::barrier; a warp exchanges values through an array of 32 lanes;
//   atomics are std::atomic_ref, relaxed, as CUDA's are.
// Every thread that has not returned must reach every barrier, and every lane of a warp every
// warp function; the masks of those must name the whole warp.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

constexpr int warpSize = 32;
inline thread_local constinit dim3 threadIdx{}, blockIdx{}, blockDim{}, gridDim{};

namespace cuda_threads {

struct Warp {
  std::barrier<> gate;
  uint64_t lanes[2][warpSize] = {};  // in turn, so that one barrier an exchange is enough
  explicit Warp(std::ptrdiff_t threads) : gate(threads) {}
};

struct Block {
  std::barrier<> gate;
  std::vector<std::unique_ptr<Warp>> warps;
  explicit Block(unsigned threads) : gate(threads) {
    for (unsigned first = 0; first < threads; first += warpSize)
      warps.push_back(std::make_unique<Warp>(std::min<unsigned>(warpSize, threads - first)));
  }
};

struct Place {
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0;
  unsigned turn = 0;
};
inline thread_local constinit Place here{};

inline void whole_warp(unsigned mask) {
  if (mask == 0xFFFFFFFFu) return;
  std::fprintf(stderr, "a warp function's mask must be 0xffffffff, got %#x\n", mask);
  std::abort();
}

// Calls read(lanes) when every lane has given its value.
template <class T, class Read>
auto exchange(unsigned mask, T value, const Read& read) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  whole_warp(mask);
  Warp& warp = *here.warp;
  uint64_t* lanes = warp.lanes[here.turn ^= 1];
  std::memcpy(&lanes[here.lane], &value, sizeof value);
  warp.gate.arrive_and_wait();
  return read(lanes);
}

// The value of lane `from`; a lane outside of [first, first + width) gives the thread its own.
template <class T>
T take(unsigned mask, T value, int from, int width) {
  const int first = static_cast<int>(here.lane) / width * width;
  const bool inside = from >= first && from < first + width;
  return exchange(mask, value, [&](const uint64_t* lanes) {
    T out;
    std::memcpy(&out, &lanes[inside ? from : static_cast<int>(here.lane)], sizeof out);
    return out;
  });
}

enum class Order { forward, backward };  // of the blocks: results must not depend on it

// kernel<<<grid, block>>>: `kernel` is a callable without arguments.
template <class Kernel>
void launch(dim3 grid, dim3 block, const Kernel& kernel, Order order = Order::forward) {
  const unsigned count = block.x * block.y * block.z;
  Block state(count);
  const auto run = [&](unsigned thread) {
    here = {&state, state.warps[thread / warpSize].get(), thread % warpSize};
    threadIdx = {thread % block.x, thread / block.x % block.y, thread / block.x / block.y};
    blockDim = block, gridDim = grid;
    const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t b = order == Order::forward ? i : blocks - 1 - i;
      blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                  static_cast<unsigned>(b / grid.x / grid.y)};
      kernel();
      state.gate.arrive_and_wait();
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < count; ++thread) threads.emplace_back(run, thread);
}

}  // namespace cuda_threads

inline void __syncthreads() { cuda_threads::here.block->gate.arrive_and_wait(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  cuda_threads::whole_warp(mask);
  cuda_threads::here.warp->gate.arrive_and_wait();
}
inline void __threadfence() {}  // blocks follow one another; threads of one meet at barriers

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = warpSize) {
  const int lane = static_cast<int>(cuda_threads::here.lane);
  return cuda_threads::take(mask, value, lane / width * width + (from & (width - 1)), width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
  return cuda_threads::take(mask, value, static_cast<int>(cuda_threads::here.lane + by), width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
  const int lane = static_cast<int>(cuda_threads::here.lane);
  return cuda_threads::take(mask, value, lane - static_cast<int>(by), width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = warpSize) {
  return cuda_threads::take(mask, value, static_cast<int>(cuda_threads::here.lane) ^ by, width);
}
