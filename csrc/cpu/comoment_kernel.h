// What the kernel file compiled for one instruction set offers to the co-moment ops: plain structs
// and function pointers.
#pragma once

#include <cstdint>

namespace sltfast {

constexpr int64_t kStrip = 256;  // variables whose draws are read together: they stay in L2

// Draws of a strip of at most kStrip variables of one group; `x` is at the strip's first variable.
struct Draws {
  const void* x;
  bool wide;              // float64, else float32
  int64_t count, stride;  // draws, and values from one draw to the next
  const uint8_t* valid;   // null: all count
};

// Where the centred draws of a strip go: count rows, then one that holds √weight·δ.
struct Centred {
  void* rows;
  bool wide;
  int64_t stride;
};

// The matrix values of one tile; strides are from row to row.
struct Tile {
  double* block;
  int64_t block_stride;
  int64_t rows, columns;
};

struct ComomentKernels {
  // Joins the draws of `columns` variables to their mean and m2, which held `n` draws; writes the
  // centred draws unless `out.rows` is null.
  void (*join)(const Draws&, int64_t columns, double n, double* mean, double* m2,
               const Centred& out);
  // z = (x − mean)·scale, zero for draws that do not count.
  void (*standardise)(const Draws&, int64_t columns, const double* mean, const double* scale,
                      const Centred& out);
  // block += product.
  void (*add)(const Tile&, const float* product, int64_t product_stride);
  // to = blockᵀ; where `to` is the block itself, what is above its diagonal is copied below.
  void (*mirror)(const Tile&, double* to, int64_t to_stride);
  // Joins `m` draws with mean, m2 and co-moments `other_*` to `n` ones, row by row.
  void (*merge_block)(const Tile&, const double* other, int64_t other_stride, double n, double m,
                      const double* delta_x, const double* delta_y);
  void (*merge_moments)(int64_t columns, double n, double m, double* mean, double* m2,
                        const double* other_mean, const double* other_m2, double* delta);
  void (*inverse_roots)(const double* m2, int64_t count, double* out);
  // One row of correlations; `wide`: out is float64, else float32.
  void (*correlate)(const double* block, double inverse_x, const double* inverse_y, int64_t columns,
                    void* out, bool wide);
  // Merges one row of a matrix, whose first column has index `column`, into the k best of its row;
  // the entry of index `skip` is left out.
  void (*rank_f32)(const float* row, int64_t columns, int64_t column, int64_t skip, bool absolute,
                   float* values, int64_t* indices, int64_t k);
  void (*rank_f64)(const double* row, int64_t columns, int64_t column, int64_t skip, bool absolute,
                   double* values, int64_t* indices, int64_t k);
};

const ComomentKernels& generic_kernels(const ComomentKernels*);
const ComomentKernels& avx2_kernels(const ComomentKernels*);
const ComomentKernels& avx512_kernels(const ComomentKernels*);

}  // namespace sltfast
