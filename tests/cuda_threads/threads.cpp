// The harness on trial: what it computes, and that sanitizers find mistakes planted in a kernel.
#include <cstdio>
#include <string>

#include "device.cuh"

namespace {

using cuda_threads::launch;
using cuda_threads::Order;
using sltfast::kWholeWarp;

#define REQUIRE(condition)                                       \
  if (!(condition)) {                                            \
    std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
    std::abort();                                                \
  }

void places() {
  std::vector<int> visits(3 * 2 * 4 * 8, 0);
  launch({3, 2}, {8, 4}, [&] {
    REQUIRE(blockDim.x == 8 && blockDim.y == 4 && blockDim.z == 1 && gridDim.x == 3);
    const unsigned block = blockIdx.x + gridDim.x * blockIdx.y;
    ++visits[(block * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x];
  });
  for (int count : visits) REQUIRE(count == 1);
}

void shuffles() {
  launch({2}, {80}, [] {  // the third warp has 16 lanes
    const int lane = threadIdx.x % 32, lanes = threadIdx.x < 64 ? 32 : 16;
    const double base = 1000.0 * (threadIdx.x / 32), x = base + lane;
    REQUIRE(__shfl_xor_sync(kWholeWarp, x, 5) == (lane ^ 5) + base);
    REQUIRE(__shfl_up_sync(kWholeWarp, x, 3) == (lane >= 3 ? x - 3 : x));
    const double below = __shfl_down_sync(kWholeWarp, x, 3);
    REQUIRE(lane + 3 >= lanes || below == x + 3);
    REQUIRE(lanes < 32 || lane < 29 || below == x);
    REQUIRE(__shfl_sync(kWholeWarp, x, 7) == base + 7);
    REQUIRE(__shfl_sync(kWholeWarp, x, 9, 8) == base + lane / 8 * 8 + 1);
    REQUIRE(__ballot_sync(kWholeWarp, lane % 2) == (lanes == 32 ? 0xAAAAAAAAu : 0xAAAAu));
    REQUIRE(__any_sync(kWholeWarp, lane == 3) && !__any_sync(kWholeWarp, 0));
    REQUIRE(__all_sync(kWholeWarp, lane < 32) && !__all_sync(kWholeWarp, lane != 3));
  });
}

void barriers() {
  launch({3}, {96}, [] {
    __shared__ int turn[96];
    __shared__ int of_warp[96];
    turn[threadIdx.x] = static_cast<int>(threadIdx.x);
    of_warp[threadIdx.x] = -1;
    for (int round = 0; round < 20; ++round) {
      __syncthreads();
      const int next = turn[(threadIdx.x + 1) % 96];
      __syncthreads();
      turn[threadIdx.x] = next;
    }
    REQUIRE(turn[threadIdx.x] == static_cast<int>((threadIdx.x + 20) % 96));
    of_warp[threadIdx.x] = static_cast<int>(threadIdx.x % 32);
    __syncwarp();
    REQUIRE(of_warp[threadIdx.x ^ 1] == static_cast<int>((threadIdx.x ^ 1) % 32));
  });
}

void atomics() {
  float sum = 0;
  double exact = 0;
  int most = -1, least = 1 << 20;
  unsigned long long bits = 0, all = ~0ull;
  int owner = -1, ring = 0;
  std::atomic<int> winners = 0;
  launch({4}, {64}, [&] {
    const int i = static_cast<int>(threadIdx.x + blockDim.x * blockIdx.x);
    atomicAdd(&sum, 1.0f);
    atomicAdd(&exact, 0.5);
    atomicMax(&most, i);
    atomicMin(&least, i);
    atomicOr(&bits, 1ull << threadIdx.x);
    atomicAnd(&all, ~(1ull << threadIdx.x));
    if (atomicCAS(&owner, -1, i) == -1) ++winners;
    atomicExch(&ring, i);
  });
  REQUIRE(sum == 256 && exact == 128 && most == 255 && least == 0 && bits == ~0ull && all == 0);
  REQUIRE(winners == 1 && owner >= 0 && ring >= 0);
}

void primitives(Order order) {
  unsigned ticket = 0;
  double out[5][2] = {};
  int last = 0, who = -1;
  launch(
      {5}, {96},
      [&] {
        for (int round = 1; round <= 3; ++round) {
          double x[2] = {1.0 * threadIdx.x, 1.0 * round};
          sltfast::block_sums(x);
          if (threadIdx.x == 0) out[blockIdx.x][0] += x[0], out[blockIdx.x][1] += x[1];
        }
        const bool final = sltfast::last_block(&ticket, gridDim.x);
        if (final && threadIdx.x == 0) ++last, who = static_cast<int>(blockIdx.x);
      },
      order);
  for (auto& sums : out) REQUIRE(sums[0] == 3 * 95 * 96 / 2 && sums[1] == 6 * 96);
  REQUIRE(last == 1 && who == (order == Order::forward ? 4 : 0));
  alignas(16) float values[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  REQUIRE(sltfast::holds_fours(values) && !sltfast::holds_fours(values + 1));
  sltfast::store_four(values, sltfast::load_four(values + 4));
  REQUIRE(values[0] == 4 && values[3] == 7);
}

// Planted: what each sanitizer must find.
void race() {
  launch({1}, {64}, [] {
    __shared__ int box[64];
    box[threadIdx.x] = 1;
    const int seen = box[63 - threadIdx.x];  // no barrier before
    __syncthreads();
    box[threadIdx.x] = seen;
  });
}
void out_of_bounds() {
  std::vector<float> w(64);
  launch({2}, {40}, [&] { w[threadIdx.x + blockDim.x * blockIdx.x] = 1; });
}
void misaligned() {
  alignas(16) float values[8] = {};
  const float* at = values + 1;
  launch({1}, {32}, [&] { REQUIRE(sltfast::load_four(at).x[0] == 0); });
}
void part_of_a_warp() {
  launch({1}, {32}, [] { __shfl_xor_sync(0xFFFFu, 1, 1); });
}

}  // namespace

int main(int count, char** arguments) {
  const std::string planted = count > 1 ? arguments[1] : "";
  if (planted == "race") return race(), 0;
  if (planted == "out of bounds") return out_of_bounds(), 0;
  if (planted == "misaligned") return misaligned(), 0;
  if (planted == "part of a warp") return part_of_a_warp(), 0;
  places();
  shuffles();
  barriers();
  atomics();
  primitives(Order::forward);
  primitives(Order::backward);
}
