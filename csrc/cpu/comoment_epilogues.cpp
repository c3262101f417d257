// What is read from co-moments on the CPU: correlations, standardised draws, the best of each row.
#include <optional>
#include <vector>

#include "comoment_kernel.h"
#include "dispatch.h"
#include "share_work.h"
#include "stable_tensors.h"

namespace sltfast {
namespace {

constexpr int64_t kUnit = 32768;  // values of a unit of work

int64_t size_of(const Tensor& t) { return is_wide(t) ? 8 : 4; }

// Runs f(row) for every row, as many rows to a unit as make it worth a thread.
template <class F>
void run_rows(int64_t rows, int64_t columns, const F& f) {
  const int64_t step = std::max<int64_t>(1, kUnit / std::max<int64_t>(1, columns));
  const int64_t units = (rows + step - 1) / step;
  share_work(units, workers_for(units), [&](int64_t, int64_t unit) {
    for (int64_t row = unit * step; row < std::min(rows, (unit + 1) * step); ++row) f(row);
  });
}

std::vector<double> inverse_roots(const Tensor& m2) {
  std::vector<double> out(m2.numel());
  kernels<ComomentKernels>().inverse_roots(m2.const_data_ptr<double>(), m2.numel(), out.data());
  return out;
}

void comoment_correlation_(Tensor out, Tensor block, Tensor m2_x, std::optional<Tensor> m2_y) {
  STD_TORCH_CHECK(block.dim() == 3, "block must have shape [G, N, M]");
  const int64_t groups = block.size(0), n = block.size(1), m = block.size(2);
  check_rows("block", block, {groups, n, m}, is_wide(block));
  check_rows("out", out, {groups, n, m}, is_float(out));
  check_contiguous("m2_x", m2_x, {groups, n}, is_wide(m2_x));
  STD_TORCH_CHECK(m2_y || n == m, "without m2_y the block must be square");
  if (m2_y) check_contiguous("m2_y", *m2_y, {groups, m}, is_wide(*m2_y));
  const std::vector<double> of_x = inverse_roots(m2_x);
  const std::vector<double> of_y = m2_y ? inverse_roots(*m2_y) : of_x;
  const double* from = block.const_data_ptr<double>();
  char* to = static_cast<char*>(out.mutable_data_ptr());
  const bool wide = is_wide(out);
  run_rows(groups * n, m, [&](int64_t row) {
    const int64_t g = row / n, i = row % n;
    char* line = to + (g * out.stride(0) + i * out.stride(1)) * size_of(out);
    kernels<ComomentKernels>().correlate(from + g * block.stride(0) + i * block.stride(1),
                                         of_x[row], of_y.data() + g * m, m, line, wide);
    if (m2_y || of_x[row] == 0) return;
    if (wide)
      reinterpret_cast<double*>(line)[i] = 1;
    else
      reinterpret_cast<float*>(line)[i] = 1;
  });
}

void comoment_standardise_(Tensor z, Tensor x, Tensor mean, Tensor scale,
                           std::optional<Tensor> valid) {
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape [G, k, N]");
  const int64_t groups = x.size(0), draws = x.size(1), n = x.size(2);
  check_rows("x", x, {groups, draws, n}, is_float(x));
  check_rows("z", z, {groups, draws, n}, is_float(z));
  check_contiguous("mean", mean, {groups, n}, is_wide(mean));
  check_contiguous("scale", scale, {groups, n}, is_wide(scale));
  if (valid)
    check_contiguous(
        "valid", *valid, {groups, draws},
        valid->scalar_type() == ScalarType::Bool || valid->scalar_type() == ScalarType::Byte);
  const uint8_t* valid_data =
      valid ? static_cast<const uint8_t*>(valid->const_data_ptr()) : nullptr;
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(z.mutable_data_ptr());
  const int64_t strips = (n + kStrip - 1) / kStrip;
  share_work(groups * strips, workers_for(groups * strips), [&](int64_t, int64_t unit) {
    const int64_t g = unit / strips, first = unit % strips * kStrip;
    const Draws strip{from + (g * x.stride(0) + first) * size_of(x), is_wide(x), draws, x.stride(1),
                      valid_data ? valid_data + g * draws : nullptr};
    kernels<ComomentKernels>().standardise(
        strip, std::min(kStrip, n - first), mean.const_data_ptr<double>() + g * n + first,
        scale.const_data_ptr<double>() + g * n + first,
        {to + (g * z.stride(0) + first) * size_of(z), is_wide(z), z.stride(1)});
  });
}

void comoment_top_k_(Tensor values, Tensor indices, Tensor block, int64_t column,
                     std::optional<int64_t> row, bool absolute) {
  STD_TORCH_CHECK(block.dim() == 2, "block must have shape [N, M]");
  STD_TORCH_CHECK(values.dim() == 2, "values must have shape [N, K]");
  const int64_t n = block.size(0), m = block.size(1), k = values.size(1);
  check_rows("block", block, {n, m}, is_float(block));
  check_contiguous("values", values, {n, k}, values.scalar_type() == block.scalar_type());
  check_contiguous("indices", indices, {n, k}, indices.scalar_type() == ScalarType::Long);
  STD_TORCH_CHECK(column >= 0 && row.value_or(0) >= 0, "column and row must be >= 0");
  if (k == 0) return;
  const auto& run = kernels<ComomentKernels>();
  const auto rank = [&](auto kernel, auto* best, const auto* from) {
    int64_t* places = indices.mutable_data_ptr<int64_t>();
    run_rows(n, m, [&](int64_t i) {
      kernel(from + i * block.stride(0), m, column, row ? *row + i : -1, absolute, best + i * k,
             places + i * k, k);
    });
  };
  if (is_wide(block))
    rank(run.rank_f64, values.mutable_data_ptr<double>(), block.const_data_ptr<double>());
  else
    rank(run.rank_f32, values.mutable_data_ptr<float>(), block.const_data_ptr<float>());
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_comoment_correlation_", TORCH_BOX(&sltfast::comoment_correlation_));
  m.impl("native_comoment_standardise_", TORCH_BOX(&sltfast::comoment_standardise_));
  m.impl("native_comoment_top_k_", TORCH_BOX(&sltfast::comoment_top_k_));
}
