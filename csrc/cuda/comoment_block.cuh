// Adds products and other blocks to a block of co-moments.
#pragma once

#include "../numerics/moments.h"
#include "device.cuh"

namespace sltfast {

constexpr int kSide = 32, kSideRows = 8;  // a square of the block, and the rows of threads on it

// Threads kSide · kSideRows: block += product, and where `mirror` is given mirror = blockᵀ. Where
// that is the block itself, what lies above its diagonal is added and copied below.
template <class T>
__global__ void __launch_bounds__(kSide* kSideRows)
    add_product(double* block, int64_t block_stride, const T* product, int64_t rows,
                int64_t columns, double* mirror) {
  __shared__ double square[kSide][kSide + 1];  // one more: columns fall into different banks
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int64_t across = (columns + kSide - 1) / kSide, down = (rows + kSide - 1) / kSide;
  const bool own = mirror == block;
  for (int64_t unit = blockIdx.x; unit < across * down; unit += gridDim.x) {
    const int64_t top = unit / across * kSide, left = unit % across * kSide;
    if (own && left < top) continue;  // the same for the whole block
    for (int r = y; r < kSide; r += kSideRows) {
      const int64_t i = top + r, j = left + x;
      if (i >= rows || j >= columns) continue;
      double* to = block + i * block_stride + j;
      square[r][x] = *to + static_cast<double>(product[i * columns + j]);
      if (!own || j >= i) *to = square[r][x];
    }
    if (!mirror) continue;
    __syncthreads();
    for (int r = y; r < kSide; r += kSideRows) {
      const int64_t i = top + x, j = left + r;  // of the block: what is written lies at (j, i)
      if (i < rows && j < columns && (!own || j > i)) mirror[j * block_stride + i] = square[x][r];
    }
    __syncthreads();
  }
}

// One side's moments: mean and m2 join, δ [G, N] stays for the block.
__global__ void merge_moments(double* mean, double* m2, double* delta, const double* count,
                              const double* other_mean, const double* other_m2,
                              const double* other_count, int64_t groups, int64_t variables) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
       i < groups * variables; i += step) {
    const Merge merge(count[i / variables], other_count[i / variables]);
    const double d = other_mean[i] - mean[i];
    delta[i] = d;
    mean[i] += d * merge.share;
    m2[i] = merged_m2(m2[i], other_m2[i], d, merge);
  }
}

// One group's block [N, M]; a thread takes a value.
__global__ void merge_block(double* block, int64_t stride, const double* other,
                            int64_t other_stride, const double* delta_x, const double* delta_y,
                            const double* count, const double* other_count, int64_t rows,
                            int64_t columns) {
  const Merge merge(*count, *other_count);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
       at < rows * columns; at += step) {
    const int64_t i = at / columns, j = at % columns;
    block[i * stride + j] += other[i * other_stride + j] + delta_x[i] * delta_y[j] * merge.weight;
  }
}

__global__ void add_counts(double* count, const double* other, int64_t groups) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t g = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; g < groups;
       g += step)
    count[g] += other[g];
}

}  // namespace sltfast
