// sltfast::native_token_loss_backward on the CPU. A slab of logits, some tokens by some of the
// vocabulary, becomes the gradient D of the loss by them; then
//   dH = D·W,  dW = Dᵀ·H,  db = Dᵀ·1.
// Every block of a result has one owner and slabs follow each other, so sums do not depend on
// threads.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "share_work.h"
#include "token_loss_rows.h"
#include "token_loss_weights.h"

namespace sltfast {
namespace {

constexpr int64_t kResidentSlab = 1 << 21;  // values: 8 MiB, of the order of an outer cache
constexpr int64_t kSlabRows = 2048;

struct Wanted {
  bool hidden, unembedding, bias;
};

// Tokens n .. n + rows − 1 of chain c by vocabulary entries v .. v + columns − 1.
struct Region {
  int64_t c, n, rows, v, columns;
};

class GradientPass {
 public:
  // `weights`: ρ, [C, N].
  GradientPass(const TokenLossProblem& problem, const Tensor& like, Wanted wanted,
               const double* weights)
      : p(problem), wanted_(wanted), weights_(weights), tile_(p.tiling()) {
    const int64_t tokens = std::max<int64_t>(p.tokens, 1);
    const int64_t vocabulary = std::max<int64_t>(p.vocabulary, 1);
    rows_ = blocks_of(tokens, blocks_of(tokens, kSlabRows));
    tile_.rows = blocks_of(rows_, blocks_of(rows_, tile_.rows));
    const int64_t resident = std::max(kResidentSlab / rows_ / tile_.columns, int64_t{1});
    columns_ = std::min(resident * tile_.columns, vocabulary);
    const int64_t tiles = blocks_of(rows_, tile_.rows) * blocks_of(columns_, tile_.columns);
    workers_ = p.workers(tiles, rows_ * columns_ * p.depth);
    const auto zeros = [&](bool is_wanted, std::vector<int64_t> shape) {
      if (!is_wanted) shape = {0};
      return torch::stable::new_zeros(like, shape, p.computed);
    };
    const int64_t own_unembeddings = p.shares_unembedding() ? 1 : p.chains;
    dhidden = zeros(wanted.hidden, {p.chains, p.tokens, p.depth});
    dunembedding = zeros(wanted.unembedding, {own_unembeddings, p.vocabulary, p.depth});
    dbias = zeros(wanted.bias, {p.shares_bias() ? 1 : p.chains, p.vocabulary});
    slab_ = torch::stable::new_empty(like, {rows_, columns_}, p.computed);
    ones_ = torch::stable::new_empty(like, {rows_}, p.computed);
    torch::stable::fill_(ones_, 1.0);
    scratch_ = torch::stable::new_empty(
        like, {workers_, std::max<int64_t>(1, p.unembedding_scratch(tile_.columns))}, p.computed);
  }

  void backward(const double* lse) {
    each_slab([&](const Region& slab) {
      form_products(
          slab, [&](const Region& part, const LogitTile& tile) { differentiate(part, tile, lse); });
    });
  }

  Tensor dhidden, dunembedding, dbias;  // of no values where not wanted

 private:
  const TokenLossProblem& p;
  Wanted wanted_;
  const double* weights_;
  Tiling tile_;
  int64_t rows_, columns_, workers_;
  Tensor slab_, ones_, scratch_;

  Matrices slab_values(const Region& slab) const {
    return Matrices::dense(slab_.mutable_data_ptr(), 1, slab.rows, slab.columns, p.width());
  }
  // Rows first .. first + rows − 1 of a [.., columns] tensor.
  Matrices rows_of(const Tensor& t, int64_t first, int64_t rows, int64_t columns) const {
    char* data = static_cast<char*>(t.mutable_data_ptr()) + first * columns * p.width();
    return Matrices::dense(data, 1, rows, columns, p.width());
  }
  Matrices unembedding(const Region& part, int64_t worker) const {
    char* scratch = static_cast<char*>(scratch_.mutable_data_ptr());
    scratch += worker * scratch_.size(1) * p.width();
    return p.unembedding(part.c, part.v, part.columns, scratch);
  }

  template <class Fill>
  void each_slab(const Fill& fill) {
    for (int64_t c = 0; c < p.chains; ++c)
      for (int64_t n = 0; n < p.tokens; n += rows_)
        for (int64_t v = 0; v < p.vocabulary; v += columns_) {
          const Region slab{c, n, std::min(rows_, p.tokens - n), v,
                            std::min(columns_, p.vocabulary - v)};
          fill(slab);
          collect(slab);
        }
  }

  // Calls visit(worker, region, its values in the slab) for every tile, on all threads.
  template <class Visit>
  void each_tile(const Region& slab, const Visit& visit) const {
    const int64_t down = blocks_of(slab.rows, tile_.rows);
    const Matrices values = slab_values(slab);
    share_tasks(down * blocks_of(slab.columns, tile_.columns), workers_,
                [&](int64_t worker, int64_t i) {
                  const int64_t r = i % down * tile_.rows, v = i / down * tile_.columns;
                  const int64_t rows = std::min(tile_.rows, slab.rows - r);
                  const int64_t columns = std::min(tile_.columns, slab.columns - v);
                  visit(worker, Region{slab.c, slab.n + r, rows, slab.v + v, columns},
                        block_of(values, r, rows, v, columns));
                });
  }

  // Products ⟨h_n, w_v⟩ of a slab; use(region, tile) sees each tile while it is in cache.
  template <class Use>
  void form_products(const Region& slab, const Use& use) const {
    each_tile(slab, [&](int64_t worker, const Region& part, const Matrices& values) {
      if (p.any_counts(part.c, part.n, part.rows))
        multiply(p.hidden(part.c, part.n, part.rows), unembedding(part, worker).transposed(),
                 values, false);
      use(part, p.logits(part.c, part.n, part.v, values));
    });
  }

  void differentiate(const Region& part, const LogitTile& tile, const double* lse) const {
    const int64_t row = part.c * p.tokens + part.n;
    const TokenLossKernels& k = kernels<TokenLossKernels>();
    (p.is_double() ? k.gradient_f64 : k.gradient_f32)(tile, p.rounded, lse + row, weights_ + row);
  }

  // Adds a slab's D to dW and db, in blocks of the vocabulary, and to dH, in blocks of tokens.
  void collect(const Region& slab) {
    const Matrices d = slab_values(slab);
    const bool columns_wanted = wanted_.unembedding || wanted_.bias;
    const int64_t across = columns_wanted ? blocks_of(slab.columns, tile_.columns) : 0;
    const int64_t down = wanted_.hidden ? blocks_of(slab.rows, tile_.rows) : 0;
    share_tasks(across + down, workers_, [&](int64_t worker, int64_t i) {
      if (i < across)
        collect_columns(slab, d, i * tile_.columns);
      else
        collect_rows(slab, d, (i - across) * tile_.rows, worker);
    });
  }

  void collect_columns(const Region& slab, const Matrices& d, int64_t v) {
    const int64_t count = std::min(tile_.columns, slab.columns - v);
    const Matrices block = block_of(d, 0, slab.rows, v, count);
    if (wanted_.unembedding) {
      const int64_t first = (p.shares_unembedding() ? 0 : slab.c) * p.vocabulary + slab.v + v;
      const bool add = slab.n > 0 || (p.shares_unembedding() && slab.c > 0);
      multiply(block.transposed(), p.hidden(slab.c, slab.n, slab.rows),
               rows_of(dunembedding, first, count, p.depth), add);
    }
    if (wanted_.bias) {
      const int64_t first = (p.shares_bias() ? 0 : slab.c) * p.vocabulary + slab.v + v;
      multiply(block.transposed(), rows_of(ones_, 0, slab.rows, 1), rows_of(dbias, first, count, 1),
               true);
    }
  }

  void collect_rows(const Region& slab, const Matrices& d, int64_t r, int64_t worker) {
    const int64_t rows = std::min(tile_.rows, slab.rows - r);
    const int64_t step = p.unembedding_scratch(1) ? tile_.columns : slab.columns;
    const Matrices out = rows_of(dhidden, slab.c * p.tokens + slab.n + r, rows, p.depth);
    for (int64_t v = 0; v < slab.columns; v += step) {
      const Region part{slab.c, slab.n + r, rows, slab.v + v, std::min(step, slab.columns - v)};
      multiply(block_of(d, r, rows, v, part.columns), unembedding(part, worker), out, part.v > 0);
    }
  }
};

std::tuple<Tensor, Tensor, Tensor> token_loss_backward(
    Tensor dloss, Tensor hidden, Tensor unembedding, std::optional<Tensor> bias, Tensor targets,
    Tensor lse, int64_t ignore_index, double scale, double softcap, std::string precision,
    bool needs_hidden, bool needs_unembedding, bool needs_bias) {
  const TokenLossProblem p(hidden, unembedding, bias, targets, ignore_index, scale, softcap,
                           precision);
  STD_TORCH_CHECK(lse.is_cpu() && lse.dim() == 2 && lse.size(0) == p.chains &&
                      lse.size(1) == p.tokens && lse.scalar_type() == ScalarType::Double,
                  "lse must be float64 [C, N] on the CPU");
  STD_TORCH_CHECK(bias || !needs_bias, "there is no bias to differentiate by");
  const std::vector<double> weights = weights_of(p, dloss, "dloss");
  const Tensor dense = torch::stable::contiguous(lse);
  GradientPass pass(p, hidden, {needs_hidden, needs_unembedding, needs_bias}, weights.data());
  if (needs_hidden || needs_unembedding || needs_bias)
    pass.backward(dense.const_data_ptr<double>());
  return {rounded_to(p, pass.dhidden), rounded_to(p, pass.dunembedding), rounded_to(p, pass.dbias)};
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_token_loss_backward", TORCH_BOX(&sltfast::token_loss_backward));
}
