// The elementwise halves of `token_loss`: logsumexp of a tile of logits, and its gradient. Compiled
// once for each instruction set (SLT_ISA), without torch and without std templates: nothing here
// may be merged by the linker with code for another instruction set.
#include "token_loss_kernel.h"

#include "../numerics/logsumexp.h"
#include "../numerics/rounding.h"
#include "lanes.h"

namespace sltfast {
inline namespace SLT_ISA {
namespace {

constexpr int kUnroll = 4;  // independent maxima and sums: the latency of one add is four issues

template <class L>
SLT_HD typename L::Real logit_at(const LogitRule<L>& rule, const typename L::Value* row,
                                 const typename L::Value* bias, int64_t i) {
  typename L::Real product = L::load(row + i);
  if (bias) product = product + L::load(bias + i);
  return rule.logit(product);
}

// Largest logit of a row; with `Rewrite` the row holds logits afterwards.
template <class L, bool Rewrite>
typename L::Value largest_of(const LogitTile& tile, typename L::Value* row) {
  using T = typename L::Value;
  using One = Scalar<T>;
  const LogitRule<L> rule(tile.scale, tile.softcap);
  const LogitRule<One> tail_rule(tile.scale, tile.softcap);
  const T* bias = static_cast<const T*>(tile.bias);
  typename L::Real m[kUnroll];
  for (auto& lanes : m) lanes = L::broadcast(-__builtin_inf());
  const auto visit = [&](int64_t i, typename L::Real& largest) {
    typename L::Real z = L::load(row + i);
    if constexpr (Rewrite) {
      z = logit_at<L>(rule, row, bias, i);
      L::store(row + i, z);
    }
    largest = L::upper(z, largest);
  };
  int64_t i = 0;
  for (; i + kUnroll * L::width <= tile.columns; i += kUnroll * L::width)
#pragma GCC unroll 4
    for (int k = 0; k < kUnroll; ++k) visit(i + k * L::width, m[k]);
  for (; i + L::width <= tile.columns; i += L::width) visit(i, m[0]);
  T largest = L::largest(L::upper(L::upper(m[0], m[1]), L::upper(m[2], m[3])));
  for (; i < tile.columns; ++i) {
    if constexpr (Rewrite) row[i] = logit_at<One>(tail_rule, row, bias, i);
    largest = row[i] > largest ? row[i] : largest;
  }
  return largest;
}

template <class L>
double sum_of_exponentials(const typename L::Value* row, int64_t columns, typename L::Value shift) {
  typename L::Real s[kUnroll];
  for (auto& lanes : s) lanes = L::broadcast(0);
  const typename L::Real shifts = L::broadcast(shift);
  int64_t i = 0;
  for (; i + kUnroll * L::width <= columns; i += kUnroll * L::width)
#pragma GCC unroll 4
    for (int k = 0; k < kUnroll; ++k)
      s[k] = s[k] + exponential<L>(L::load(row + i + k * L::width) - shifts);
  for (; i + L::width <= columns; i += L::width)
    s[0] = s[0] + exponential<L>(L::load(row + i) - shifts);
  double sum = L::sum((s[0] + s[1]) + (s[2] + s[3]));
  for (; i < columns; ++i) sum += exponential<Scalar<typename L::Value>>(row[i] - shift);
  return sum;
}

template <class L>
void reduce(const LogitTile& tile, double* parts, int64_t stride, double* at_target) {
  using T = typename L::Value;
  const bool rewrite = tile.bias || tile.scale != 1 || tile.softcap > 0;
  for (int64_t r = 0; r < tile.rows; ++r) {
    T* row = static_cast<T*>(tile.values) + r * tile.stride;
    const T largest = rewrite ? largest_of<L, true>(tile, row) : largest_of<L, false>(tile, row);
    parts[r * stride] = largest;
    parts[r * stride + 1] = sum_of_exponentials<L>(row, tile.columns, shift_of(largest));
    const int64_t at = tile.targets[r] - tile.first;
    if (at >= 0 && at < tile.columns) at_target[r] = row[at];
  }
}

template <class L>
void scale_row(typename L::Value* row, int64_t count, typename L::Value factor) {
  const typename L::Real factors = L::broadcast(factor);
  int64_t i = 0;
  for (; i + L::width <= count; i += L::width) L::store(row + i, factors * L::load(row + i));
  for (; i < count; ++i) row[i] *= factor;
}

// exp(z − shift) of a row of logits z, times (dz/da)/κ where `Capped`; returns the sum without
// that.
template <class L, bool Capped>
double exponentials_of(const LogitTile& tile, typename L::Value* row, typename L::Value shift) {
  using T = typename L::Value;
  using One = Scalar<T>;
  // κ = 1: the factor is left to whoever takes the sums
  const LogitRule<L> rule(1, tile.softcap);
  const LogitRule<One> tail_rule(1, tile.softcap);
  typename L::Real s[kUnroll];
  for (auto& lanes : s) lanes = L::broadcast(0);
  const typename L::Real shifts = L::broadcast(shift);
  const auto visit = [&](int64_t i, typename L::Real& sum) {
    const typename L::Real z = L::load(row + i);
    typename L::Real e = exponential<L>(z - shifts);
    sum = sum + e;
    if constexpr (Capped) e = e * rule.slope(z);
    L::store(row + i, e);
  };
  int64_t i = 0;
  for (; i + kUnroll * L::width <= tile.columns; i += kUnroll * L::width)
#pragma GCC unroll 4
    for (int k = 0; k < kUnroll; ++k) visit(i + k * L::width, s[k]);
  for (; i + L::width <= tile.columns; i += L::width) visit(i, s[0]);
  double sum = L::sum((s[0] + s[1]) + (s[2] + s[3]));
  for (; i < tile.columns; ++i) {
    const T z = row[i], e = exponential<One>(z - shift);
    sum += e;
    row[i] = Capped ? e * tail_rule.slope(z) : e;
  }
  return sum;
}

// lse in two values of the tile's type: z − high is exact near the maximum, and low mends high.
template <class T>
struct Split {
  T high, low;
  explicit SLT_HD Split(double x)
      : high(static_cast<T>(x)), low(high - high == 0 ? static_cast<T>(x - high) : 0) {}
};

// ρ·exp(z − lse)·dz/da.
template <class L>
struct Slope {
  using T = typename L::Value;
  LogitRule<L> rule;
  typename L::Real high, low, weight;

  Slope(const LogitTile& tile, Split<T> lse, T weight)
      : rule(tile.scale, tile.softcap),
        high(L::broadcast(lse.high)),
        low(L::broadcast(lse.low)),
        weight(L::broadcast(weight)) {}
  SLT_HD typename L::Real probability(typename L::Real z) const {
    return exponential<L>((z - high) - low);
  }
  SLT_HD typename L::Real operator()(typename L::Real z) const {
    return weight * probability(z) * rule.slope(z);
  }
};

template <class L>
void gradient_row(const LogitTile& tile, typename L::Value* row, int64_t target, double lse,
                  double rho) {
  using T = typename L::Value;
  using One = Scalar<T>;
  const T weight = static_cast<T>(rho);
  const Split<T> split(lse);
  const Slope<L> slope(tile, split, weight);
  const Slope<One> tail(tile, split, weight);
  const T* bias = static_cast<const T*>(tile.bias);
  const auto logit = [&](int64_t i) { return logit_at<One>(tail.rule, row, bias, i); };
  const bool here = target >= 0 && target < tile.columns;
  const T at_target = here ? logit(target) : 0;
  int64_t i = 0;
  for (; i + L::width <= tile.columns; i += L::width)
    L::store(row + i, slope(logit_at<L>(slope.rule, row, bias, i)));
  for (; i < tile.columns; ++i) row[i] = tail(logit(i));
  if (here) row[target] = weight * (tail.probability(at_target) - 1) * tail.rule.slope(at_target);
}

template <class T>
void round_row(T* row, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    row[i] = from_bfloat16(to_bfloat16(static_cast<float>(row[i])));
}

template <class L>
void gradient(const LogitTile& tile, bool rounded, const double* lse, const double* weights) {
  using T = typename L::Value;
  for (int64_t r = 0; r < tile.rows; ++r) {
    T* row = static_cast<T*>(tile.values) + r * tile.stride;
    const int64_t target = tile.targets[r] - tile.first;
    if (weights[r] == 0)
      for (int64_t i = 0; i < tile.columns; ++i) row[i] = 0;
    else
      gradient_row<L>(tile, row, target, lse[r], weights[r]);
    if (rounded) round_row(row, tile.columns);
  }
}

template <class L>
void exponentiate(const LogitTile& tile, bool rounded, const RunningRows& sums) {
  using T = typename L::Value;
  const bool rewrite = tile.bias || tile.scale != 1 || tile.softcap > 0;
  for (int64_t r = 0; r < tile.rows; ++r) {
    T* row = static_cast<T*>(tile.values) + r * tile.stride;
    T& shift = static_cast<T*>(sums.shifts)[r];
    const T largest = rewrite ? largest_of<L, true>(tile, row) : largest_of<L, false>(tile, row);
    const int64_t at = tile.targets[r] - tile.first;
    if (at >= 0 && at < tile.columns) sums.at_target[r] = row[at];
    if (largest > shift) {
      if (sums.products && shift > -__builtin_inf())
        scale_row<L>(static_cast<T*>(sums.products) + r * sums.depth, sums.depth,
                     exponential<Scalar<T>>(shift - shift_of(largest)));
      shift = largest;
    }
    const T from = shift_of(shift);
    sums.parts[r * sums.stride] = shift;
    sums.parts[r * sums.stride + 1] = tile.softcap > 0 ? exponentials_of<L, true>(tile, row, from)
                                                       : exponentials_of<L, false>(tile, row, from);
    if (sums.weights[r] == 0)
      for (int64_t i = 0; i < tile.columns; ++i) row[i] = 0;
    if (rounded) round_row(row, tile.columns);
  }
}

template <class L>
void combine(const void* from, int64_t stride, int64_t terms, const double* factors, int64_t count,
             void* to) {
  using T = typename L::Value;
  const T* rows = static_cast<const T*>(from);
  T* sum = static_cast<T*>(to);
  int64_t i = 0;
  for (; i + L::width <= count; i += L::width) {
    typename L::Real s = L::broadcast(0);
    for (int64_t k = 0; k < terms; ++k)
      s = L::fma(L::broadcast(static_cast<T>(factors[k])), L::load(rows + k * stride + i), s);
    L::store(sum + i, s);
  }
  for (; i < count; ++i) {
    T s = 0;
    for (int64_t k = 0; k < terms; ++k) s += static_cast<T>(factors[k]) * rows[k * stride + i];
    sum[i] = s;
  }
}

void widen_bf16(const void* from, int64_t count, float* to) {
  const uint16_t* p = static_cast<const uint16_t*>(from);
  for (int64_t i = 0; i < count; ++i) to[i] = from_bfloat16(p[i]);
}

void widen_f16(const void* from, int64_t count, float* to) {
  const uint16_t* p = static_cast<const uint16_t*>(from);
  for (int64_t i = 0; i < count; ++i) to[i] = from_float16(p[i]);
}

void round_bf16(const void* from, int64_t count, float* to) {
  const float* p = static_cast<const float*>(from);
  for (int64_t i = 0; i < count; ++i) to[i] = from_bfloat16(to_bfloat16(p[i]));
}

template <class Vector, class One>
void each(const float* from, int64_t count, float* to, Vector vector, One one) {
  int64_t i = 0;
  for (; i + Lanes::width <= count; i += Lanes::width)
    Lanes::store(to + i, vector(Lanes::load(from + i)));
  for (; i < count; ++i) to[i] = one(from[i]);
}

void exponential_of(const float* from, int64_t count, float* to) {
  each(from, count, to, exponential<Lanes>, exponential<Scalar<float>>);
}

void tangent_of(const float* from, int64_t count, float* to) {
  each(from, count, to, hyperbolic_tangent<Lanes>, hyperbolic_tangent<Scalar<float>>);
}

}  // namespace
}  // namespace SLT_ISA

#define SLT_KERNELS_OF_(isa) isa##_kernels
#define SLT_KERNELS_OF(isa) SLT_KERNELS_OF_(isa)

const TokenLossKernels& SLT_KERNELS_OF(SLT_ISA)(const TokenLossKernels*) {
  using Double = Scalar<double>;
  static const TokenLossKernels kernels{
      reduce<Lanes>,        reduce<Double>, gradient<Lanes>, gradient<Double>, exponentiate<Lanes>,
      exponentiate<Double>, combine<Lanes>, combine<Double>, widen_bf16,       widen_f16,
      round_bf16,           exponential_of, tangent_of};
  return kernels;
}

}  // namespace sltfast
