// The kernels of langevin_step_: which are compiled, and which of them runs. A thread moves four
// coordinates, one Philox group, of every chain in turn, so that w* is read once for all chains.
#pragma once

#include "langevin_general.cuh"
#include "langevin_hot.cuh"

namespace sltfast {

template <class T, bool Measured>
auto general_kernel(Rule rule) {
  return rule == Rule::plain            ? langevin_general<T, Rule::plain, Measured>
         : rule == Rule::preconditioned ? langevin_general<T, Rule::preconditioned, Measured>
                                        : langevin_general<T, Rule::momentum, Measured>;
}

inline auto kernel_of(bool hot, Dtype master, const LangevinMethod& method, bool measured) {
  const Rule rule = method.preconditioned ? Rule::preconditioned
                    : method.inert        ? Rule::momentum
                                          : Rule::plain;
  if (hot)
    return rule == Rule::plain            ? langevin_hot<Rule::plain>
           : rule == Rule::preconditioned ? langevin_hot<Rule::preconditioned>
                                          : langevin_hot<Rule::momentum>;
  if (master == Dtype::f32)
    return measured ? general_kernel<float, true>(rule) : general_kernel<float, false>(rule);
  return measured ? general_kernel<double, true>(rule) : general_kernel<double, false>(rule);
}

}  // namespace sltfast
