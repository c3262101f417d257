// The numbers of one chain at one step, and what becomes of its sums.
#pragma once

#include <cmath>

#include "host_device.h"

namespace sltfast {

struct ChainStep {
  double lr, n_beta, localization, weight_decay, noise, box;  // noise = √ε·σ or √(A·ε)·σ
  double alpha, correction, eps;
  double kept;  // of the momentum: 1 − ζ
  uint64_t seed;
  uint32_t stream, step, chain;
};

// What all chains of a call share.
struct LangevinMethod {
  bool preconditioned, corrected, inert, thermal;
  double alpha, eps, friction;
  uint64_t seed;
  uint32_t stream;
};

inline namespace SLT_ISA {

// `h` is a row of `hyper`, `thermostat` the chain's ζ (unless it is thermal: anything).
SLT_HD ChainStep chain_step(const LangevinMethod& m, const double* h, int64_t t, int64_t chain,
                            double thermostat) {
  ChainStep s;
  s.lr = h[0], s.n_beta = h[1], s.localization = h[2], s.weight_decay = h[3];
  s.noise = sqrt(m.inert ? m.friction * h[0] : h[0]) * h[4], s.box = h[5];
  s.kept = 1.0 - (m.thermal ? thermostat : m.friction);
  s.alpha = m.alpha, s.eps = m.eps;
  // 1 − α^{t+1} without cancellation
  const double gone = 0.0 - expm1((static_cast<double>(t) + 1) * log(m.alpha));
  s.correction = m.corrected ? 1.0 / gone : 1.0;
  s.seed = m.seed, s.stream = m.stream;
  s.step = static_cast<uint32_t>(t), s.chain = static_cast<uint32_t>(chain);
  return s;
}

// Σ over coordinates → the nine numbers of `metrics`: norms of the parts, then their dot products.
SLT_HD void finish_metrics(const ChainStep& c, double* m) {
  const double half = 0.5 * c.lr, gradient = half * c.n_beta;
  const double factor[9] = {gradient * gradient,
                            gradient * gradient,
                            half * half * c.localization * c.localization,
                            half * half * c.weight_decay * c.weight_decay,
                            c.noise * c.noise,
                            1.0,
                            gradient * half,
                            gradient * c.noise,
                            half * c.noise};
  for (int i = 0; i < 9; ++i) m[i] = i < 6 ? sqrt(factor[i] * m[i]) : factor[i] * m[i];
}

}  // namespace SLT_ISA
}  // namespace sltfast
