// sltfast::native_comoment_ and native_comoment_merge_ on the CPU: strips of variables are centred
// and joined to the moments, then tiles of the block take the product of the centred draws.
#include <vector>

#include "comoment_kernel.h"
#include "comoment_state.h"
#include "dispatch.h"
#include "gemm.h"
#include "share_work.h"

namespace sltfast {
namespace {

constexpr int64_t kTile =
    512;  // a float32 product of this side stays in L2, at 90 % of BLAS's rate

int64_t count_valid(const uint8_t* valid, int64_t draws) {
  if (!valid) return draws;
  int64_t counted = 0;
  for (int64_t t = 0; t < draws; ++t) counted += valid[t] != 0;
  return counted;
}

// Draws [G, k, N] of one side and, where a block is kept, their centred copy [G, k + 1, N].
struct Side {
  const Tensor& draws;
  const State::Side& moments;
  std::vector<char> rows;
  bool wide;

  Side(const Tensor& given, const State::Side& side, bool centred, bool in_double)
      : draws(given), moments(side), wide(in_double) {
    if (centred) rows.resize(draws.size(0) * (draws.size(1) + 1) * draws.size(2) * (wide ? 8 : 4));
  }

  int64_t strips() const { return (draws.size(2) + kStrip - 1) / kStrip; }
  char* at(int64_t g, int64_t row, int64_t column) const {
    const int64_t offset = (g * (draws.size(1) + 1) + row) * draws.size(2) + column;
    return const_cast<char*>(rows.data()) + offset * (wide ? 8 : 4);
  }

  void join_strip(int64_t unit, const uint8_t* valid, const double* count) const {
    const int64_t g = unit / strips(), first = unit % strips() * kStrip, n = draws.size(2);
    const int64_t offset = g * draws.stride(0) + first;
    const Draws strip{
        static_cast<const char*>(draws.const_data_ptr()) + offset * (is_wide(draws) ? 8 : 4),
        is_wide(draws), draws.size(1), draws.stride(1),
        valid ? valid + g * draws.size(1) : nullptr};
    kernels<ComomentKernels>().join(strip, std::min(kStrip, n - first), count[g],
                                    moments.mean + g * n + first, moments.m2 + g * n + first,
                                    {rows.empty() ? nullptr : at(g, 0, first), wide, n});
  }

  // Columns [first, first + count) of the centred draws of group g.
  Matrices columns(int64_t g, int64_t first, int64_t count) const {
    const int64_t rows = draws.size(1) + 1, n = draws.size(2);
    return {at(g, 0, first), 1, rows, count, rows * n, n, 1, wide ? 8 : 4};
  }
};

void add_products(const State& state, const Side& x, const Side& y, bool wide) {
  const std::vector<BlockTile> tiles = state.tiles(kTile);
  const int64_t workers = workers_for(tiles.size());
  std::vector<float> products(wide ? 0 : workers * kTile * kTile);
  share_work(tiles.size(), workers, [&](int64_t worker, int64_t i) {
    const BlockTile& t = tiles[i];
    const Matrices a = x.columns(t.group, t.row, t.tile.rows).transposed();
    const Matrices b = y.columns(t.group, t.column, t.tile.columns);
    if (wide) {
      multiply_add(a, b,
                   {reinterpret_cast<char*>(t.tile.block), 1, a.rows, b.columns, 0,
                    t.tile.block_stride, 1, 8});
    } else {
      float* product = products.data() + worker * kTile * kTile;
      multiply(a, b, Matrices::dense(product, 1, a.rows, b.columns, 4));
      kernels<ComomentKernels>().add(t.tile, product, b.columns);
    }
    state.mirror(t);
  });
}

void comoment_(Tensor count, Tensor mean_x, Tensor m2_x, std::optional<Tensor> mean_y,
               std::optional<Tensor> m2_y, std::optional<Tensor> block, Tensor x,
               std::optional<Tensor> y, std::optional<Tensor> valid, std::string precision) {
  const State state(count, mean_x, m2_x, mean_y, m2_y, block, "");
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape [G, k, N]");
  const int64_t draws = x.size(1);
  check_rows("x", x, {state.groups, draws, state.x.size}, is_float(x));
  STD_TORCH_CHECK(y.has_value() == mean_y.has_value(), "y goes with mean_y and m2_y");
  if (y) check_rows("y", *y, {state.groups, draws, state.y.size}, is_float(*y));
  if (valid)
    check_contiguous(
        "valid", *valid, {state.groups, draws},
        valid->scalar_type() == ScalarType::Bool || valid->scalar_type() == ScalarType::Byte);
  const bool wide = precision == "fp64";
  STD_TORCH_CHECK(wide || precision == "fp32", "precision must be fp32 or fp64");
  if (state.groups == 0 || draws == 0) return;

  const uint8_t* valid_data =
      valid ? static_cast<const uint8_t*>(valid->const_data_ptr()) : nullptr;
  const Side of_x(x, state.x, block.has_value(), wide);
  std::optional<Side> of_y;
  if (y) of_y.emplace(*y, state.y, block.has_value(), wide);
  const int64_t units_x = state.groups * of_x.strips();
  const int64_t units = units_x + (y ? state.groups * of_y->strips() : 0);
  share_work(units, workers_for(units), [&](int64_t, int64_t i) {
    if (i < units_x)
      of_x.join_strip(i, valid_data, state.count);
    else
      of_y->join_strip(i - units_x, valid_data, state.count);
  });
  if (block) add_products(state, of_x, of_y ? *of_y : of_x, wide);
  for (int64_t g = 0; g < state.groups; ++g)
    state.count[g] += count_valid(valid_data ? valid_data + g * draws : nullptr, draws);
}

void comoment_merge_(Tensor count, Tensor mean_x, Tensor m2_x, std::optional<Tensor> mean_y,
                     std::optional<Tensor> m2_y, std::optional<Tensor> block, Tensor other_count,
                     Tensor other_mean_x, Tensor other_m2_x, std::optional<Tensor> other_mean_y,
                     std::optional<Tensor> other_m2_y, std::optional<Tensor> other_block) {
  const State state(count, mean_x, m2_x, mean_y, m2_y, block, "");
  const State other(other_count, other_mean_x, other_m2_x, other_mean_y, other_m2_y, other_block,
                    "other_");
  STD_TORCH_CHECK(state.groups == other.groups && state.x.size == other.x.size &&
                      state.y.size == other.y.size && state.symmetric == other.symmetric,
                  "the two states have different shapes");
  STD_TORCH_CHECK(block.has_value() == other_block.has_value(), "block goes with other_block");
  std::vector<double> delta_x(state.groups * state.x.size), delta_y;
  if (!state.symmetric) delta_y.resize(state.groups * state.y.size);
  const auto& run = kernels<ComomentKernels>();
  const auto merge_side = [&](const State::Side& to, const State::Side& from, double* delta) {
    for (int64_t g = 0; g < state.groups; ++g)
      run.merge_moments(to.size, state.count[g], other.count[g], to.mean + g * to.size,
                        to.m2 + g * to.size, from.mean + g * to.size, from.m2 + g * to.size,
                        delta + g * to.size);
  };
  merge_side(state.x, other.x, delta_x.data());
  if (!state.symmetric) merge_side(state.y, other.y, delta_y.data());
  const double* across = state.symmetric ? delta_x.data() : delta_y.data();
  const std::vector<BlockTile> tiles = state.tiles(kTile);
  share_work(tiles.size(), workers_for(tiles.size()), [&](int64_t, int64_t i) {
    const BlockTile& t = tiles[i];
    run.merge_block(t.tile, other.at(t.group, t.row, t.column), other.block_stride,
                    state.count[t.group], other.count[t.group],
                    delta_x.data() + t.group * state.x.size + t.row,
                    across + t.group * state.y.size + t.column);
    state.mirror(t);
  });
  for (int64_t g = 0; g < state.groups; ++g) state.count[g] += other.count[g];
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_comoment_", TORCH_BOX(&sltfast::comoment_));
  m.impl("native_comoment_merge_", TORCH_BOX(&sltfast::comoment_merge_));
}
