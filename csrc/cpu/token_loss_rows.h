// The parts of each token's logsumexp, one from each tile across the vocabulary, and what they
// merge to.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "../numerics/logsumexp.h"
#include "token_loss_problem.h"

namespace sltfast {

struct TokenLoss {
  double loss, lse;
};

class RowSums {
 public:
  RowSums(int64_t rows, int64_t across)
      : across_(across), parts_(2 * rows * across), at_target_(rows) {}

  // Reduces a tile of products whose first row is `row`; leaves logits in it.
  void reduce(const LogitTile& tile, bool is_double, int64_t row, int64_t block) {
    const TokenLossKernels& k = kernels<TokenLossKernels>();
    (is_double ? k.reduce_f64 : k.reduce_f32)(tile, &parts_[2 * (row * across_ + block)],
                                              2 * across_, &at_target_[row]);
  }

  // Turns a tile of products into exponentials (`TokenLossKernels::exponentiate`).
  void exponentiate(const LogitTile& tile, bool is_double, bool rounded, RunningRows running,
                    int64_t row, int64_t block) {
    running.parts = &parts_[2 * (row * across_ + block)];
    running.stride = 2 * across_;
    running.at_target = &at_target_[row];
    const TokenLossKernels& k = kernels<TokenLossKernels>();
    (is_double ? k.exponentiate_f64 : k.exponentiate_f32)(tile, rounded, running);
  }

  // What a tile's exponentials of a row are relative to.
  double shift_at(int64_t row, int64_t block) const { return parts_[2 * (row * across_ + block)]; }
  double at_target(int64_t row) const { return at_target_[row]; }

  // Merged in the order of the vocabulary, whatever thread reduced what.
  TokenLoss finish(int64_t row) const {
    Partial sum{-std::numeric_limits<double>::infinity(), 0};
    for (int64_t b = 0; b < across_; ++b) {
      const double* part = &parts_[2 * (row * across_ + b)];
      sum = merged(sum, {part[0], part[1]});
    }
    const double shift = shift_of(sum.largest), logarithm = std::log(sum.sum);
    // logits are subtracted first: their difference is exact where the size of lse would round
    return {shift - at_target_[row] + logarithm, shift + logarithm};
  }

 private:
  int64_t across_;
  std::vector<double> parts_, at_target_;
};

// One loss of the type that is computed in.
inline void store_loss(const TokenLossProblem& p, const Tensor& loss, int64_t i, double value) {
  if (p.is_double())
    loss.mutable_data_ptr<double>()[i] = value;
  else
    loss.mutable_data_ptr<float>()[i] = static_cast<float>(value);
}

}  // namespace sltfast
