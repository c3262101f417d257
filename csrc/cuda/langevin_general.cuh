// Any dtypes, masks, given noise, a low-precision copy, any alignment. While it measures, chains
// are outermost, so that a block reduces once a chain.
#pragma once

#include "langevin_coordinates.cuh"

namespace sltfast {

template <int N>
struct Width {
  static constexpr int value = N;
};

// Calls visit(Width<N>, row, i) for this thread's coordinates i … i + N − 1 of the block's tiles.
template <class Visit>
__device__ __forceinline__ void visit_tiles(const LangevinTable& table, const Visit& visit) {
  int s = 0;
#pragma unroll 1
  for (uint32_t tile = blockIdx.x; tile < table.tiles; tile += gridDim.x) {
    while (s + 1 < table.rows && tile >= table.row[s + 1].first_tile) ++s;
    const SegmentRow& r = table.row[s];
    const int64_t base = static_cast<int64_t>(tile - r.first_tile) * kGroup * blockDim.x;
    int64_t i = base + threadIdx.x;
    int step = static_cast<int>(blockDim.x);
    if (r.fours) {
      i = base + kGroup * threadIdx.x, step = 1;
      if (i + kGroup <= r.numel) {
        visit(Width<kGroup>{}, r, i);
        continue;
      }
    }
#pragma unroll 1
    for (int j = 0; j < kGroup && i < r.numel; ++j, i += step) visit(Width<1>{}, r, i);
  }
}

// What a thread sums of one chain: products in T for 64 coordinates, then on in float64.
template <class T, Rule rule>
struct Totals {
  Moments<Scalar<T>> moments;
  T squares = 0;
  int pending = 0;
  double sums[kSums] = {};

  __device__ __forceinline__ void flush() {
    moments.flush(sums, rule == Rule::preconditioned);
    sums[9] += static_cast<double>(squares);
    moments = Moments<Scalar<T>>();
    squares = 0, pending = 0;
  }
};

template <class T, Rule rule, bool Measured, int N>
__device__ __forceinline__ void move_any(const LangevinStep& s, const SegmentRow& r, int64_t i,
                                         const MovingChain<T>& chain, const T (&anchor)[N],
                                         const uint8_t (&moves)[N], Totals<T, rule>& totals) {
  const int64_t at = chain.index * s.row + r.offset + i, own = chain.index * r.numel + i;
  const int64_t element = element_of(r, i);
  T w[N], state[N] = {}, g[N] = {}, xi[N];
  read(static_cast<const T*>(s.w) + at, w);
  if constexpr (rule != Rule::plain) read(static_cast<const T*>(s.state) + at, state);
  if (r.grad) widen(r.grad, r.grad_dtype, own, g);
  if (r.noise)
    widen(r.noise, r.noise_dtype, own, xi);
  else
    normals_of(stream_of(s.method, s.method.stream, element, chain.step_word, chain.id), element,
               xi);
  bool broken = false;
  for (int j = 0; j < N; ++j) {
    broken |= move<T, rule, Measured>(chain.step, g[j], xi[j], anchor[j], !moves[j], w[j], state[j],
                                      totals.moments, totals.squares);
    if constexpr (Measured) totals.sums[10] += moves[j] ? 1 : 0;
  }
  if constexpr (Measured)
    if ((totals.pending += N) >= 64) totals.flush();
  write(static_cast<T*>(s.w) + at, w);
  if constexpr (rule != Rule::plain) write(static_cast<T*>(s.state) + at, state);
  if (broken) atomicOr(s.broken + chain.index, 1u);
  if (!r.low) return;
  float master[N];
  uint32_t random[N] = {};
  for (int j = 0; j < N; ++j) master[j] = static_cast<float>(w[j]);
  if (s.stochastic_rounding)
    words_of(stream_of(s.method, kStreamRounding, element, chain.step_word, chain.id), element,
             random);
  round_copy(master, r.low_dtype, s.stochastic_rounding, random,
             static_cast<uint16_t*>(r.low) + own);
}

template <class T, int N>
__device__ __forceinline__ void read_shared(const SegmentRow& r, int64_t i, T (&anchor)[N],
                                            uint8_t (&moves)[N]) {
  widen(r.anchor, r.anchor_dtype, i, anchor);
  for (int j = 0; j < N; ++j) moves[j] = 1;
  if (r.mask) read(r.mask + i, moves);
}

template <class T, Rule rule, bool Measured>
__global__ void __launch_bounds__(kThreads, 1)
    langevin_general(const __grid_constant__ LangevinTable table) {
  __shared__ ChainRoom<T> room;
  MovingChain<T>* chains = room.chains();
  const LangevinStep& s = table.all;
  for (int first = 0; first < s.chains; first += kChains) {
    const int count = read_chains(s, first, chains);
    if constexpr (Measured) {
      for (int k = 0; k < count; ++k) {
        Totals<T, rule> totals;
        visit_tiles(table, [&](auto width, const SegmentRow& r, int64_t i) {
          T anchor[width.value];
          uint8_t moves[width.value];
          read_shared(r, i, anchor, moves);
          move_any<T, rule, true>(s, r, i, chains[k], anchor, moves, totals);
        });
        totals.flush();
        block_sums(totals.sums);
        const int64_t block = table.first_block + blockIdx.x;
        double* out = s.sums + (block * s.chains + chains[k].index) * kSums;
        for (int m = 0; m < kSums && threadIdx.x == 0; ++m) out[m] = totals.sums[m];
      }
    } else {
      Totals<T, rule> none;
      visit_tiles(table, [&](auto width, const SegmentRow& r, int64_t i) {
        T anchor[width.value];
        uint8_t moves[width.value];
        read_shared(r, i, anchor, moves);
#pragma unroll 1
        for (int k = 0; k < count; ++k)
          move_any<T, rule, false>(s, r, i, chains[k], anchor, moves, none);
      });
    }
  }
  finish_step(s);
}

}  // namespace sltfast
