// N neighbouring coordinates of a segment (4 or 1): their operands, their noise, their update.
#pragma once

#include "../numerics/gaussian.h"
#include "../numerics/rounding.h"
#include "langevin_chains.cuh"

namespace sltfast {

template <class T, int N>
__device__ __forceinline__ void read(const T* p, T (&out)[N]) {
  if constexpr (N == kGroup) {
    const Four<T> four = load_four(p);
    for (int j = 0; j < N; ++j) out[j] = four.x[j];
  } else {
    out[0] = *p;
  }
}

template <class T, int N>
__device__ __forceinline__ void write(T* p, const T (&x)[N]) {
  if constexpr (N == kGroup)
    store_four(p, Four<T>{{x[0], x[1], x[2], x[3]}});
  else
    *p = x[0];
}

template <class T, int N>
__device__ __forceinline__ void widen(const void* data, Dtype dtype, int64_t at, T (&out)[N]) {
  if (dtype == Dtype::f32) {
    float x[N];
    read(static_cast<const float*>(data) + at, x);
    for (int j = 0; j < N; ++j) out[j] = static_cast<T>(x[j]);
  } else if (dtype == Dtype::f64) {
    double x[N];
    read(static_cast<const double*>(data) + at, x);
    for (int j = 0; j < N; ++j) out[j] = static_cast<T>(x[j]);
  } else {
    uint16_t x[N];
    read(static_cast<const uint16_t*>(data) + at, x);
    for (int j = 0; j < N; ++j)
      out[j] = static_cast<T>(dtype == Dtype::bf16 ? from_bfloat16(x[j]) : from_float16(x[j]));
  }
}

__device__ __forceinline__ PhiloxStream<Scalar<float>> stream_of(const LangevinMethod& m,
                                                                 uint32_t stream, int64_t element,
                                                                 uint32_t step, uint32_t chain) {
  return {m.seed, static_cast<uint32_t>(element >> 34) | stream << 24, step, chain};
}

// The words of coordinates whose first is `element`, which starts a group unless N is 1.
template <int N>
__device__ __forceinline__ void words_of(const PhiloxStream<Scalar<float>>& stream, int64_t element,
                                         uint32_t (&out)[N]) {
  const uint32_t group = static_cast<uint32_t>(element >> 2), place = element & 3;
  uint32_t x[4];
  words_of_groups<Scalar<float>>(stream, &group, x);
  if constexpr (N == kGroup)
    for (int j = 0; j < N; ++j) out[j] = x[j];
  else
    out[0] = place & 2 ? (place & 1 ? x[3] : x[2]) : (place & 1 ? x[1] : x[0]);
}

template <class T, int N>
__device__ __forceinline__ void normals_of(const PhiloxStream<Scalar<float>>& stream,
                                           int64_t element, T (&out)[N]) {
  const uint32_t group = static_cast<uint32_t>(element >> 2), place = element & 3;
  uint32_t x[4];
  words_of_groups<Scalar<float>>(stream, &group, x);
  float a, b;
  if constexpr (N == kGroup) {
    box_muller<Scalar<float>>(x[0], x[1], a, b);
    out[0] = a, out[1] = b;
    box_muller<Scalar<float>>(x[2], x[3], a, b);
    out[2] = a, out[3] = b;
  } else {
    box_muller<Scalar<float>>(place & 2 ? x[2] : x[0], place & 2 ? x[3] : x[1], a, b);
    out[0] = place & 1 ? b : a;
  }
}

template <int N>
__device__ __forceinline__ void round_copy(const float (&w)[N], Dtype dtype, bool stochastic,
                                           const uint32_t (&random)[N], uint16_t* p) {
  uint16_t out[N];
  for (int j = 0; j < N; ++j) {
    if (dtype == Dtype::bf16)
      out[j] = stochastic ? to_bfloat16(w[j], random[j]) : to_bfloat16(w[j]);
    else
      out[j] = stochastic ? to_float16(w[j], random[j]) : to_float16(w[j]);
  }
  write(p, out);
}

// One coordinate: w and state (v or m) become the new ones unless the coordinate stays or the new
// ones are not finite; returns whether they are not.
template <class T, Rule rule, bool Measured>
__device__ __forceinline__ bool move(const Langevin<Scalar<T>>& step, T g, T xi, T anchor,
                                     bool stays, T& w, T& state, Moments<Scalar<T>>& moments,
                                     T& squares) {
  using L = Scalar<T>;
  T distance = w - anchor, weight = w;
  // zeroed, not only kept: a NaN gradient where nothing moves must not count
  if (stays) g = 0, xi = 0, distance = 0, weight = 0;
  const T prior = step.prior(weight, distance);
  T moved, next = state;
  bool broken;
  if constexpr (rule == Rule::preconditioned) {
    next = step.mean_square(state, g);
    const T root = step.root_of_preconditioner(next);
    moved = w + step.preconditioned_increment(g, prior, xi, root);
    broken = L::not_finite(moved) || L::not_finite(next);
    if constexpr (Measured) moments.add(g, prior, weight, distance, xi, root);
    moved = step.boxed(moved, anchor);
  } else {
    T increment = step.plain_increment(g, weight, distance, xi);
    if constexpr (rule == Rule::momentum) {
      increment = step.carried(stays ? T(0) : state, increment);
      if constexpr (Measured) squares = L::fma(increment, increment, squares);
    }
    moved = w + increment;
    broken = L::not_finite(moved);
    if constexpr (Measured) moments.add(g, prior, weight, distance, xi);
    const T held = step.boxed(moved, anchor);
    next = L::differ(held, moved) ? -increment : increment;
    moved = held;
  }
  if (!stays && !broken) {
    w = moved;
    if constexpr (rule != Rule::plain) state = next;
  }
  return broken && !stays;
}

}  // namespace sltfast
