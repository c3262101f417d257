// What most steps are: float32 throughout, in 16-byte accesses, nothing optional but the box.
#pragma once

#include "langevin_coordinates.cuh"

namespace sltfast {

// Every row of the table is of float32, in whole groups of four.
template <Rule rule>
__global__ void __launch_bounds__(kThreads, 3)
    langevin_hot(const __grid_constant__ LangevinTable table) {
  __shared__ ChainRoom<float> room;
  MovingChain<float>* chains = room.chains();
  const LangevinStep& s = table.all;
  for (int first = 0; first < s.chains; first += kChains) {
    const int count = read_chains(s, first, chains);
    int row = 0;
#pragma unroll 1
    for (uint32_t tile = blockIdx.x; tile < table.tiles; tile += gridDim.x) {
      while (row + 1 < table.rows && tile >= table.row[row + 1].first_tile) ++row;
      const SegmentRow& r = table.row[row];
      const int64_t i =
          (static_cast<int64_t>(tile - r.first_tile) * blockDim.x + threadIdx.x) * kGroup;
      if (i >= r.numel) continue;
      const Four<float> anchor = load_four(static_cast<const float*>(r.anchor) + i);
      const int64_t element = element_of(r, i);
      const float* grad = static_cast<const float*>(r.grad) + i;
      float* w_row = static_cast<float*>(s.w) + r.offset + i;
      float* state_row = static_cast<float*>(s.state) + r.offset + i;
#pragma unroll 1
      for (int k = 0; k < count; ++k) {
        const MovingChain<float>& chain = chains[k];
        float* w_at = w_row + chain.index * s.row;
        float* state_at = state_row + chain.index * s.row;
        Four<float> w = load_four(w_at), state{};
        const Four<float> g = load_four(grad + chain.index * r.numel);
        if constexpr (rule != Rule::plain) state = load_four(state_at);
        float xi[kGroup];
        normals_of(stream_of(s.method, s.method.stream, element, chain.step_word, chain.id),
                   element, xi);
        Moments<Scalar<float>> none;
        float squares = 0;
        bool broken = false;
        for (int j = 0; j < kGroup; ++j)
          broken |= move<float, rule, false>(chain.step, g.x[j], xi[j], anchor.x[j], false, w.x[j],
                                             state.x[j], none, squares);
        store_four(w_at, w);
        if constexpr (rule != Rule::plain) store_four(state_at, state);
        if (broken) atomicOr(s.broken + chain.index, 1u);
      }
    }
  }
  finish_step(s);
}

}  // namespace sltfast
