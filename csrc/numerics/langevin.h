// One Langevin update:
//   d = nβ·g + λ·w + γ·(w − w*);  w ← w − (ε/2)·G·d + √ε·σ·√G·ξ;  then clamp to w* ± b.
//   With momentum: m ← (1 − ζ)·m − (ε/2)·d + √(A·ε)·σ·ξ;  w ← w + m;  where clamped, m ← −m.
//   G = 1, or 1/(√v̂ + eps) with v ← α·v + (1 − α)·g², v̂ = v·correction.
// The whole increment is formed before it is added to w: one rounding at w's precision.
#pragma once

#include "scalar.h"

namespace sltfast {
inline namespace SLT_ISA {

// Coefficients of one chain at one step.
template <class L>
struct Langevin {
  using Real = typename L::Real;
  Real minus_half_lr, n_beta, localization, weight_decay, noise, box;
  Real gradient_step, localization_step, weight_decay_step;  // −ε/2 times each
  Real alpha, one_minus_alpha, correction, eps;
  Real kept;  // 1 − ζ

  template <class Hyper>
  explicit SLT_HD Langevin(const Hyper& h)
      : minus_half_lr(L::broadcast(-0.5 * h.lr)),
        n_beta(L::broadcast(h.n_beta)),
        localization(L::broadcast(h.localization)),
        weight_decay(L::broadcast(h.weight_decay)),
        noise(L::broadcast(h.noise)),
        box(L::broadcast(h.box)),
        gradient_step(L::broadcast(-0.5 * h.lr * h.n_beta)),
        localization_step(L::broadcast(-0.5 * h.lr * h.localization)),
        weight_decay_step(L::broadcast(-0.5 * h.lr * h.weight_decay)),
        alpha(L::broadcast(h.alpha)),
        one_minus_alpha(L::broadcast(1.0 - h.alpha)),
        correction(L::broadcast(h.correction)),
        eps(L::broadcast(h.eps)),
        kept(L::broadcast(h.kept)) {}

  SLT_HD Real mean_square(Real v, Real g) const {
    return L::fma(alpha, v, one_minus_alpha * (g * g));
  }
  // √G; G is its square, so that w − … + √G·ξ sees one G.
  SLT_HD Real root_of_preconditioner(Real v) const {
    return L::root(1.0f / (L::root(v * correction) + eps));
  }
  SLT_HD Real prior(Real w, Real distance) const {
    return L::fma(localization, distance, weight_decay * w);
  }
  SLT_HD Real plain_increment(Real g, Real w, Real distance, Real xi) const {
    const Real pulled = L::fma(weight_decay_step, w, noise * xi);
    return L::fma(gradient_step, g, L::fma(localization_step, distance, pulled));
  }
  SLT_HD Real preconditioned_increment(Real g, Real prior, Real xi, Real root) const {
    const Real drift = minus_half_lr * (root * root);
    return L::fma(drift, L::fma(n_beta, g, prior), (noise * root) * xi);
  }
  // The new m: `increment` alone at ζ = 1, to the bit.
  SLT_HD Real carried(Real m, Real increment) const { return L::fma(kept, m, increment); }
  SLT_HD Real boxed(Real w, Real anchor) const {
    return L::lower(L::upper(w, anchor - box), anchor + box);
  }
};

// The new ζ of a thermostat: Σm²/n is held at its value in the stationary state of the discrete
// chain, ε/(2 − ζ), so that the weights' temperature is 1 at any ζ. (Ding et al. hold it at the
// limit ε/2, which cools the weights by ζ/2.)
SLT_HD double next_thermostat(double zeta, double mean_square, double lr) {
  return zeta + (mean_square - lr / (2.0 - zeta));
}

// Sums of the diagnostics over coordinates, without the chain's scalar factors.
template <class L>
struct Moments {
  using Real = typename L::Real;
  Real s[9];

  SLT_HD Moments() {
    for (int i = 0; i < 9; ++i) s[i] = L::broadcast(0);
  }
  SLT_HD void add(Real g, Real prior, Real w, Real distance, Real xi) {
    s[0] = L::fma(g, g, s[0]);
    s[2] = L::fma(distance, distance, s[2]);
    s[3] = L::fma(w, w, s[3]);
    s[4] = L::fma(xi, xi, s[4]);
    s[6] = L::fma(g, prior, s[6]);
    s[7] = L::fma(g, xi, s[7]);
    s[8] = L::fma(prior, xi, s[8]);
  }
  SLT_HD void add(Real g, Real prior, Real w, Real distance, Real xi, Real root) {
    const Real precondition = root * root;
    s[1] = L::fma(g, g, s[1]);
    s[5] = L::fma(distance, distance, s[5]);
    add(precondition * g, precondition * prior, precondition * w, precondition * distance,
        root * xi);
  }
  // Adds to nine doubles in the order of the op's `metrics`; with G = 1 two pairs of sums are one.
  SLT_HD void flush(double* out, bool preconditioned) const {
    for (int i = 0; i < 9; ++i)
      out[i] += L::sum(preconditioned ? s[i] : i == 1 ? s[0] : i == 5 ? s[2] : s[i]);
  }
};

}  // namespace SLT_ISA
}  // namespace sltfast
