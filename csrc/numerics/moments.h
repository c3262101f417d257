// Means and co-moments of draws, merged by Chan's rule, and what is read from them.
#pragma once

#include "scalar.h"

namespace sltfast {
inline namespace SLT_ISA {

// What joins n draws already counted and m new ones:
//   mean ← mean + δ·share,  S ← S + S_batch + δx·δy·weight,  δ = mean of the batch − mean.
struct Merge {
  double share;   // m / (n + m)
  double weight;  // n·m / (n + m)

  SLT_HD Merge(double n, double m) {
    const double total = n + m;
    share = total > 0 ? m / total : 0;
    weight = n * share;
  }
};

// Σ(x − mean)² after joining a batch with second moment `batch` whose mean is δ away.
SLT_HD double merged_m2(double m2, double batch, double delta, const Merge& merge) {
  return m2 + (batch + delta * delta * merge.weight);
}

// The least m2 of a variable that varies: the product of two inverse roots is finite.
constexpr double kLeastM2 = 2.2250738585072014e-308;

// 1/√m2, and 0 for a variable that does not vary.
SLT_HD double inverse_root(double m2) {
  return m2 >= kLeastM2 ? 1.0 / Scalar<double>::root(m2) : 0;
}

// s / √(m2_x·m2_y), held to [−1, 1], which rounding alone leaves. The same bits for (y, x); NaN
// stays NaN.
SLT_HD double correlation(double s, double inverse_x, double inverse_y) {
  const double r = s * (inverse_x * inverse_y);
  return r > 1 ? 1 : r < -1 ? -1 : r;
}

// Is (value, index) better than (other, other_index): larger, or as large with the lower index? An
// index below 0 is an empty place, which every number beats; NaN beats nothing.
template <class T>
SLT_HD bool ranks_before(T value, int64_t index, T other, int64_t other_index, bool absolute) {
  const T a = absolute && value < 0 ? -value : value;
  const T b = absolute && other < 0 ? -other : other;
  if (!(a == a)) return false;
  if (other_index < 0) return true;
  return a > b || (a == b && index < other_index);
}

}  // namespace SLT_ISA
}  // namespace sltfast
