// The co-moment kernels on CPU threads: for ctypes, and a run over awkward sizes for the
// sanitizers.
#include "comoment.cuh"

#include "comoment_block.cuh"
#include "comoment_epilogues.cuh"

using namespace sltfast;
using cuda_threads::launch;
using cuda_threads::Order;

namespace {

constexpr int kStripThreads = kQuads * kDrawThreads;
Order order(bool backward) { return backward ? Order::backward : Order::forward; }

}  // namespace

extern "C" {

void join(const void* x, bool wide, const uint8_t* valid, const double* count, double* mean,
          double* m2, void* centred, bool centred_wide, int64_t groups, int64_t draws,
          int64_t variables, int64_t group_stride, int64_t draw_stride, bool backward) {
  const JoinArguments a{x,      valid, count,     mean,         m2,         centred,
                        groups, draws, variables, group_stride, draw_stride};
  launch(
      dim3(2), dim3(kStripThreads),
      [&] {
        if (wide && centred_wide) join_draws<double, double>(a);
        if (wide && !centred_wide) join_draws<double, float>(a);
        if (!wide && centred_wide) join_draws<float, double>(a);
        if (!wide && !centred_wide) join_draws<float, float>(a);
      },
      order(backward));
}

void count(double* count, const uint8_t* valid, int64_t groups, int64_t draws) {
  launch(dim3(2), dim3(64), [&] { count_draws(count, valid, groups, draws); });
}

void add(double* block, int64_t stride, const void* product, bool wide, int64_t rows,
         int64_t columns, double* mirror, bool backward) {
  launch(
      dim3(2), dim3(kSide * kSideRows),
      [&] {
        if (wide)
          add_product(block, stride, static_cast<const double*>(product), rows, columns, mirror);
        else
          add_product(block, stride, static_cast<const float*>(product), rows, columns, mirror);
      },
      order(backward));
}

void merge_side(double* mean, double* m2, double* delta, const double* count, const double* mean_,
                const double* m2_, const double* count_, int64_t groups, int64_t variables) {
  launch(dim3(2), dim3(64),
         [&] { merge_moments(mean, m2, delta, count, mean_, m2_, count_, groups, variables); });
}

void merge_matrix(double* block, int64_t stride, const double* other, int64_t other_stride,
                  const double* delta_x, const double* delta_y, const double* count,
                  const double* other_count, int64_t rows, int64_t columns) {
  launch(dim3(2), dim3(64), [&] {
    merge_block(block, stride, other, other_stride, delta_x, delta_y, count, other_count, rows,
                columns);
  });
}

void merge_counts(double* count, const double* other, int64_t groups) {
  launch(dim3(1), dim3(64), [&] { add_counts(count, other, groups); });
}

void correlation_of(void* out, bool wide, int64_t out_group, int64_t out_row, const double* block,
                    int64_t block_group, int64_t block_row, const double* m2_x, const double* m2_y,
                    bool own, int64_t groups, int64_t rows, int64_t columns) {
  launch(dim3(3), dim3(kRowThreads), [&] {
    if (wide)
      correlate(static_cast<double*>(out), out_group, out_row, block, block_group, block_row, m2_x,
                m2_y, own, groups, rows, columns);
    else
      correlate(static_cast<float*>(out), out_group, out_row, block, block_group, block_row, m2_x,
                m2_y, own, groups, rows, columns);
  });
}

void standardise_draws(void* z, bool z_wide, const void* x, bool wide, const double* mean,
                       const double* scale, const uint8_t* valid, int64_t groups, int64_t draws,
                       int64_t variables, int64_t x_group, int64_t x_draw) {
  const StandardiseArguments a{
      z,         x,       mean,  scale, valid, groups, draws, variables, draws * variables,
      variables, x_group, x_draw};
  launch(dim3(3), dim3(kRowThreads), [&] {
    if (wide && z_wide) standardise<double, double>(a);
    if (wide && !z_wide) standardise<double, float>(a);
    if (!wide && z_wide) standardise<float, double>(a);
    if (!wide && !z_wide) standardise<float, float>(a);
  });
}

void rank(void* values, int64_t* indices, int64_t k, const void* block, bool wide, int64_t stride,
          int64_t rows, int64_t columns, int64_t column, int64_t own_row, bool absolute) {
  launch(dim3(2), dim3(kWarp), [&] {
    if (wide)
      rank_rows(static_cast<double*>(values), indices, k, static_cast<const double*>(block), stride,
                rows, columns, column, own_row, absolute);
    else
      rank_rows(static_cast<float*>(values), indices, k, static_cast<const float*>(block), stride,
                rows, columns, column, own_row, absolute);
  });
}
}

int main() {
  constexpr int64_t k = 5;
  for (int64_t n : {5, 131}) {
    std::vector<float> x(2 * k * n);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 101);
    std::vector<uint8_t> valid{1, 0, 1, 1, 1, 1, 1, 1, 0, 1};
    std::vector<double> counts(2), mean(2 * n), m2(2 * n), delta(2 * n), block(n * n);
    std::vector<float> centred(2 * (k + 1) * n), z(2 * k * n), product(n * n, 1.0f);
    join(x.data(), false, valid.data(), counts.data(), mean.data(), m2.data(), centred.data(),
         false, 2, k, n, k * n, n, false);
    count(counts.data(), valid.data(), 2, k);
    add(block.data(), n, product.data(), false, n, n, block.data(), false);
    merge_side(mean.data(), m2.data(), delta.data(), counts.data(), mean.data(), m2.data(),
               counts.data(), 0, n);
    merge_matrix(block.data(), n, block.data(), n, delta.data(), delta.data(), counts.data(),
                 counts.data(), n, n);
    std::vector<float> r(n * n);
    correlation_of(r.data(), false, n * n, n, block.data(), n * n, n, m2.data(), m2.data(), true, 1,
                   n, n);
    standardise_draws(z.data(), false, x.data(), false, mean.data(), m2.data(), valid.data(), 2, k,
                      n, k * n, n);
    std::vector<float> best(n * 40);
    std::vector<int64_t> places(n * 40, -1);
    rank(best.data(), places.data(), 40, r.data(), false, n, 3, n, 0, 0, true);
    if (counts[0] != 4 || counts[1] != 4 || places[0] < 1) return 1;
  }
  return 0;
}
