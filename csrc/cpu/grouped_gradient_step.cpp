// sltfast::native_grouped_gradient_step_ on the CPU: a tile of the group's gradient by BLAS, into
// scratch that stays in L2, and the Langevin step of the tile's coordinates from there.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "../grouped_gradient_arguments.h"
#include "dispatch.h"
#include "gemm.h"
#include "grouped_gradient_kernel.h"
#include "share_work.h"

namespace sltfast {
namespace {

// A tile's coordinates and columns: a float tile fills an L2. Of the sizes that
// benchmarks/grouped_gradient.py tried (2^16 to 2^20, columns of 1024 and 4096) none was faster
// than this by more than the noise; fewer rows than kRows lose a tenth of the product's speed.
constexpr int64_t kTile = 262144, kColumns = 4096, kRows = 64;

struct Tiles {
  int64_t rows, columns, down, across;

  // Small enough for L2, and for several threads to find some; a function of the shape alone.
  Tiles(int64_t r, int64_t k) {
    columns = std::min(k, kColumns);
    rows = std::min(r, std::max<int64_t>(1, kTile / columns));
    const int64_t wide = (k + columns - 1) / columns;
    while (rows >= 2 * kRows && (r + rows - 1) / rows * wide < 4) rows = (rows + 1) / 2;
    down = (r + rows - 1) / rows, across = (k + columns - 1) / columns;
  }
};

void grouped_gradient_step_(Tensor w, Tensor left, Tensor right, std::optional<Tensor> weights,
                            Tensor anchor, Tensor segment, Tensor hyper, Tensor step, Tensor chains,
                            int64_t seed, int64_t stream, std::optional<Tensor> loss,
                            std::optional<Tensor> alive, std::optional<Tensor> death_step,
                            std::string precision) {
  STD_TORCH_CHECK(w.is_cpu(), "w must be on the CPU");
  const GroupedGradientArguments g(w, std::move(left), std::move(right), std::move(weights),
                                   std::move(anchor), segment, hyper, step, chains, seed, stream,
                                   loss, alive, death_step, precision);
  const int64_t count = g.chains, n = g.positions, r = g.left.columns, k = g.right.columns;
  const bool wide = g.master == Dtype::f64;
  const int64_t width = size_of(g.master), left_width = size_of(g.left.dtype);
  const auto& own = kernels<GroupedGradientKernels>();
  const auto gather = wide ? own.gather_f64 : own.gather_f32;
  const auto move =
      wide ? kernels<LangevinKernels>().step_f64 : kernels<LangevinKernels>().step_f32;
  const bool exact = g.operands == Operands::ieee;
  right = g.right.tensor;
  if (!exact || g.right.dtype != g.master) {
    right = torch::stable::contiguous(right);
    Tensor copy = torch::stable::empty({count, n, k}, w.scalar_type());
    gather({right.const_data_ptr(), g.right.dtype, count * n, k, k, nullptr, g.operands,
            copy.mutable_data_ptr()});
    right = copy;
  }
  const Matrices b = matrices_of(right);
  const bool gathered = g.weights || !exact || g.left.dtype != g.master;
  left = g.left.tensor;
  Matrices a{};
  if (!gathered) a = matrices_of(left);

  const int64_t t = *g.step;
  std::vector<ChainStep> moving;
  std::vector<int64_t> rows;
  std::vector<uint8_t> dies(count, 0);
  for (int64_t c = 0; c < count; ++c) {
    if (g.alive && !g.alive[c]) continue;
    if (g.loss && !std::isfinite(g.loss[c])) {
      dies[c] = 1;
      continue;
    }
    moving.push_back(chain_step(g.method, g.hyper + 6 * c, t, g.chain_ids[c], 0.0));
    rows.push_back(c);
  }

  char* coordinates = static_cast<char*>(w.mutable_data_ptr());
  const Tiles tiles(std::max<int64_t>(r, 1), std::max<int64_t>(k, 1));
  // chains innermost: they share the anchor's tile
  const int64_t lanes = static_cast<int64_t>(moving.size());
  const int64_t units = r * k == 0 ? 0 : tiles.down * tiles.across * lanes;
  const int64_t workers = workers_for(units);
  std::vector<std::vector<char>> gradients(workers), lefts(workers);
  std::vector<uint8_t> finite(units, 1);
  share_work(units, workers, [&](int64_t worker, int64_t unit) {
    const int64_t tile = unit / lanes, c = rows[unit % lanes];
    const int64_t r0 = tile / tiles.across * tiles.rows, k0 = tile % tiles.across * tiles.columns;
    const int64_t down = std::min(tiles.rows, r - r0), across = std::min(tiles.columns, k - k0);
    if (n > 0) {
      std::vector<char>& room = gradients[worker];
      if (room.empty()) room.resize(tiles.rows * tiles.columns * width);
      Matrices factor;
      if (gathered) {
        std::vector<char>& copy = lefts[worker];
        if (copy.empty()) copy.resize(n * tiles.rows * width);
        gather({g.left.data() + (c * g.left.chain + r0) * left_width, g.left.dtype, n, down,
                g.left.row, g.weights ? g.weight_data() + c * n * width : nullptr, g.operands,
                copy.data()});
        factor = Matrices::dense(copy.data(), 1, n, down, width);
      } else {
        factor = a.some(c, 1).some_columns(r0, down);
      }
      multiply(factor.transposed(), b.some(c, 1).some_columns(k0, across),
               Matrices::dense(room.data(), 1, down, across, width));
    }
    // a tile of whole rows is one stretch of coordinates
    const int64_t stretches = across == k ? 1 : down, length = across == k ? down * k : across;
    for (int64_t i = 0; i < stretches; ++i) {
      const int64_t first = (r0 + i) * k + k0;
      Piece piece{};
      piece.w = coordinates + (c * w.size(1) + g.segment.offset + first) * width;
      if (n > 0) piece.grad = {gradients[worker].data() + i * length * width, g.master};
      piece.anchor = {g.anchor_data() + first * size_of(g.anchor_dtype), g.anchor_dtype};
      piece.count = length, piece.first = first;
      piece.element = g.segment.element, piece.run = g.segment.run, piece.stride = g.segment.stride;
      finite[unit] &= move(piece, moving[unit % lanes], nullptr, nullptr);
    }
  });

  for (int64_t unit = 0; unit < units; ++unit) dies[rows[unit % lanes]] |= !finite[unit];
  for (int64_t c = 0; c < count; ++c) {
    if (!dies[c]) continue;
    if (g.alive) g.alive[c] = 0;
    if (g.death_step) g.death_step[c] = t;
  }
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_grouped_gradient_step_", TORCH_BOX(&sltfast::grouped_gradient_step_));
}
