// Joins draws to the moments of their variables and centres them, on the device.
#pragma once

#include "../numerics/moments.h"
#include "fours.cuh"

namespace sltfast {

// A block takes 128 neighbouring variables of one group: 32 threads of four, by 8 that share the
// draws.
constexpr int kQuads = 32, kDrawThreads = 8, kStripVariables = 4 * kQuads;

struct JoinArguments {
  const void* x;         // [G, k, N]
  const uint8_t* valid;  // [G, k]; null: all count
  const double* count;   // [G]
  double *mean, *m2;     // [G, N]
  void* centred;         // [G, k + 1, N] float or double; null: moments alone
  int64_t groups, draws, variables, group_stride, draw_stride;
};

// Σ over the threads that share the draws, in a fixed order; every thread gets it.
__device__ __forceinline__ void sum_over_draws(double (&x)[4]) {
  __shared__ double parts[kDrawThreads][kStripVariables];
  const int quad = threadIdx.x % kQuads, part = threadIdx.x / kQuads;
  __syncthreads();  // the sums before these may still be read
  for (int i = 0; i < 4; ++i) parts[part][4 * quad + i] = x[i];
  __syncthreads();
  for (int i = 0; i < 4; ++i) {
    x[i] = 0;
    for (int p = 0; p < kDrawThreads; ++p) x[i] += parts[p][4 * quad + i];
  }
}

// Threads: kQuads · kDrawThreads.
template <class T, class C>
__global__ void __launch_bounds__(kQuads* kDrawThreads) join_draws(JoinArguments a) {
  const int quad = threadIdx.x % kQuads, part = threadIdx.x / kQuads;
  const int64_t strips = (a.variables + kStripVariables - 1) / kStripVariables;
  for (int64_t unit = blockIdx.x; unit < a.groups * strips; unit += gridDim.x) {
    const int64_t g = unit / strips, first = unit % strips * kStripVariables + 4 * quad;
    const int64_t left = a.variables - first;
    const T* x = static_cast<const T*>(a.x) + g * a.group_stride + first;
    const uint8_t* valid = a.valid ? a.valid + g * a.draws : nullptr;
    const bool fours = holds_fours(x) && a.draw_stride % 4 == 0;
    const auto each_draw = [&](const auto& visit) {
      for (int64_t t = part; t < a.draws; t += kDrawThreads) {
        if (valid && !valid[t]) continue;
        double values[4];
        read_four(x + t * a.draw_stride, left, fours, values);
        visit(values);
      }
    };
    // the sum, and how many were summed; then what the first mean left of them
    double sum[4] = {}, counted[4] = {}, rest[4] = {}, squares[4] = {}, mean[4];
    each_draw([&](const double (&v)[4]) {
      for (int i = 0; i < 4; ++i) sum[i] += v[i], counted[i] += 1;
    });
    sum_over_draws(sum);
    sum_over_draws(counted);
    const double m = counted[0];
    for (int i = 0; i < 4; ++i) mean[i] = m > 0 ? sum[i] / m : 0;
    each_draw([&](const double (&v)[4]) {
      for (int i = 0; i < 4; ++i) rest[i] += v[i] - mean[i];
    });
    sum_over_draws(rest);
    for (int i = 0; i < 4; ++i)
      if (m > 0) mean[i] += rest[i] / m;
    each_draw([&](const double (&v)[4]) {
      for (int i = 0; i < 4; ++i) squares[i] += (v[i] - mean[i]) * (v[i] - mean[i]);
    });
    sum_over_draws(squares);

    C* out =
        a.centred ? static_cast<C*>(a.centred) + g * (a.draws + 1) * a.variables + first : nullptr;
    const bool out_fours = holds_fours(out) && a.variables % 4 == 0;
    for (int64_t t = part; out && t < a.draws; t += kDrawThreads) {
      double values[4] = {};
      if (!valid || valid[t]) {
        read_four(x + t * a.draw_stride, left, fours, values);
        for (int i = 0; i < 4; ++i) values[i] -= mean[i];
      }
      write_four(out + t * a.variables, left, out_fours, values);
    }
    if (part != 0) continue;
    const Merge merge(a.count[g], m);
    const double root = Scalar<double>::root(merge.weight);
    double last[4] = {};
    for (int i = 0; i < 4 && i < left; ++i) {
      const int64_t at = g * a.variables + first + i;
      const double delta = m > 0 ? mean[i] - a.mean[at] : 0;
      a.mean[at] += delta * merge.share;
      a.m2[at] = merged_m2(a.m2[at], squares[i], delta, merge);
      last[i] = root * delta;
    }
    if (out) write_four(out + a.draws * a.variables, left, out_fours, last);
  }
}

// count[g] += the draws of group g that count, a warp a group.
__global__ void count_draws(double* count, const uint8_t* valid, int64_t groups, int64_t draws) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / kWarp);
  for (int64_t g = blockIdx.x * static_cast<int64_t>(blockDim.x / kWarp) + threadIdx.x / kWarp;
       g < groups; g += warps) {
    double counted = 0;
    for (int64_t t = lane; t < draws; t += kWarp) counted += !valid || valid[g * draws + t];
    counted = warp_sum(counted);
    if (lane == 0) count[g] += counted;
  }
}

}  // namespace sltfast
