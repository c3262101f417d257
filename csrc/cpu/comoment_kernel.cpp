// Moments of strips of draws, their merges and epilogues. Compiled once for each instruction set
// (SLT_ISA), without torch and without std templates. Plain loops over variables: the compiler
// vectorises them, and no sum crosses lanes, so that every instruction set gives the same bits.
#include "comoment_kernel.h"

#include "../numerics/moments.h"

namespace sltfast {
inline namespace SLT_ISA {
namespace {

// Calls visit(row of the draw, its number) for every draw that counts; returns how many.
template <class T, class Visit>
SLT_HD int64_t visit_draws(const Draws& draws, const Visit& visit) {
  const T* row = static_cast<const T*>(draws.x);
  int64_t counted = 0;
  for (int64_t t = 0; t < draws.count; ++t, row += draws.stride) {
    if (draws.valid && !draws.valid[t]) continue;
    visit(row, t);
    ++counted;
  }
  return counted;
}

// The batch's mean, summed twice: the second sum, of what the first mean left, removes the first's
// rounding errors, so that a common offset costs nothing.
template <class T>
int64_t batch_mean(const Draws& draws, int64_t columns, double* mean) {
  double sum[kStrip] = {}, left[kStrip] = {};
  const int64_t m = visit_draws<T>(draws, [&](const T* row, int64_t) {
    for (int64_t j = 0; j < columns; ++j) sum[j] += static_cast<double>(row[j]);
  });
  if (m == 0) return 0;
  for (int64_t j = 0; j < columns; ++j) mean[j] = sum[j] / static_cast<double>(m);
  visit_draws<T>(draws, [&](const T* row, int64_t) {
    for (int64_t j = 0; j < columns; ++j) left[j] += static_cast<double>(row[j]) - mean[j];
  });
  for (int64_t j = 0; j < columns; ++j) mean[j] += left[j] / static_cast<double>(m);
  return m;
}

template <class T, class Out>
void write_scaled(const Draws& draws, int64_t columns, const double* mean, const double* scale,
                  Out* out, int64_t stride) {
  const T* row = static_cast<const T*>(draws.x);
  for (int64_t t = 0; t < draws.count; ++t, row += draws.stride, out += stride) {
    if (draws.valid && !draws.valid[t])
      for (int64_t j = 0; j < columns; ++j) out[j] = 0;
    else if (scale)
      for (int64_t j = 0; j < columns; ++j)
        out[j] = static_cast<Out>((static_cast<double>(row[j]) - mean[j]) * scale[j]);
    else
      for (int64_t j = 0; j < columns; ++j)
        out[j] = static_cast<Out>(static_cast<double>(row[j]) - mean[j]);
  }
}

template <class T>
void write_scaled(const Draws& draws, int64_t columns, const double* mean, const double* scale,
                  const Centred& out) {
  if (out.wide)
    write_scaled<T>(draws, columns, mean, scale, static_cast<double*>(out.rows), out.stride);
  else
    write_scaled<T>(draws, columns, mean, scale, static_cast<float*>(out.rows), out.stride);
}

void standardise(const Draws& draws, int64_t columns, const double* mean, const double* scale,
                 const Centred& out) {
  if (draws.wide)
    write_scaled<double>(draws, columns, mean, scale, out);
  else
    write_scaled<float>(draws, columns, mean, scale, out);
}

template <class T>
void join_strip(const Draws& draws, int64_t columns, double n, double* mean, double* m2,
                const Centred& out) {
  double batch[kStrip], squares[kStrip] = {}, delta[kStrip] = {};
  const int64_t m = batch_mean<T>(draws, columns, batch);
  if (m == 0)
    for (int64_t j = 0; j < columns; ++j) batch[j] = mean[j];
  visit_draws<T>(draws, [&](const T* row, int64_t) {
    for (int64_t j = 0; j < columns; ++j) {
      const double c = static_cast<double>(row[j]) - batch[j];
      squares[j] += c * c;
    }
  });
  if (out.rows) write_scaled<T>(draws, columns, batch, nullptr, out);
  const Merge merge(n, static_cast<double>(m));
  for (int64_t j = 0; j < columns; ++j) {
    delta[j] = batch[j] - mean[j];
    mean[j] += delta[j] * merge.share;
    m2[j] = merged_m2(m2[j], squares[j], delta[j], merge);
  }
  if (!out.rows) return;
  const double root = Scalar<double>::root(merge.weight);
  const int64_t last = draws.count * out.stride;
  if (out.wide)
    for (int64_t j = 0; j < columns; ++j)
      static_cast<double*>(out.rows)[last + j] = root * delta[j];
  else
    for (int64_t j = 0; j < columns; ++j)
      static_cast<float*>(out.rows)[last + j] = static_cast<float>(root * delta[j]);
}

void join(const Draws& draws, int64_t columns, double n, double* mean, double* m2,
          const Centred& out) {
  if (draws.wide)
    join_strip<double>(draws, columns, n, mean, m2, out);
  else
    join_strip<float>(draws, columns, n, mean, m2, out);
}

void add(const Tile& tile, const float* product, int64_t product_stride) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    double* to = tile.block + i * tile.block_stride;
    const float* from = product + i * product_stride;
    for (int64_t j = 0; j < tile.columns; ++j) to[j] += static_cast<double>(from[j]);
  }
}

void mirror(const Tile& tile, double* to, int64_t to_stride) {
  constexpr int64_t kSide = 8;  // a cache line of doubles
  const bool own = to == tile.block;
  for (int64_t i = 0; i < tile.rows; i += kSide)
    for (int64_t j = 0; j < tile.columns; j += kSide)
      for (int64_t b = j; b < j + kSide && b < tile.columns; ++b)
        for (int64_t a = i; a < i + kSide && a < tile.rows; ++a)
          if (!own || b > a) to[b * to_stride + a] = tile.block[a * tile.block_stride + b];
}

void merge_moments(int64_t columns, double n, double m, double* mean, double* m2,
                   const double* other_mean, const double* other_m2, double* delta) {
  const Merge merge(n, m);
  for (int64_t j = 0; j < columns; ++j) {
    delta[j] = other_mean[j] - mean[j];
    mean[j] += delta[j] * merge.share;
    m2[j] = merged_m2(m2[j], other_m2[j], delta[j], merge);
  }
}

void merge_block(const Tile& tile, const double* other, int64_t other_stride, double n, double m,
                 const double* delta_x, const double* delta_y) {
  const Merge merge(n, m);
  for (int64_t i = 0; i < tile.rows; ++i) {
    double* to = tile.block + i * tile.block_stride;
    const double* from = other + i * other_stride;
    const double factor = delta_x[i];
    for (int64_t j = 0; j < tile.columns; ++j)
      to[j] += from[j] + factor * delta_y[j] * merge.weight;
  }
}

void inverse_roots(const double* m2, int64_t count, double* out) {
  for (int64_t j = 0; j < count; ++j) out[j] = inverse_root(m2[j]);
}

template <class Out>
void correlate_row(const double* block, double inverse_x, const double* inverse_y, int64_t columns,
                   Out* out) {
  for (int64_t j = 0; j < columns; ++j)
    out[j] = static_cast<Out>(correlation(block[j], inverse_x, inverse_y[j]));
}

void correlate(const double* block, double inverse_x, const double* inverse_y, int64_t columns,
               void* out, bool wide) {
  if (wide)
    correlate_row(block, inverse_x, inverse_y, columns, static_cast<double*>(out));
  else
    correlate_row(block, inverse_x, inverse_y, columns, static_cast<float*>(out));
}

template <class T>
void rank(const T* row, int64_t columns, int64_t column, int64_t skip, bool absolute, T* values,
          int64_t* indices, int64_t k) {
  constexpr int64_t kGroup = 64;  // entries that are passed over together when none can enter
  for (int64_t first = 0; first < columns; first += kGroup) {
    const int64_t end = first + kGroup < columns ? first + kGroup : columns;
    if (indices[k - 1] >= 0) {
      const T worst = absolute && values[k - 1] < 0 ? -values[k - 1] : values[k - 1];
      int enter = 0;
      for (int64_t j = first; j < end; ++j) {
        const T a = absolute && row[j] < 0 ? -row[j] : row[j];
        enter |= a >= worst;
      }
      if (!enter) continue;
    }
    for (int64_t j = first; j < end; ++j) {
      const int64_t index = column + j;
      if (index == skip || !ranks_before(row[j], index, values[k - 1], indices[k - 1], absolute))
        continue;
      int64_t place = k - 1;
      for (; place > 0 &&
             ranks_before(row[j], index, values[place - 1], indices[place - 1], absolute);
           --place)
        values[place] = values[place - 1], indices[place] = indices[place - 1];
      values[place] = row[j], indices[place] = index;
    }
  }
}

}  // namespace
}  // namespace SLT_ISA

#define SLT_KERNELS_OF_(isa) isa##_kernels
#define SLT_KERNELS_OF(isa) SLT_KERNELS_OF_(isa)

const ComomentKernels& SLT_KERNELS_OF(SLT_ISA)(const ComomentKernels*) {
  static const ComomentKernels kernels{join,        standardise,   add,           mirror,
                                       merge_block, merge_moments, inverse_roots, correlate,
                                       rank<float>, rank<double>};
  return kernels;
}

}  // namespace sltfast
