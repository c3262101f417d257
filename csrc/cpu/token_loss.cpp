// sltfast::native_token_loss on the CPU: tiles of logits, each reduced while it is in cache.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "share_work.h"
#include "token_loss_rows.h"

namespace sltfast {
namespace {

std::tuple<Tensor, Tensor> token_loss(Tensor hidden, Tensor unembedding, std::optional<Tensor> bias,
                                      Tensor targets, int64_t ignore_index, double scale,
                                      double softcap, std::string precision) {
  const TokenLossProblem p(hidden, unembedding, bias, targets, ignore_index, scale, softcap,
                           precision);
  const Tensor loss = torch::stable::new_zeros(hidden, {p.chains, p.tokens}, p.computed);
  const Tensor lse = torch::stable::new_zeros(hidden, {p.chains, p.tokens}, ScalarType::Double);
  const Tiling tile = p.tiling();
  const int64_t down = blocks_of(p.tokens, tile.rows);
  const int64_t across = blocks_of(p.vocabulary, tile.columns);
  const int64_t tasks = p.chains * down * across;
  const int64_t workers = p.workers(tasks, p.chains * p.tokens * p.vocabulary * p.depth);
  const Tensor memory = torch::stable::new_empty(
      hidden, {workers, tile.rows * tile.columns + p.unembedding_scratch(tile.columns)},
      p.computed);
  char* const memory_data = static_cast<char*>(memory.mutable_data_ptr());
  const int64_t memory_stride = memory.stride(0) * p.width();
  RowSums sums(p.chains * p.tokens, across);

  // rows of tiles innermost: the threads read one block of the unembedding at a time
  share_tasks(tasks, workers, [&](int64_t worker, int64_t i) {
    const int64_t c = i / (down * across), block = i / down % across;
    const int64_t n = i % down * tile.rows, v = block * tile.columns;
    const int64_t rows = std::min(tile.rows, p.tokens - n);
    const int64_t columns = std::min(tile.columns, p.vocabulary - v);
    if (!p.any_counts(c, n, rows)) return;
    char* const own = memory_data + worker * memory_stride;
    char* const scratch = own + tile.rows * tile.columns * p.width();
    const Matrices products = Matrices::dense(own, 1, rows, columns, p.width());
    const Matrices w = p.unembedding(c, v, columns, scratch);
    multiply(p.hidden(c, n, rows), w.transposed(), products, false);
    sums.reduce(p.logits(c, n, v, products), p.is_double(), c * p.tokens + n, block);
  });

  double* const lse_data = lse.mutable_data_ptr<double>();
  for (int64_t i = 0; i < p.chains * p.tokens; ++i) {
    if (!p.counts(i / p.tokens, i % p.tokens)) continue;
    const TokenLoss token = sums.finish(i);
    lse_data[i] = token.lse;
    store_loss(p, loss, i, token.loss);
  }
  return {loss, lse};
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_token_loss", TORCH_BOX(&sltfast::token_loss));
}
