// Which kernel moves which segments, in as few launches as their tables fit.
#pragma once

#include <algorithm>
#include <vector>

#include "langevin_table.cuh"

namespace sltfast {

struct PlannedLaunch {
  LangevinTable table;
  bool hot;
  unsigned blocks;
};

// Can `r` be moved four coordinates at a time, whichever chain it is of?
inline bool moves_in_fours(const LangevinStep& s, Dtype master, const SegmentRow& r) {
  const auto aligned = [&](const void* p, Dtype dtype, int64_t pitch) {
    const int64_t unit = std::min<int64_t>(16, kGroup * size_of(dtype));
    const bool each = s.chains == 1 || pitch * size_of(dtype) % unit == 0;
    return !p || (each && reinterpret_cast<uintptr_t>(p) % unit == 0);
  };
  const int64_t at = r.offset * size_of(master);
  const auto shifted = [&](const void* p) {
    return p ? static_cast<const char*>(p) + at : nullptr;
  };
  const bool whole = r.numel <= r.run;
  return r.element % kGroup == 0 && (whole || (r.run % kGroup == 0 && r.stride % kGroup == 0)) &&
         aligned(shifted(s.w), master, s.row) && aligned(shifted(s.state), master, s.row) &&
         aligned(r.grad, r.grad_dtype, r.numel) && aligned(r.noise, r.noise_dtype, r.numel) &&
         aligned(r.low, r.low_dtype, r.numel) && aligned(r.anchor, r.anchor_dtype, 0) &&
         aligned(r.mask, Dtype::none, 0);
}

inline bool is_hot(const LangevinStep& s, Dtype master, const SegmentRow& r) {
  return master == Dtype::f32 && r.fours && r.numel % kGroup == 0 && r.grad &&
         r.grad_dtype == Dtype::f32 && r.anchor_dtype == Dtype::f32 && !r.noise && !r.mask &&
         !r.low && !s.metrics && !s.thermostat;
}

// At least one launch, of one block, even where nothing moves: chains may die of their loss. Each
// has at most `most` blocks; `fits` segments are put into a table.
inline std::vector<PlannedLaunch> plan_langevin(LangevinStep s, Dtype master,
                                                std::vector<SegmentRow> rows, unsigned threads,
                                                unsigned most, int fits = kRows) {
  std::vector<PlannedLaunch> out;
  const int64_t tile = static_cast<int64_t>(threads) * kGroup;
  const auto open = [&](bool hot) {
    out.push_back({});
    out.back().hot = hot;
  };
  for (SegmentRow& r : rows) r.fours = moves_in_fours(s, master, r);
  for (bool hot : {true, false}) {
    bool first = true;
    for (const SegmentRow& r : rows) {
      if (r.numel == 0 || is_hot(s, master, r) != hot) continue;
      const int64_t tiles = (r.numel + tile - 1) / tile;
      if (first || out.back().table.rows == fits || out.back().table.tiles + tiles > UINT32_MAX)
        open(hot);
      first = false;
      LangevinTable& t = out.back().table;
      t.row[t.rows] = r;
      t.row[t.rows++].first_tile = t.tiles;
      t.tiles += static_cast<uint32_t>(tiles);
    }
  }
  if (out.empty()) open(false);
  s.blocks = 0;
  for (PlannedLaunch& launch : out) {
    launch.blocks = std::max(1u, std::min(most, launch.table.tiles));
    launch.table.first_block = s.blocks;
    s.blocks += launch.blocks;
  }
  for (PlannedLaunch& launch : out) launch.table.all = s;
  return out;
}

}  // namespace sltfast
