// sltfast::native_token_loss_with_gradient on the CPU: three matrix products, each logit's
// exponential formed once, in the cache. With e_nv = exp(z_nv − s_n) of a tile, s_n the largest
// logit of the row so far, and once lse_n is known, c_n = ρ_n·κ·exp(s_n − lse_n):
//   dH = c·(E·W) − ρ·κ·w_y,  dW = Eᵀ·(c·H) − ρ·κ·h_y,  db = Eᵀ·c − ρ·κ
// (softcap: e and the terms of the target times 1 − (z/s)²). E is kept, a slab of whole rows, only
// where dW or db are wanted. Sums have one owner and one order, so bits do not depend on threads.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "share_work.h"
#include "token_loss_rows.h"
#include "token_loss_weights.h"

namespace sltfast {
namespace {

// Values of E that are kept: 64 MiB at most, and no more than dW has.
constexpr int64_t kSlab = 1 << 24, kSmallSlab = 1 << 20;
constexpr int64_t kSharedSlab = 1 << 19;  // values up to which several chains share a slab
constexpr int64_t kTaskRows = 256, kTileValues = 1 << 18;
constexpr int64_t kWorthATile = 256;  // columns
constexpr int64_t kSpread = 8;        // tasks of a slab, so that several threads have work

// Some tokens of one chain.
struct Unit {
  int64_t c, n, rows;
};

class WeightedPass {
 public:
  WeightedPass(const TokenLossProblem& problem, const Tensor& like, bool wants_unembedding,
               bool wants_bias, const std::vector<double>& weights)
      : p(problem),
        wants_unembedding_(wants_unembedding),
        wants_bias_(wants_bias),
        keeps_(wants_unembedding || wants_bias),
        weights_(weights) {
    const int64_t tokens = std::max<int64_t>(p.tokens, 1);
    const int64_t vocabulary = std::max<int64_t>(p.vocabulary, 1);
    const int64_t own = p.shares_unembedding() ? 1 : p.chains;
    const int64_t slab = std::clamp(own * vocabulary * p.depth, kSmallSlab, kSlab);
    const int64_t rows = keeps_ ? std::max<int64_t>(slab / vocabulary, 32) : tokens;
    unit_rows_ = blocks_of(tokens, blocks_of(tokens, rows));
    units_ = std::max<int64_t>(1, std::min(p.chains, kSharedSlab / (tokens * vocabulary)));
    if (unit_rows_ < tokens) units_ = 1;
    task_rows_ = blocks_of(unit_rows_, blocks_of(unit_rows_, kTaskRows));
    down_ = blocks_of(unit_rows_, task_rows_);
    groups_ = std::max<int64_t>(1, std::min(kSpread / (units_ * down_), vocabulary / kWorthATile));
    int64_t columns = std::min(kTileValues / task_rows_, blocks_of(vocabulary, groups_));
    columns = blocks_of(vocabulary, blocks_of(vocabulary, std::max<int64_t>(1, columns)));
    columns_ = std::max<int64_t>(16, blocks_of(columns, 16) * 16);
    across_ = blocks_of(p.vocabulary, columns_);
    workers_ = p.workers(units_ * std::max(down_ * groups_, across_),
                         units_ * unit_rows_ * p.vocabulary * p.depth);
    const auto empty = [&](bool wanted, std::vector<int64_t> shape) {
      if (!wanted) shape = {0};
      // without tokens nothing is added, and the sum of nothing is 0
      const bool added = p.chains * p.tokens > 0;
      return added ? torch::stable::new_empty(like, shape, p.computed)
                   : torch::stable::new_zeros(like, shape, p.computed);
    };
    dhidden = empty(true, {p.chains, p.tokens, p.depth});
    dunembedding = empty(wants_unembedding, {own, p.vocabulary, p.depth});
    dbias = empty(wants_bias, {p.shares_bias() ? 1 : p.chains, p.vocabulary});
    const int64_t tile = task_rows_ * columns_;
    slab_ = empty(true, {keeps_ ? units_ * across_ * unit_rows_ * columns_ : workers_ * tile});
    products_ = empty(true, {units_ * groups_ * unit_rows_ * p.depth});
    scaled_ = empty(true, {workers_, keeps_ ? unit_rows_ * (p.depth + 1) : 0});
    scratch_ = empty(true, {workers_, p.unembedding_scratch(columns_)});
    shifts_ = empty(true, {units_ * groups_ * unit_rows_});
  }

  // Losses into `loss`, gradients into the members; returns Σ ρ·ℓ.
  double run(const Tensor& loss) {
    double total = 0;
    for (int64_t c = 0; c < p.chains; c += units_)
      for (int64_t n = 0; n < p.tokens; n += unit_rows_) {
        std::vector<Unit> units;
        for (int64_t u = c; u < std::min(c + units_, p.chains); ++u)
          units.push_back({u, n, std::min(unit_rows_, p.tokens - n)});
        RowSums sums(units_ * unit_rows_, std::max<int64_t>(across_, 1));
        std::vector<double> lse(units_ * unit_rows_);
        exponentiate(units, sums);
        total += finish(units, sums, lse, loss);
        if (keeps_) collect(units, sums, lse);
      }
    return total;
  }

  Tensor dhidden, dunembedding, dbias;  // of no values where not wanted

 private:
  const TokenLossProblem& p;
  bool wants_unembedding_, wants_bias_, keeps_;
  const std::vector<double>& weights_;
  int64_t unit_rows_, units_, task_rows_, down_, groups_, columns_, across_, workers_;
  Tensor slab_, products_, scaled_, scratch_, shifts_;

  char* at(const Tensor& t, int64_t value) const {
    return static_cast<char*>(t.mutable_data_ptr()) + value * p.width();
  }
  const double* rho(const Unit& unit, int64_t row) const {
    return weights_.data() + unit.c * p.tokens + unit.n + row;
  }
  char* scratch(int64_t worker) const { return at(scratch_, worker * scratch_.size(1)); }
  int64_t columns_at(int64_t t) const { return std::min(columns_, p.vocabulary - t * columns_); }

  // E of all rows of unit u at tile t of the vocabulary.
  Matrices kept(int64_t u, int64_t rows, int64_t t) const {
    char* data = at(slab_, (u * across_ + t) * unit_rows_ * columns_);
    return Matrices::dense(data, 1, rows, columns_at(t), p.width());
  }
  int64_t first_product(int64_t u, int64_t group) const {
    return (u * groups_ + group) * unit_rows_;
  }

  // E, and E·W in as many parts as there are groups of tiles.
  void exponentiate(const std::vector<Unit>& units, RowSums& sums) {
    const int64_t tasks = static_cast<int64_t>(units.size()) * down_ * groups_;
    share_tasks(tasks, workers_, [&](int64_t worker, int64_t i) {
      const int64_t u = i / (down_ * groups_), group = i / down_ % groups_;
      const int64_t r = i % down_ * task_rows_;
      const Unit& unit = units[u];
      const int64_t rows = std::min(task_rows_, unit.rows - r);
      if (rows <= 0) return;
      const int64_t first = across_ * group / groups_, end = across_ * (group + 1) / groups_;
      const bool counts = p.any_counts(unit.c, unit.n + r, rows);
      const int64_t row = first_product(u, group) + r;
      const Matrices products =
          Matrices::dense(at(products_, row * p.depth), 1, rows, p.depth, p.width());
      RunningRows running{at(shifts_, row),
                          first < end && p.depth ? products.data : nullptr,
                          p.depth,
                          nullptr,
                          0,
                          nullptr,
                          rho(unit, r)};
      fill(running.shifts, rows, -std::numeric_limits<double>::infinity());
      for (int64_t t = first; t < end; ++t) {
        const Matrices e = keeps_ ? kept(u, unit.rows, t).some_rows(r, rows)
                                  : Matrices::dense(at(slab_, worker * task_rows_ * columns_), 1,
                                                    rows, columns_at(t), p.width());
        if (!counts) {
          fill(e.data, rows * e.columns, 0);
          continue;
        }
        const int64_t v = t * columns_;
        const Matrices w = p.unembedding(unit.c, v, e.columns, scratch(worker));
        multiply(p.hidden(unit.c, unit.n + r, rows), w.transposed(), e, false);
        sums.exponentiate(p.logits(unit.c, unit.n + r, v, e), p.is_double(), p.rounded, running,
                          u * unit_rows_ + r, t);
        multiply(e, w, products, t > first);
      }
    });
  }

  void fill(void* data, int64_t count, double value) const {
    if (p.is_double())
      std::fill_n(static_cast<double*>(data), count, value);
    else
      std::fill_n(static_cast<float*>(data), count, static_cast<float>(value));
  }
  double value_at(const void* data, int64_t i) const {
    return p.is_double() ? static_cast<const double*>(data)[i] : static_cast<const float*>(data)[i];
  }
  void add_to(void* data, int64_t i, double value) const {
    if (p.is_double())
      static_cast<double*>(data)[i] += value;
    else
      static_cast<float*>(data)[i] += static_cast<float>(value);
  }

  // exp(s − lse), of a sum relative to exp(s).
  static double share(double shift, double lse) {
    if (shift == -std::numeric_limits<double>::infinity()) return 0;
    return std::exp(shift_of(shift) - lse);
  }

  // Losses and dH, once every exponential of a row is summed; returns their part of the total.
  double finish(const std::vector<Unit>& units, const RowSums& sums, std::vector<double>& lse,
                const Tensor& loss) {
    std::vector<double> totals(units.size() * down_);
    const auto combine = p.is_double() ? kernels<TokenLossKernels>().combine_f64
                                       : kernels<TokenLossKernels>().combine_f32;
    const int64_t tasks = static_cast<int64_t>(totals.size());
    share_tasks(tasks, std::min(workers_, tasks), [&](int64_t worker, int64_t i) {
      const int64_t u = i / down_, begin = i % down_ * task_rows_;
      const Unit& unit = units[u];
      std::vector<double> factors(groups_);
      for (int64_t r = begin; r < std::min(begin + task_rows_, unit.rows); ++r) {
        const int64_t row = u * unit_rows_ + r, token = unit.c * p.tokens + unit.n + r;
        char* const out = at(dhidden, token * p.depth);
        const double weight = *rho(unit, r);
        if (p.counts(unit.c, unit.n + r)) {
          const TokenLoss found = sums.finish(row);
          lse[row] = found.lse;
          store_loss(p, loss, token, found.loss);
          // a weight of 0 leaves its token out, whatever its loss
          if (weight != 0) totals[i] += weight * value_at(loss.const_data_ptr(), token);
        }
        if (weight == 0) {
          fill(out, p.depth, 0);
          continue;
        }
        for (int64_t g = 0; g < groups_; ++g) {
          const double shift = value_at(at(shifts_, first_product(u, g) + r), 0);
          factors[g] = weight * p.scale() * share(shift, lse[row]);
        }
        combine(at(products_, (first_product(u, 0) + r) * p.depth), unit_rows_ * p.depth, groups_,
                factors.data(), p.depth, out);
        const int64_t y = p.target(unit.c, unit.n + r);
        const Matrices w = p.unembedding(unit.c, y, 1, scratch(worker));
        const double slope = weight * p.slope(sums.at_target(row));
        for (int64_t k = 0; k < p.depth; ++k)
          add_to(out, k, -slope * value_at(w.data, k * w.column));
      }
    });
    double total = 0;
    for (const double part : totals) total += part;
    return total;
  }

  // Adds a slab's part of dW and db, in blocks of the vocabulary.
  void collect(const std::vector<Unit>& units, const RowSums& sums,
               const std::vector<double>& lse) {
    const int64_t count = static_cast<int64_t>(units.size());
    const bool is_shared =
        (wants_unembedding_ && p.shares_unembedding()) || (wants_bias_ && p.shares_bias());
    const int64_t owners = is_shared ? 1 : count, each = is_shared ? count : 1;
    share_tasks(owners * across_, workers_, [&](int64_t worker, int64_t i) {
      for (int64_t u = i / across_ * each; u < (i / across_ + 1) * each; ++u)
        collect_block(units[u], u, i % across_, worker, sums, lse);
    });
    share_tasks(owners, std::min(workers_, owners), [&](int64_t, int64_t i) {
      for (int64_t u = i * each; u < (i + 1) * each; ++u) subtract_targets(units[u], u, sums);
    });
  }

  void collect_block(const Unit& unit, int64_t u, int64_t t, int64_t worker, const RowSums& sums,
                     const std::vector<double>& lse) {
    const Matrices e = kept(u, unit.rows, t);
    const Matrices h = p.hidden(unit.c, unit.n, unit.rows);
    const Matrices scaled =
        Matrices::dense(at(scaled_, worker * scaled_.size(1)), 1, unit.rows, p.depth, p.width());
    const Matrices shares =
        Matrices::dense(scaled.data + unit_rows_ * p.depth * p.width(), 1, unit.rows, 1, p.width());
    const auto combine = p.is_double() ? kernels<TokenLossKernels>().combine_f64
                                       : kernels<TokenLossKernels>().combine_f32;
    fill(shares.data, unit.rows, 0);
    for (int64_t r = 0; r < unit.rows; ++r) {
      const int64_t row = u * unit_rows_ + r;
      const double weight = *rho(unit, r);
      const double share_of_row =
          weight == 0 ? 0 : weight * p.scale() * share(sums.shift_at(row, t), lse[row]);
      add_to(shares.data, r, share_of_row);
      if (wants_unembedding_)
        combine(h.data + r * p.depth * p.width(), 0, 1, &share_of_row, p.depth,
                scaled.data + r * p.depth * p.width());
    }
    if (wants_unembedding_) {
      const bool add = unit.n > 0 || (p.shares_unembedding() && unit.c > 0);
      multiply(e.transposed(), scaled,
               block(dunembedding, p.shares_unembedding(), unit, t, p.depth), add);
    }
    if (wants_bias_) {
      const bool add = unit.n > 0 || (p.shares_bias() && unit.c > 0);
      multiply(e.transposed(), shares, block(dbias, p.shares_bias(), unit, t, 1), add);
    }
  }

  Matrices block(const Tensor& t, bool is_shared, const Unit& unit, int64_t tile,
                 int64_t width) const {
    const int64_t first = (is_shared ? 0 : unit.c) * p.vocabulary + tile * columns_;
    return Matrices::dense(at(t, first * width), 1, columns_at(tile), width, p.width());
  }

  void subtract_targets(const Unit& unit, int64_t u, const RowSums& sums) {
    for (int64_t r = 0; r < unit.rows; ++r) {
      const double weight = *rho(unit, r);
      if (weight == 0) continue;
      const double slope = weight * p.slope(sums.at_target(u * unit_rows_ + r));
      const int64_t y = p.target(unit.c, unit.n + r);
      if (wants_unembedding_) {
        char* const row =
            at(dunembedding, ((p.shares_unembedding() ? 0 : unit.c) * p.vocabulary + y) * p.depth);
        const char* const h = p.hidden(unit.c, unit.n + r, 1).data;
        for (int64_t k = 0; k < p.depth; ++k) add_to(row, k, -slope * value_at(h, k));
      }
      if (wants_bias_)
        add_to(dbias.mutable_data_ptr(), (p.shares_bias() ? 0 : unit.c) * p.vocabulary + y, -slope);
    }
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> token_loss_with_gradient(
    Tensor hidden, Tensor unembedding, std::optional<Tensor> bias, Tensor targets, Tensor weights,
    int64_t ignore_index, double scale, double softcap, std::string precision,
    bool needs_unembedding, bool needs_bias) {
  const TokenLossProblem p(hidden, unembedding, bias, targets, ignore_index, scale, softcap,
                           precision);
  STD_TORCH_CHECK(bias || !needs_bias, "there is no bias to differentiate by");
  const std::vector<double> rho = weights_of(p, weights, "weights");
  const Tensor loss = torch::stable::new_zeros(hidden, {p.chains, p.tokens}, p.computed);
  WeightedPass pass(p, hidden, needs_unembedding, needs_bias, rho);
  const Tensor total = torch::stable::new_empty(hidden, {}, p.computed);
  torch::stable::fill_(total, pass.run(loss));
  return {total, loss, rounded_to(p, pass.dhidden), rounded_to(p, pass.dunembedding),
          rounded_to(p, pass.dbias)};
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_token_loss_with_gradient", TORCH_BOX(&sltfast::token_loss_with_gradient));
}
