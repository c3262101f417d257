// What is read from co-moments on CUDA: correlations, standardised draws, the best of each row.
#include "comoment_epilogues.cuh"
#include "comoment_launch.h"

namespace sltfast {
namespace {

void comoment_correlation_(Tensor out, Tensor block, Tensor m2_x, std::optional<Tensor> m2_y) {
  STD_TORCH_CHECK(block.dim() == 3, "block must have shape [G, N, M]");
  const int64_t groups = block.size(0), n = block.size(1), m = block.size(2);
  check_on_device("block", block, {groups, n, m}, is_wide(block), false);
  check_on_device("out", out, {groups, n, m}, is_float(out), false);
  check_on_device("m2_x", m2_x, {groups, n}, is_wide(m2_x), true);
  STD_TORCH_CHECK(m2_y || n == m, "without m2_y the block must be square");
  if (m2_y) check_on_device("m2_y", *m2_y, {groups, m}, is_wide(*m2_y), true);
  if (block.numel() == 0) return;
  const OnDevice here(block);
  const auto run = [&](auto* to) {
    correlate<<<blocks_for(groups * n), kRowThreads, 0, here.stream>>>(
        to, out.stride(0), out.stride(1), block.const_data_ptr<double>(), block.stride(0),
        block.stride(1), m2_x.const_data_ptr<double>(),
        (m2_y ? *m2_y : m2_x).const_data_ptr<double>(), !m2_y, groups, n, m);
    check_launch();
  };
  if (is_wide(out))
    run(out.mutable_data_ptr<double>());
  else
    run(out.mutable_data_ptr<float>());
}

void comoment_standardise_(Tensor z, Tensor x, Tensor mean, Tensor scale,
                           std::optional<Tensor> valid) {
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape [G, k, N]");
  const int64_t groups = x.size(0), draws = x.size(1), n = x.size(2);
  check_on_device("x", x, {groups, draws, n}, is_float(x), false);
  check_on_device("z", z, {groups, draws, n}, is_float(z), false);
  check_on_device("mean", mean, {groups, n}, is_wide(mean), true);
  check_on_device("scale", scale, {groups, n}, is_wide(scale), true);
  if (valid) check_on_device("valid", *valid, {groups, draws}, is_flag(*valid), true);
  if (x.numel() == 0) return;
  const OnDevice here(x);
  const StandardiseArguments a{
      z.mutable_data_ptr(),
      x.const_data_ptr(),
      mean.const_data_ptr<double>(),
      scale.const_data_ptr<double>(),
      valid ? static_cast<const uint8_t*>(valid->const_data_ptr()) : nullptr,
      groups,
      draws,
      n,
      z.stride(0),
      z.stride(1),
      x.stride(0),
      x.stride(1)};
  const unsigned blocks = blocks_for(groups * draws);
  if (is_wide(x) && is_wide(z))
    standardise<double, double><<<blocks, kRowThreads, 0, here.stream>>>(a);
  if (is_wide(x) && !is_wide(z))
    standardise<double, float><<<blocks, kRowThreads, 0, here.stream>>>(a);
  if (!is_wide(x) && is_wide(z))
    standardise<float, double><<<blocks, kRowThreads, 0, here.stream>>>(a);
  if (!is_wide(x) && !is_wide(z))
    standardise<float, float><<<blocks, kRowThreads, 0, here.stream>>>(a);
  check_launch();
}

void comoment_top_k_(Tensor values, Tensor indices, Tensor block, int64_t column,
                     std::optional<int64_t> row, bool absolute) {
  STD_TORCH_CHECK(block.dim() == 2, "block must have shape [N, M]");
  STD_TORCH_CHECK(values.dim() == 2, "values must have shape [N, K]");
  const int64_t n = block.size(0), m = block.size(1), k = values.size(1);
  check_on_device("block", block, {n, m}, is_float(block), false);
  check_on_device("values", values, {n, k}, values.scalar_type() == block.scalar_type(), true);
  check_on_device("indices", indices, {n, k}, indices.scalar_type() == ScalarType::Long, true);
  STD_TORCH_CHECK(column >= 0 && row.value_or(0) >= 0, "column and row must be >= 0");
  if (k == 0 || block.numel() == 0) return;
  const OnDevice here(block);
  const auto run = [&](auto* best, const auto* from) {
    rank_rows<<<blocks_for(n), kWarp, 0, here.stream>>>(best, indices.mutable_data_ptr<int64_t>(),
                                                        k, from, block.stride(0), n, m, column,
                                                        row.value_or(-1), absolute);
    check_launch();
  };
  if (is_wide(block))
    run(values.mutable_data_ptr<double>(), block.const_data_ptr<double>());
  else
    run(values.mutable_data_ptr<float>(), block.const_data_ptr<float>());
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CUDA, m) {
  m.impl("native_comoment_correlation_", TORCH_BOX(&sltfast::comoment_correlation_));
  m.impl("native_comoment_standardise_", TORCH_BOX(&sltfast::comoment_standardise_));
  m.impl("native_comoment_top_k_", TORCH_BOX(&sltfast::comoment_top_k_));
}
