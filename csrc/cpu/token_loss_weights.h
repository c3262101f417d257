// The weights ρ of the tokens' losses, and results in the precision of the inputs.
#pragma once

#include <vector>

#include "token_loss_problem.h"

namespace sltfast {

// ρ in double; 0 where a token does not count.
inline std::vector<double> weights_of(const TokenLossProblem& p, const Tensor& weights,
                                      const char* name) {
  STD_TORCH_CHECK(weights.is_cpu() && weights.dim() == 2 && weights.size(0) == p.chains &&
                      weights.size(1) == p.tokens && weights.scalar_type() == p.computed,
                  name, " must be [C, N] on the CPU, of the loss's dtype");
  const Tensor dense = torch::stable::contiguous(weights);
  std::vector<double> out(p.chains * p.tokens);
  for (int64_t i = 0; i < p.chains * p.tokens; ++i)
    if (p.counts(i / p.tokens, i % p.tokens))
      out[i] = p.is_double() ? dense.const_data_ptr<double>()[i] : dense.const_data_ptr<float>()[i];
  return out;
}

inline Tensor rounded_to(const TokenLossProblem& p, const Tensor& t) {
  return p.given == p.computed ? t : torch::stable::to(t, p.given);
}

}  // namespace sltfast
