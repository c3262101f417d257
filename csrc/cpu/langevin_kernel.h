// What the kernel file compiled for one instruction set offers to `langevin_step_`: plain structs
// and function pointers.
#pragma once

#include <cstdint>

namespace sltfast {

enum class Dtype : uint8_t { none, f32, f64, bf16, f16 };

struct Values {
  const void* data = nullptr;
  Dtype dtype = Dtype::none;
};

// Coordinates [first, first + count) of one segment of one chain; pointers are to coordinate
// `first`.
struct Piece {
  void* w;
  void* v;  // null unless preconditioned
  void* low;
  Dtype low_dtype;
  Values grad, anchor, noise;  // grad none: zero; noise none: Philox
  const uint8_t* mask;         // null: all move
  int64_t count, first;
  int64_t element, run, stride;  // of the segment
};

struct ChainStep {
  double lr, n_beta, localization, weight_decay, noise, box;  // noise = √ε·σ
  double alpha, correction, eps;
  uint64_t seed;
  uint32_t stream, step, chain;
};

struct LangevinKernels {
  // Moves a piece; adds to nine raw sums (see Moments) unless null; true if every new value was
  // finite.
  bool (*step_f32)(const Piece&, const ChainStep&, double* sums);
  bool (*step_f64)(const Piece&, const ChainStep&, double* sums);
  // The normals of elements [first, first + count) of the full model.
  void (*normals)(const ChainStep&, int64_t first, int64_t count, float* out);
};

const LangevinKernels& generic_kernels(const LangevinKernels*);
const LangevinKernels& avx2_kernels(const LangevinKernels*);
const LangevinKernels& avx512_kernels(const LangevinKernels*);

}  // namespace sltfast
