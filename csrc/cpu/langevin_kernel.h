// What the kernel file compiled for one instruction set offers to `langevin_step_`: plain structs
// and function pointers.
#pragma once

#include <cstdint>

#include "../numerics/dtype.h"
#include "../numerics/langevin_chain.h"

namespace sltfast {

// Coordinates [first, first + count) of one segment of one chain; pointers are to coordinate
// `first`.
struct Piece {
  void* w;
  void* v;         // null unless preconditioned
  void* momentum;  // null unless the method has one; never with v
  void* low;
  Dtype low_dtype;
  bool stochastic_rounding;
  Values grad, anchor, noise;  // grad none: zero; noise none: Philox
  const uint8_t* mask;         // null: all move
  int64_t count, first;
  int64_t element, run, stride;  // of the segment
};

struct LangevinKernels {
  // Moves a piece; adds to nine raw sums (see Moments) unless null, and Σm² and the number of
  // coordinates that may move to `heat` unless null; true if every new value was finite.
  bool (*step_f32)(const Piece&, const ChainStep&, double* sums, double* heat);
  bool (*step_f64)(const Piece&, const ChainStep&, double* sums, double* heat);
  // The normals of elements [first, first + count) of the full model.
  void (*normals)(const ChainStep&, int64_t first, int64_t count, float* out);
};

const LangevinKernels& generic_kernels(const LangevinKernels*);
const LangevinKernels& avx2_kernels(const LangevinKernels*);
const LangevinKernels& avx512_kernels(const LangevinKernels*);

}  // namespace sltfast
