#include "token_loss_problem.h"

namespace sltfast {
namespace {

constexpr int64_t kTileRows = 256, kTileValues = 1 << 18;  // a tile of logits: 1 MiB
constexpr int64_t kWorthATile = 256;                       // columns
constexpr int64_t kWorthAThread = 1 << 20;                 // multiply-adds
constexpr int64_t kSpread = 8;  // tiles of a chain, so that several threads have work

bool is_floating(ScalarType t) {
  return t == ScalarType::Float || t == ScalarType::Double || t == ScalarType::BFloat16 ||
         t == ScalarType::Half;
}

ScalarType computed_for(ScalarType given) {
  return given == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

void check_chains(const char* name, const Tensor& t, int64_t dim, int64_t chains) {
  STD_TORCH_CHECK(t.is_cpu(), name, " must be on the CPU");
  STD_TORCH_CHECK(t.dim() == dim, name, " has the wrong rank");
  STD_TORCH_CHECK(t.size(0) == chains || t.size(0) == 1, name,
                  " must have one entry or one a chain");
}

// A [K, V, d] tensor whose matrices torch can multiply without a copy.
Tensor with_a_unit_stride(const Tensor& t) {
  return t.stride(1) == 1 || t.stride(2) == 1 ? t : torch::stable::contiguous(t);
}

Tensor converted(const Tensor& t, ScalarType type) {
  return torch::stable::contiguous(t.scalar_type() == type ? t : torch::stable::to(t, type));
}

}  // namespace

TokenLossProblem::TokenLossProblem(const Tensor& hidden, const Tensor& unembedding,
                                   const std::optional<Tensor>& bias, const Tensor& targets,
                                   int64_t ignore_index, double scale, double softcap,
                                   const std::string& precision)
    : chains(hidden.dim() == 3 ? hidden.size(0) : 0),
      tokens(hidden.dim() == 3 ? hidden.size(1) : 0),
      depth(hidden.dim() == 3 ? hidden.size(2) : 0),
      vocabulary(unembedding.dim() == 3 ? unembedding.size(1) : 0),
      given(hidden.scalar_type()),
      computed(computed_for(given)),
      ignore_index_(ignore_index),
      scale_(scale),
      softcap_(softcap) {
  STD_TORCH_CHECK(hidden.is_cpu() && hidden.dim() == 3, "hidden must be [C, N, d] on the CPU");
  STD_TORCH_CHECK(is_floating(given), "hidden must be floating-point");
  check_chains("unembedding", unembedding, 3, chains);
  STD_TORCH_CHECK(unembedding.scalar_type() == given, "unembedding must have hidden's dtype");
  STD_TORCH_CHECK(unembedding.size(2) == depth, "unembedding must have hidden's d");
  STD_TORCH_CHECK(targets.is_cpu() && targets.dim() == 2 && targets.size(0) == chains &&
                      targets.size(1) == tokens && targets.scalar_type() == ScalarType::Long,
                  "targets must be int64 [C, N] on the CPU");
  if (bias) {
    check_chains("bias", *bias, 2, chains);
    STD_TORCH_CHECK(bias->size(1) == vocabulary && bias->scalar_type() == given,
                    "bias must be [.., V] of hidden's dtype");
    bias_ = converted(*bias, computed);
  }
  STD_TORCH_CHECK(scale - scale == 0, "scale must be finite");
  STD_TORCH_CHECK(softcap >= 0 && softcap - softcap == 0, "softcap must be finite and >= 0");
  STD_TORCH_CHECK(precision == "fp32" || precision == "tf32" || precision == "bf16",
                  "precision must be fp32, tf32 or bf16");
  targets_ = torch::stable::contiguous(targets);
  targets_data_ = targets_.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < chains * tokens; ++i) {
    const int64_t y = targets_data_[i];
    STD_TORCH_CHECK(y == ignore_index || (y >= 0 && y < vocabulary), "a target is out of range");
  }
  rounded = precision == "bf16" && given == ScalarType::Float;
  hidden_ = converted(hidden, computed);
  unembedding_ = with_a_unit_stride(unembedding);
  if (is_converted()) unembedding_ = torch::stable::contiguous(unembedding);
  if (rounded) {
    Tensor copy = torch::stable::empty_like(hidden_);
    kernels<TokenLossKernels>().round_bf16(hidden_.const_data_ptr(), hidden_.numel(),
                                           copy.mutable_data_ptr<float>());
    hidden_ = copy;
  }
}

bool TokenLossProblem::any_counts(int64_t c, int64_t n, int64_t count) const {
  for (int64_t i = n; i < n + count; ++i)
    if (counts(c, i)) return true;
  return false;
}

Matrices TokenLossProblem::hidden(int64_t c, int64_t n, int64_t count) const {
  // torch's products take operands as tensors, which are never const
  char* data = static_cast<char*>(const_cast<void*>(hidden_.const_data_ptr()));
  return Matrices::dense(data + (c * tokens + n) * depth * width(), 1, count, depth, width());
}

Matrices TokenLossProblem::unembedding(int64_t c, int64_t v, int64_t count, char* scratch) const {
  char* data = static_cast<char*>(const_cast<void*>(unembedding_.const_data_ptr()));
  const int64_t chain = shares_unembedding() ? 0 : c;
  if (!is_converted()) {
    const int64_t row = unembedding_.stride(1), column = unembedding_.stride(2);
    data += (chain * unembedding_.stride(0) + v * row) * width();
    return {data, 1, count, depth, count * depth, row, column, width()};
  }
  const TokenLossKernels& k = kernels<TokenLossKernels>();
  const auto convert = rounded                         ? k.round_bf16
                       : given == ScalarType::BFloat16 ? k.widen_bf16
                                                       : k.widen_f16;
  data += (chain * vocabulary + v) * depth * (rounded ? 4 : 2);
  convert(data, count * depth, reinterpret_cast<float*>(scratch));
  return Matrices::dense(scratch, 1, count, depth, width());
}

LogitTile TokenLossProblem::logits(int64_t c, int64_t n, int64_t v,
                                   const Matrices& products) const {
  const char* bias = nullptr;
  if (bias_)
    bias = static_cast<const char*>(bias_->const_data_ptr()) +
           ((shares_bias() ? 0 : c) * vocabulary + v) * width();
  return {products.data,
          products.row,
          products.rows,
          products.columns,
          v,
          bias,
          targets_data_ + c * tokens + n,
          scale_,
          softcap_};
}

Tiling TokenLossProblem::tiling() const {
  const int64_t rows = std::max<int64_t>(1, std::min(tokens, kTileRows));
  const int64_t spread = blocks_of(
      vocabulary, std::max<int64_t>(1, kSpread / blocks_of(std::max<int64_t>(tokens, 1), rows)));
  int64_t columns = std::min(kTileValues / rows, std::max(spread, kWorthATile));
  columns = std::max<int64_t>(1, std::min(columns, vocabulary));
  // equal tiles, in whole vectors
  columns = blocks_of(vocabulary, std::max<int64_t>(1, blocks_of(vocabulary, columns)));
  return {rows, std::max<int64_t>(16, blocks_of(columns, 16) * 16)};
}

int64_t TokenLossProblem::workers(int64_t tasks, int64_t products) const {
  const int64_t worth = std::min<int64_t>(tasks, 1 + products / kWorthAThread);
  return std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), worth));
}

}  // namespace sltfast
