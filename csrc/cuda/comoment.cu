// sltfast::native_comoment_ and native_comoment_merge_ on CUDA: kernels of ours around cuBLAS.
#include <string>

#include "comoment.cuh"
#include "comoment_block.cuh"
#include "comoment_launch.h"

namespace sltfast {
namespace {

constexpr int64_t kTile = 4096;  // rows and columns of a product that waits to be added

struct CudaState {
  int64_t groups, n, m;
  bool symmetric;

  CudaState(const Tensor& count, const Tensor& mean_x, const Tensor& m2_x,
            const std::optional<Tensor>& mean_y, const std::optional<Tensor>& m2_y,
            const std::optional<Tensor>& block)
      : groups(count.numel()), n(mean_x.dim() == 2 ? mean_x.size(1) : -1), symmetric(!mean_y) {
    check_on_device("count", count, {groups}, is_wide(count), true);
    check_on_device("mean_x", mean_x, {groups, n}, is_wide(mean_x), true);
    check_on_device("m2_x", m2_x, {groups, n}, is_wide(m2_x), true);
    STD_TORCH_CHECK(mean_y.has_value() == m2_y.has_value(), "mean_y and m2_y go together");
    m = mean_y ? mean_y->size(mean_y->dim() - 1) : n;
    if (mean_y) {
      check_on_device("mean_y", *mean_y, {groups, m}, is_wide(*mean_y), true);
      check_on_device("m2_y", *m2_y, {groups, m}, is_wide(*m2_y), true);
    }
    if (block) check_on_device("block", *block, {groups, n, m}, is_wide(*block), false);
  }
};

// Joins one side's draws; returns them centred, [G, k + 1, N], where a product is wanted.
Tensor join_side(const Tensor& x, const uint8_t* valid, const Tensor& count, const Tensor& mean,
                 const Tensor& m2, bool centred, bool wide, cudaStream_t stream) {
  const int64_t groups = x.size(0), draws = x.size(1), n = x.size(2);
  Tensor out = torch::stable::new_empty(x, {centred ? groups : 0, draws + 1, n},
                                        wide ? ScalarType::Double : ScalarType::Float);
  const JoinArguments a{x.const_data_ptr(),
                        valid,
                        count.const_data_ptr<double>(),
                        mean.mutable_data_ptr<double>(),
                        m2.mutable_data_ptr<double>(),
                        centred ? out.mutable_data_ptr() : nullptr,
                        groups,
                        draws,
                        n,
                        x.stride(0),
                        x.stride(1)};
  const unsigned blocks = blocks_for(groups * ((n + kStripVariables - 1) / kStripVariables));
  constexpr int kThreads = kQuads * kDrawThreads;
  if (n > 0) {
    if (is_wide(x) && wide) join_draws<double, double><<<blocks, kThreads, 0, stream>>>(a);
    if (is_wide(x) && !wide) join_draws<double, float><<<blocks, kThreads, 0, stream>>>(a);
    if (!is_wide(x) && wide) join_draws<float, double><<<blocks, kThreads, 0, stream>>>(a);
    if (!is_wide(x) && !wide) join_draws<float, float><<<blocks, kThreads, 0, stream>>>(a);
    check_launch();
  }
  return out;
}

// Rows [0, k], columns [first, first + count) of a group's centred draws.
Tensor columns_of(const Tensor& centred, int64_t group, int64_t first, int64_t count) {
  Tensor one = torch::stable::select(centred, 0, group);
  return torch::stable::narrow(one, 1, first, count);
}

void add_products(const Tensor& block, bool symmetric, const Tensor& x, const Tensor& y,
                  cudaStream_t stream) {
  const int64_t groups = block.size(0), n = block.size(1), m = block.size(2);
  const int64_t stride = block.stride(1);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < n; i += kTile)
      for (int64_t j = symmetric ? i : 0; j < m; j += kTile) {
        const int64_t rows = std::min(kTile, n - i), columns = std::min(kTile, m - j);
        Tensor product = torch::stable::new_empty(x, {rows, columns});
        multiply_into(product, torch::stable::transpose(columns_of(x, g, i, rows), 0, 1),
                      columns_of(y, g, j, columns));
        double* origin = block.mutable_data_ptr<double>() + g * block.stride(0);
        double* tile = origin + i * stride + j;
        double* mirror = symmetric ? origin + j * stride + i : nullptr;
        const unsigned blocks =
            blocks_for(((rows + kSide - 1) / kSide) * ((columns + kSide - 1) / kSide));
        if (is_wide(x))
          add_product<<<blocks, kSide * kSideRows, 0, stream>>>(
              tile, stride, product.const_data_ptr<double>(), rows, columns, mirror);
        else
          add_product<<<blocks, kSide * kSideRows, 0, stream>>>(
              tile, stride, product.const_data_ptr<float>(), rows, columns, mirror);
        check_launch();
      }
}

void comoment_(Tensor count, Tensor mean_x, Tensor m2_x, std::optional<Tensor> mean_y,
               std::optional<Tensor> m2_y, std::optional<Tensor> block, Tensor x,
               std::optional<Tensor> y, std::optional<Tensor> valid, std::string precision) {
  const CudaState state(count, mean_x, m2_x, mean_y, m2_y, block);
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape [G, k, N]");
  const int64_t draws = x.size(1);
  check_on_device("x", x, {state.groups, draws, state.n}, is_float(x), false);
  STD_TORCH_CHECK(y.has_value() == mean_y.has_value(), "y goes with mean_y and m2_y");
  if (y) check_on_device("y", *y, {state.groups, draws, state.m}, is_float(*y), false);
  if (valid) check_on_device("valid", *valid, {state.groups, draws}, is_flag(*valid), true);
  const bool wide = precision == "fp64";
  STD_TORCH_CHECK(wide || precision == "fp32", "precision must be fp32 or fp64");
  if (state.groups == 0 || draws == 0) return;

  const OnDevice here(x);
  const uint8_t* counts = valid ? static_cast<const uint8_t*>(valid->const_data_ptr()) : nullptr;
  const bool products = block.has_value() && state.n > 0 && state.m > 0;
  const Tensor of_x = join_side(x, counts, count, mean_x, m2_x, products, wide, here.stream);
  const Tensor of_y =
      y ? join_side(*y, counts, count, *mean_y, *m2_y, products, wide, here.stream) : of_x;
  if (products) add_products(*block, state.symmetric, of_x, of_y, here.stream);
  count_draws<<<blocks_for((state.groups + 3) / 4), 4 * kWarp, 0, here.stream>>>(
      count.mutable_data_ptr<double>(), counts, state.groups, draws);
  check_launch();
}

void comoment_merge_(Tensor count, Tensor mean_x, Tensor m2_x, std::optional<Tensor> mean_y,
                     std::optional<Tensor> m2_y, std::optional<Tensor> block, Tensor other_count,
                     Tensor other_mean_x, Tensor other_m2_x, std::optional<Tensor> other_mean_y,
                     std::optional<Tensor> other_m2_y, std::optional<Tensor> other_block) {
  const CudaState state(count, mean_x, m2_x, mean_y, m2_y, block);
  const CudaState other(other_count, other_mean_x, other_m2_x, other_mean_y, other_m2_y,
                        other_block);
  STD_TORCH_CHECK(state.groups == other.groups && state.n == other.n && state.m == other.m &&
                      state.symmetric == other.symmetric,
                  "the two states have different shapes");
  STD_TORCH_CHECK(block.has_value() == other_block.has_value(), "block goes with other_block");
  if (state.groups == 0) return;
  const OnDevice here(count);
  const double* n = count.const_data_ptr<double>();
  const double* m = other_count.const_data_ptr<double>();
  const auto merge_side = [&](const Tensor& mean, const Tensor& m2, const Tensor& mean_,
                              const Tensor& m2_) {
    Tensor delta = torch::stable::empty_like(mean);
    if (mean.numel() == 0) return delta;
    merge_moments<<<blocks_for((mean.numel() + 255) / 256), 256, 0, here.stream>>>(
        mean.mutable_data_ptr<double>(), m2.mutable_data_ptr<double>(),
        delta.mutable_data_ptr<double>(), n, mean_.const_data_ptr<double>(),
        m2_.const_data_ptr<double>(), m, mean.size(0), mean.size(1));
    check_launch();
    return delta;
  };
  const Tensor dx = merge_side(mean_x, m2_x, other_mean_x, other_m2_x);
  const Tensor dy = mean_y ? merge_side(*mean_y, *m2_y, *other_mean_y, *other_m2_y) : dx;
  for (int64_t g = 0; block && state.n * state.m > 0 && g < state.groups; ++g) {
    merge_block<<<blocks_for((state.n * state.m + 255) / 256), 256, 0, here.stream>>>(
        block->mutable_data_ptr<double>() + g * block->stride(0), block->stride(1),
        other_block->const_data_ptr<double>() + g * other_block->stride(0), other_block->stride(1),
        dx.const_data_ptr<double>() + g * state.n, dy.const_data_ptr<double>() + g * state.m, n + g,
        m + g, state.n, state.m);
    check_launch();
  }
  add_counts<<<blocks_for((state.groups + 255) / 256), 256, 0, here.stream>>>(
      count.mutable_data_ptr<double>(), m, state.groups);
  check_launch();
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CUDA, m) {
  m.impl("native_comoment_", TORCH_BOX(&sltfast::comoment_));
  m.impl("native_comoment_merge_", TORCH_BOX(&sltfast::comoment_merge_));
}
