// What a launch of the Langevin step is told: a table of segments, cut into tiles that blocks take
// in turn. It travels as a kernel parameter, so nothing is copied to the device.
#pragma once

#include "../numerics/dtype.h"
#include "../numerics/langevin_chain.h"
#include "device.cuh"

namespace sltfast {

enum class Rule { plain, preconditioned, momentum };

constexpr int kThreads = 256;
constexpr int kGroup = 4;  // coordinates that one Philox counter serves: a thread's turn

struct SegmentRow {
  const void *grad, *anchor, *noise;  // grad null: zero; noise null: Philox
  const uint8_t* mask;                // null: all move
  void* low;                          // null: no copy
  int64_t offset, numel, element, run, stride;
  uint32_t first_tile;
  Dtype grad_dtype, anchor_dtype, noise_dtype, low_dtype;
  bool fours;  // every chain's coordinates can be moved four at a time
};

// What all launches of a step share. Everything that a chain owns lies in device memory.
struct LangevinStep {
  void* w;
  void* state;  // v or momentum, if any
  int64_t row;  // coordinates from one chain to the next
  int chains;
  LangevinMethod method;
  const double* hyper;
  const int64_t *step, *chain_ids;
  const double* loss;
  uint8_t* alive;
  int64_t* death_step;
  double *metrics, *thermostat;
  bool stochastic_rounding;
  uint32_t* ticket;  // blocks that are done
  uint32_t* broken;  // [C]: a new value was not finite
  double* sums;      // [blocks, C, kSums], of the launches that measure
  uint32_t blocks;   // of all launches
};

constexpr int kSums = 11;  // the metrics' nine, Σm², coordinates that may move

constexpr int kParameterBytes = 32764;  // since CUDA 12.1, from sm_70 on
constexpr int kRows = (kParameterBytes - static_cast<int>(sizeof(LangevinStep)) - 32) /
                      static_cast<int>(sizeof(SegmentRow));

struct LangevinTable {
  LangevinStep all;
  uint32_t first_block;  // how many the launches before this one have
  uint32_t tiles;
  int rows;
  SegmentRow row[kRows];
};
static_assert(sizeof(LangevinTable) <= kParameterBytes);

// Element of the full model that coordinate `i` of a segment is.
SLT_HD int64_t element_of(const SegmentRow& r, int64_t i) {
  return i < r.run ? r.element + i : r.element + i / r.run * r.stride + i % r.run;
}

}  // namespace sltfast
