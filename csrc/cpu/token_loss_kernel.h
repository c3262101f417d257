// What the kernel file compiled for one instruction set offers to `token_loss`: plain structs and
// function pointers.
#pragma once

#include <cstdint>

namespace sltfast {

// Products ⟨h_n, w_v⟩ of some tokens with the vocabulary entries [first, first + columns), float or
// double. The kernels turn them into logits z, and logits into gradients, in place.
struct LogitTile {
  void* values;
  int64_t stride;  // values from one token's row to the next
  int64_t rows, columns, first;
  const void* bias;        // of the columns, same type; null: none
  const int64_t* targets;  // of the rows
  double scale, softcap;   // softcap 0: none
};

// The sums that a tile's exponentials are to be added to: of each row so far, relative to
// exp(shift).
struct RunningRows {
  void* shifts;    // of the tile's type; −∞ before the first tile, raised to the row's largest
  void* products;  // [rows, depth] of that type, Σ_v e_v·w_v; null: not wanted
  int64_t depth;
  double* parts;  // (shift, Σ e) of each row of this tile, `stride` doubles apart
  int64_t stride;
  double* at_target;      // the logit of each target that lies among the columns
  const double* weights;  // ρ
};

struct TokenLossKernels {
  // ln Σ exp of each row in parts (numerics/logsumexp.h), `stride` doubles apart, and the logit of
  // each target that lies among the columns. Leaves logits in the tile.
  void (*reduce_f32)(const LogitTile&, double* parts, int64_t stride, double* at_target);
  void (*reduce_f64)(const LogitTile&, double* parts, int64_t stride, double* at_target);
  // From products to ρ_n·(exp(z − lse_n) − [v = y_n])·dz/da in place; `rounded`: to bfloat16's
  // precision. A row with ρ = 0 becomes 0.
  void (*gradient_f32)(const LogitTile&, bool rounded, const double* lse, const double* weights);
  void (*gradient_f64)(const LogitTile&, bool rounded, const double* lse, const double* weights);
  // From products to e = exp(z − shift)·(dz/da)/κ in place, shift the row's largest logit up to
  // here; what `products` holds follows the shift. `rounded`: to bfloat16's precision. A row with ρ
  // = 0 becomes 0.
  void (*exponentiate_f32)(const LogitTile&, bool rounded, const RunningRows&);
  void (*exponentiate_f64)(const LogitTile&, bool rounded, const RunningRows&);
  // to = Σ_i factors_i·from_i over `terms` rows of `count` values, `stride` apart.
  void (*combine_f32)(const void* from, int64_t stride, int64_t terms, const double* factors,
                      int64_t count, void* to);
  void (*combine_f64)(const void* from, int64_t stride, int64_t terms, const double* factors,
                      int64_t count, void* to);
  // Widening of `count` values to float.
  void (*widen_bf16)(const void* from, int64_t count, float* to);
  void (*widen_f16)(const void* from, int64_t count, float* to);
  // float to bfloat16's precision and back.
  void (*round_bf16)(const void* from, int64_t count, float* to);
  // Of `count` floats, for tests of the bounds in numerics/logsumexp.h.
  void (*exponential)(const float* from, int64_t count, float* to);
  void (*hyperbolic_tangent)(const float* from, int64_t count, float* to);
};

const TokenLossKernels& generic_kernels(const TokenLossKernels*);
const TokenLossKernels& avx2_kernels(const TokenLossKernels*);
const TokenLossKernels& avx512_kernels(const TokenLossKernels*);

}  // namespace sltfast
