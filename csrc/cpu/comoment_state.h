// The state of the co-moment ops: checked tensors, and the tiles of their block.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "comoment_kernel.h"
#include "dispatch.h"
#include "stable_tensors.h"

namespace sltfast {

// One tile of one group's block; `row` and `column` are where it starts.
struct BlockTile {
  int64_t group, row, column;
  Tile tile;
};

// count [G], mean and m2 [G, N] of x and [G, M] of y, block [G, N, M] (rows contiguous). Without y
// the block is symmetric: y is x.
struct State {
  struct Side {
    double *mean, *m2;
    int64_t size;

    Side(const std::string& of, const Tensor& mean_, const Tensor& m2_, int64_t groups) {
      STD_TORCH_CHECK(mean_.dim() == 2, "mean", of, " must have shape [G, N]");
      size = mean_.size(1);
      check_contiguous(("mean" + of).c_str(), mean_, {groups, size}, is_wide(mean_));
      check_contiguous(("m2" + of).c_str(), m2_, {groups, size}, is_wide(m2_));
      mean = static_cast<double*>(mean_.mutable_data_ptr());
      m2 = static_cast<double*>(m2_.mutable_data_ptr());
    }
  };

  int64_t groups;
  double* count;
  bool symmetric;
  Side x, y;
  double* block = nullptr;
  int64_t group_stride = 0, block_stride = 0;

  State(const Tensor& count_, const Tensor& mean_x, const Tensor& m2_x,
        const std::optional<Tensor>& mean_y, const std::optional<Tensor>& m2_y,
        const std::optional<Tensor>& block_, const std::string& prefix)
      : groups(count_.numel()),
        count(static_cast<double*>(count_.mutable_data_ptr())),
        symmetric(!mean_y),
        x(prefix + "_x", mean_x, m2_x, groups),
        y(symmetric ? x : Side(prefix + "_y", *mean_y, m2_y ? *m2_y : *mean_y, groups)) {
    check_contiguous("count", count_, {groups}, is_wide(count_));
    STD_TORCH_CHECK(mean_y.has_value() == m2_y.has_value(), "mean_y and m2_y go together");
    if (!block_) return;
    check_rows("block", *block_, {groups, x.size, y.size}, is_wide(*block_));
    block = static_cast<double*>(block_->mutable_data_ptr());
    group_stride = block_->stride(0), block_stride = block_->stride(1);
  }

  double* at(int64_t group, int64_t row, int64_t column) const {
    return block + group * group_stride + row * block_stride + column;
  }

  // Tiles of at most side·side; of a symmetric block those on and above the diagonal.
  std::vector<BlockTile> tiles(int64_t side) const {
    std::vector<BlockTile> out;
    if (!block) return out;
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t i = 0; i < x.size; i += side)
        for (int64_t j = symmetric ? i : 0; j < y.size; j += side)
          out.push_back({g,
                         i,
                         j,
                         {at(g, i, j), block_stride, std::min(side, x.size - i),
                          std::min(side, y.size - j)}});
    return out;
  }

  // Copies what a tile of a symmetric block has above the diagonal to its place below.
  void mirror(const BlockTile& t) const {
    if (symmetric)
      kernels<ComomentKernels>().mirror(t.tile, at(t.group, t.column, t.row), block_stride);
  }
};

}  // namespace sltfast
