// sltfast::native_token_loss and its gradients on CUDA: matrix products by cuBLAS through torch, a
// tile at a time, and token_loss.cuh between them. Nothing here waits for the device.
//
// Products of float32 follow torch's own setting for TF32, which is off unless the caller turned it
// on; bfloat16 and float16 operands run on tensor cores with float32 results.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include "token_loss.cuh"

namespace sltfast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kTileValues = 1 << 23;  // 32 MiB of float: long products, little memory
constexpr int64_t kTileRows = 4096;
constexpr int kThreads = 256;
constexpr unsigned kBlocks = 1 << 16;

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_kernel(DeviceTile<T> tile, double* parts, double* at_target) {
  reduce_tile(tile, parts, at_target);
}
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    gradient_kernel(DeviceTile<T> tile, bool logits, const double* lse, const T* weights) {
  gradient_tile(tile, logits, lse, weights);
}
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    finish_kernel(DeviceTile<T> tile, const double* parts, const double* at_target, T* loss,
                  double* lse) {
  for (int64_t i = threadIdx.x + static_cast<int64_t>(blockIdx.x) * kThreads; i < tile.rows;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    finish_row(tile, i, parts, at_target, loss, lse);
}
__global__ void __launch_bounds__(kThreads) clear_parts_kernel(double* parts, int64_t rows) {
  for (int64_t i = threadIdx.x + static_cast<int64_t>(blockIdx.x) * kThreads; i < rows;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    parts[2 * i] = -INFINITY, parts[2 * i + 1] = 0;
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_kernel(T* to, const T* from, int64_t count) {
  for (int64_t i = threadIdx.x + static_cast<int64_t>(blockIdx.x) * kThreads; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    to[i] += from[i];
}
template <class T>
__global__ void __launch_bounds__(kThreads)
    weighted_sum_kernel(const T* loss, const T* weights, int64_t count, T* total) {
  weighted_sum(loss, weights, count, total);
}

Tensor rows_of(const Tensor& t, int64_t dim, int64_t first, int64_t count) {
  Tensor out = t;
  return torch::stable::narrow(out, dim, first, count);
}

Tensor chain_of(const Tensor& t, int64_t c) {
  return torch::stable::select(t, 0, t.size(0) == 1 ? 0 : c);
}

// C = A·B with C float or double; A and B of C's dtype, or bfloat16 or float16.
void multiply(const Tensor& a, const Tensor& b, const Tensor& c) {
  if (a.scalar_type() == c.scalar_type()) {
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_mm_out(c.get(), a.get(), b.get()));
    return;
  }
  std::array<StableIValue, 4> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(c.scalar_type()),
                                    torch::stable::detail::from(c)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::mm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // what the call returns is ours to release
}

// C += A·B, both float or double.
void accumulate(const Tensor& a, const Tensor& b, const Tensor& c) {
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_cuda_addmm_out(c.get(), c.get(), a.get(), b.get(), 1, 1));
}

struct Wanted {
  bool hidden, unembedding, bias;
};

// The arguments, checked as far as that needs no look at the device's memory.
struct Problem {
  int64_t chains, tokens, depth, vocabulary;
  ScalarType given, computed;
  Tensor hidden, unembedding, targets;  // operands of the products, of `operand` dtype
  std::optional<Tensor> bias;
  int64_t ignore_index;
  double scale, softcap;
  cudaStream_t stream;

  Problem(const Tensor& h, const Tensor& w, const std::optional<Tensor>& b, const Tensor& y,
          int64_t ignored, double k, double s, const std::string& precision)
      : hidden(h), unembedding(w), targets(y), ignore_index(ignored), scale(k), softcap(s) {
    STD_TORCH_CHECK(h.dim() == 3 && w.dim() == 3 && y.dim() == 2, "token_loss: wrong rank");
    chains = h.size(0), tokens = h.size(1), depth = h.size(2), vocabulary = w.size(1);
    given = h.scalar_type();
    computed = given == ScalarType::Double ? given : ScalarType::Float;
    STD_TORCH_CHECK(
        w.scalar_type() == given && w.size(2) == depth && (w.size(0) == chains || w.size(0) == 1),
        "unembedding must be [V, d] or [C, V, d] of hidden's dtype");
    STD_TORCH_CHECK(
        y.size(0) == chains && y.size(1) == tokens && y.scalar_type() == ScalarType::Long,
        "targets must be int64 [C, N]");
    STD_TORCH_CHECK(w.is_cuda() && y.is_cuda(), "all tensors must be on the device");
    STD_TORCH_CHECK(softcap >= 0 && softcap - softcap == 0 && scale - scale == 0,
                    "scale and softcap must be finite, softcap >= 0");
    STD_TORCH_CHECK(precision == "fp32" || precision == "tf32" || precision == "bf16",
                    "precision must be fp32, tf32 or bf16");
    if (b) {
      STD_TORCH_CHECK(b->dim() == 2 && b->size(1) == vocabulary && b->scalar_type() == given &&
                          (b->size(0) == chains || b->size(0) == 1),
                      "bias must be [V] or [C, V] of hidden's dtype");
      bias = torch::stable::contiguous(torch::stable::to(*b, computed));
    }
    hidden = torch::stable::contiguous(h);
    targets = torch::stable::contiguous(y);
    if (precision == "bf16" && given == ScalarType::Float) {
      hidden = torch::stable::to(hidden, ScalarType::BFloat16);
      unembedding = torch::stable::to(w, ScalarType::BFloat16);
    }
    void* current = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_get_current_cuda_stream(h.get_device_index(), &current));
    stream = static_cast<cudaStream_t>(current);
  }

  int64_t rows() const { return std::max<int64_t>(1, std::min(tokens, kTileRows)); }
  int64_t columns(bool whole) const {
    const int64_t most = whole ? vocabulary : kTileValues / rows() / 8 * 8;
    return std::max<int64_t>(1, std::min(vocabulary, most));
  }
  int64_t rows_of_whole_vocabulary() const {
    return std::max<int64_t>(1,
                             std::min(rows(), 8 * kTileValues / std::max<int64_t>(vocabulary, 1)));
  }
  unsigned blocks(int64_t count) const {
    return static_cast<unsigned>(std::min<int64_t>(std::max<int64_t>(count, 1), kBlocks));
  }
  Tensor empty(std::initializer_list<int64_t> shape, ScalarType type) const {
    return torch::stable::new_empty(hidden, shape, type);
  }
};

// A tile of products of tokens n .. of chain c with vocabulary entries v .., and what follows it.
template <class T>
class Tiles {
 public:
  Tiles(const Problem& problem, bool whole_rows, Wanted wanted) : p(problem), wanted_(wanted) {
    rows_ = whole_rows ? p.rows_of_whole_vocabulary() : p.rows();
    columns_ = p.columns(whole_rows);
    memory_ = p.empty({rows_ * columns_}, p.computed);
    parts_ = p.empty({rows_, 2}, ScalarType::Double);
    at_target_ = p.empty({rows_}, ScalarType::Double);
    ones_ = p.empty({1, rows_}, p.computed);
    torch::stable::fill_(ones_, 1.0);
    const auto zeros = [&](bool is_wanted, std::vector<int64_t> shape) {
      if (!is_wanted) shape = {0};
      return torch::stable::new_zeros(p.hidden, shape, p.computed);
    };
    dhidden = zeros(wanted.hidden, {p.chains, p.tokens, p.depth});
    dunembedding = zeros(wanted.unembedding, {p.unembedding.size(0), p.vocabulary, p.depth});
    dbias = zeros(wanted.bias, {p.bias ? p.bias->size(0) : 1, p.vocabulary});
  }

  void losses(const Tensor& loss, const Tensor& lse) {
    each_block([&](int64_t c, int64_t n, int64_t rows) {
      clear_parts(rows);
      each_tile(c, n, rows, [&](const DeviceTile<T>& tile, int64_t) { reduce(tile); });
      finish(c, n, rows, loss, lse);
    });
  }

  void backward(const Tensor& dloss, const Tensor& lse) {
    each_block([&](int64_t c, int64_t n, int64_t rows) {
      each_tile(c, n, rows, [&](const DeviceTile<T>& tile, int64_t v) {
        differentiate(tile, false, c, n, dloss, lse);
        collect(c, n, rows, v, tile.columns);
      });
    });
  }

  void losses_and_gradients(const Tensor& loss, const Tensor& lse, const Tensor& weights) {
    each_block([&](int64_t c, int64_t n, int64_t rows) {
      clear_parts(rows);
      if (p.vocabulary == 0) finish(c, n, rows, loss, lse);
      each_tile(c, n, rows, [&](const DeviceTile<T>& tile, int64_t v) {
        reduce(tile);
        finish(c, n, rows, loss, lse);
        differentiate(tile, true, c, n, weights, lse);
        collect(c, n, rows, v, tile.columns);
      });
    });
  }

  Tensor dhidden, dunembedding, dbias;  // of no values where not wanted

 private:
  const Problem& p;
  Wanted wanted_;
  int64_t rows_, columns_;
  Tensor memory_, parts_, at_target_, ones_;

  template <class Visit>
  void each_block(const Visit& visit) {
    for (int64_t c = 0; c < p.chains; ++c)
      for (int64_t n = 0; n < p.tokens; n += rows_) visit(c, n, std::min(rows_, p.tokens - n));
  }

  Tensor tile_of(int64_t rows, int64_t columns) const {
    return torch::stable::view(rows_of(memory_, 0, 0, rows * columns), {rows, columns});
  }

  template <class Use>
  void each_tile(int64_t c, int64_t n, int64_t rows, const Use& use) {
    const Tensor h = rows_of(chain_of(p.hidden, c), 0, n, rows);
    for (int64_t v = 0; v < p.vocabulary; v += columns_) {
      const int64_t columns = std::min(columns_, p.vocabulary - v);
      const Tensor w = rows_of(chain_of(p.unembedding, c), 0, v, columns);
      multiply(h, torch::stable::transpose(w, 0, 1), tile_of(rows, columns));
      use(described(c, n, rows, v, columns), v);
    }
  }

  DeviceTile<T> described(int64_t c, int64_t n, int64_t rows, int64_t v, int64_t columns) const {
    const T* bias = p.bias ? chain_of(*p.bias, c).const_data_ptr<T>() + v : nullptr;
    return {memory_.mutable_data_ptr<T>(),
            columns,
            rows,
            columns,
            v,
            p.vocabulary,
            bias,
            p.targets.const_data_ptr<int64_t>() + c * p.tokens + n,
            p.ignore_index,
            p.scale,
            p.softcap};
  }

  void clear_parts(int64_t rows) const {
    clear_parts_kernel<<<p.blocks((rows + kThreads - 1) / kThreads), kThreads, 0, p.stream>>>(
        parts_.mutable_data_ptr<double>(), rows);
  }
  void reduce(const DeviceTile<T>& tile) const {
    reduce_kernel<T><<<p.blocks(tile.rows), kThreads, 0, p.stream>>>(
        tile, parts_.mutable_data_ptr<double>(), at_target_.mutable_data_ptr<double>());
  }
  void finish(int64_t c, int64_t n, int64_t rows, const Tensor& loss, const Tensor& lse) const {
    const int64_t at = c * p.tokens + n;
    finish_kernel<T><<<p.blocks((rows + kThreads - 1) / kThreads), kThreads, 0, p.stream>>>(
        described(c, n, rows, 0, 0), parts_.const_data_ptr<double>(),
        at_target_.const_data_ptr<double>(), loss.mutable_data_ptr<T>() + at,
        lse.mutable_data_ptr<double>() + at);
  }
  void differentiate(const DeviceTile<T>& tile, bool logits, int64_t c, int64_t n,
                     const Tensor& weights, const Tensor& lse) const {
    const int64_t at = c * p.tokens + n;
    gradient_kernel<T><<<p.blocks(tile.rows), kThreads, 0, p.stream>>>(
        tile, logits, lse.const_data_ptr<double>() + at, weights.const_data_ptr<T>() + at);
  }

  // Adds D of a tile to dH, dW and db. bfloat16 operands meet D in bfloat16, as they do in torch's
  // own backward; float16 could not hold D, and is widened.
  void collect(int64_t c, int64_t n, int64_t rows, int64_t v, int64_t columns) {
    const Tensor d = tile_of(rows, columns);
    const bool low = p.hidden.scalar_type() == ScalarType::BFloat16;
    const ScalarType type = low ? ScalarType::BFloat16 : p.computed;
    const Tensor operand = low ? torch::stable::to(d, type) : d;
    if (wanted_.hidden)
      add_product(operand, converted(rows_of(chain_of(p.unembedding, c), 0, v, columns), type),
                  rows_of(chain_of(dhidden, c), 0, n, rows));
    if (wanted_.unembedding)
      add_product(torch::stable::transpose(operand, 0, 1),
                  converted(rows_of(chain_of(p.hidden, c), 0, n, rows), type),
                  rows_of(chain_of(dunembedding, c), 0, v, columns));
    if (wanted_.bias) {
      const Tensor own = rows_of(chain_of(dbias, c), 0, v, columns);
      accumulate(rows_of(ones_, 1, 0, rows), d, torch::stable::view(own, {1, columns}));
    }
  }

  static Tensor converted(const Tensor& t, ScalarType type) {
    return t.scalar_type() == type ? t : torch::stable::to(t, type);
  }

  void add_product(const Tensor& a, const Tensor& b, const Tensor& c) const {
    if (a.scalar_type() == c.scalar_type()) return accumulate(a, b, c);
    const Tensor product = p.empty({c.size(0), c.size(1)}, p.computed);
    multiply(a, b, product);
    const int64_t count = c.numel();
    add_kernel<T><<<p.blocks((count + kThreads - 1) / kThreads), kThreads, 0, p.stream>>>(
        c.mutable_data_ptr<T>(), product.const_data_ptr<T>(), count);
  }
};

template <class Run>
auto on_device(const Tensor& like, const Run& run) {
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  return like.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
}

Tensor row_values(const Problem& p, const Tensor& t, ScalarType type, const char* name) {
  STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == p.chains && t.size(1) == p.tokens &&
                      t.scalar_type() == type && t.is_cuda(),
                  name, " must be [C, N] on the device, of the right dtype");
  return torch::stable::contiguous(t);
}

Tensor rounded(const Problem& p, const Tensor& t) {
  return p.given == p.computed ? t : torch::stable::to(t, p.given);
}

std::tuple<Tensor, Tensor> token_loss(Tensor hidden, Tensor unembedding, std::optional<Tensor> bias,
                                      Tensor targets, int64_t ignore_index, double scale,
                                      double softcap, std::string precision) {
  return on_device(hidden, [&](auto zero) {
    const Problem p(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision);
    const Tensor loss = p.empty({p.chains, p.tokens}, p.computed);
    const Tensor lse = p.empty({p.chains, p.tokens}, ScalarType::Double);
    Tiles<decltype(zero)>(p, false, {}).losses(loss, lse);
    return std::tuple(loss, lse);
  });
}

std::tuple<Tensor, Tensor, Tensor> token_loss_backward(
    Tensor dloss, Tensor hidden, Tensor unembedding, std::optional<Tensor> bias, Tensor targets,
    Tensor lse, int64_t ignore_index, double scale, double softcap, std::string precision,
    bool needs_hidden, bool needs_unembedding, bool needs_bias) {
  return on_device(hidden, [&](auto zero) {
    const Problem p(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision);
    STD_TORCH_CHECK(bias || !needs_bias, "there is no bias to differentiate by");
    Tiles<decltype(zero)> tiles(p, false, {needs_hidden, needs_unembedding, needs_bias});
    tiles.backward(row_values(p, dloss, p.computed, "dloss"),
                   row_values(p, lse, ScalarType::Double, "lse"));
    return std::tuple(rounded(p, tiles.dhidden), rounded(p, tiles.dunembedding),
                      rounded(p, tiles.dbias));
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> token_loss_with_gradient(
    Tensor hidden, Tensor unembedding, std::optional<Tensor> bias, Tensor targets, Tensor weights,
    int64_t ignore_index, double scale, double softcap, std::string precision,
    bool needs_unembedding, bool needs_bias) {
  return on_device(hidden, [&](auto zero) {
    using T = decltype(zero);
    const Problem p(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision);
    STD_TORCH_CHECK(bias || !needs_bias, "there is no bias to differentiate by");
    const Tensor rho = row_values(p, weights, p.computed, "weights");
    const Tensor loss = p.empty({p.chains, p.tokens}, p.computed);
    const Tensor lse = p.empty({p.chains, p.tokens}, ScalarType::Double);
    const Tensor total = p.empty({}, p.computed);
    Tiles<T> tiles(p, true, {true, needs_unembedding, needs_bias});
    tiles.losses_and_gradients(loss, lse, rho);
    weighted_sum_kernel<T>
        <<<1, kThreads, 0, p.stream>>>(loss.const_data_ptr<T>(), rho.const_data_ptr<T>(),
                                       p.chains * p.tokens, total.mutable_data_ptr<T>());
    return std::tuple(total, loss, rounded(p, tiles.dhidden), rounded(p, tiles.dunembedding),
                      rounded(p, tiles.dbias));
  });
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CUDA, m) {
  m.impl("native_token_loss", TORCH_BOX(&sltfast::token_loss));
  m.impl("native_token_loss_backward", TORCH_BOX(&sltfast::token_loss_backward));
  m.impl("native_token_loss_with_gradient", TORCH_BOX(&sltfast::token_loss_with_gradient));
}
