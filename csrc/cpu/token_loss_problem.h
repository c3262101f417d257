// The checked arguments of the `token_loss` ops on the CPU, as matrices of the type that is
// computed in.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dispatch.h"
#include "token_loss_kernel.h"
#include "token_loss_tiles.h"

namespace sltfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// How a chain's N × V products are cut. A function of the sizes alone: results do not depend on the
// number of threads.
struct Tiling {
  int64_t rows, columns;
};

class TokenLossProblem {
 public:
  // Raises before anything is computed; among the rules: every target is `ignore_index` or in
  // 0 .. V − 1.
  TokenLossProblem(const Tensor& hidden, const Tensor& unembedding,
                   const std::optional<Tensor>& bias, const Tensor& targets, int64_t ignore_index,
                   double scale, double softcap, const std::string& precision);

  const int64_t chains, tokens, depth, vocabulary;
  const ScalarType given, computed;  // of the inputs; of products, logits and sums
  bool rounded = false;              // operands of matrix products go to bfloat16's precision

  bool counts(int64_t c, int64_t n) const { return targets_data_[c * tokens + n] != ignore_index_; }
  bool any_counts(int64_t c, int64_t n, int64_t count) const;
  bool shares_unembedding() const { return unembedding_.size(0) == 1; }
  bool shares_bias() const { return !bias_ || bias_->size(0) == 1; }
  int64_t target(int64_t c, int64_t n) const { return targets_data_[c * tokens + n]; }
  double scale() const { return scale_; }
  // dz/da at a logit.
  double slope(double z) const {
    return softcap_ > 0 ? scale_ * (1 - z / softcap_ * (z / softcap_)) : scale_;
  }
  bool is_double() const { return computed == ScalarType::Double; }

  Matrices hidden(int64_t c, int64_t n, int64_t count) const;  // [count, d]
  // [count, d]; where the given values are not what is computed with, they are made in `scratch`.
  Matrices unembedding(int64_t c, int64_t v, int64_t count, char* scratch) const;
  // Values of scratch for `count` vocabulary entries.
  int64_t unembedding_scratch(int64_t count) const { return is_converted() ? count * depth : 0; }
  LogitTile logits(int64_t c, int64_t n, int64_t v, const Matrices& products) const;

  Tiling tiling() const;
  // Threads worth waking for `products` multiply-adds in at most `tasks` parts.
  int64_t workers(int64_t tasks, int64_t products) const;
  int64_t width() const { return is_double() ? 8 : 4; }

 private:
  bool is_converted() const { return given != computed || rounded; }

  Tensor hidden_, unembedding_, targets_;
  std::optional<Tensor> bias_;
  const int64_t* targets_data_;
  int64_t ignore_index_;
  double scale_, softcap_;
};

}  // namespace sltfast
