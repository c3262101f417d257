// The arguments of native_grouped_gradient_step_, checked before anything is written, on any
// device.
#pragma once

#include <string>

#include "numerics/langevin_chain.h"
#include "numerics/operands.h"
#include "segments.h"

namespace sltfast {

// left or right: [C, N, columns] with dense rows; strides in elements.
struct Factor {
  Tensor tensor;
  Dtype dtype;
  int64_t columns, chain, row;

  Factor(const char* name, Tensor t, const Tensor& w, Dtype master, int64_t positions)
      : tensor(std::move(t)), dtype(dtype_of(tensor)) {
    check_beside(name, tensor, w);
    STD_TORCH_CHECK(dtype == master || dtype == Dtype::bf16 || dtype == Dtype::f16, name,
                    " must be of w's dtype, bfloat16 or float16");
    STD_TORCH_CHECK(tensor.dim() == 3 && tensor.size(0) == w.size(0) && tensor.size(1) == positions,
                    name, " must be [C, N, *]");
    columns = tensor.size(2);
    if (columns > 1 && tensor.stride(2) != 1) tensor = torch::stable::contiguous(tensor);
    chain = tensor.stride(0), row = tensor.stride(1);
  }
  const char* data() const { return static_cast<const char*>(tensor.const_data_ptr()); }
};

struct GroupedGradientArguments {
  Dtype master;
  int64_t chains, row, positions;
  Factor left, right;
  std::optional<Tensor> weights;
  Tensor anchor;
  Dtype anchor_dtype;
  Segment segment;
  LangevinMethod method{};
  const double* hyper;
  const int64_t *step, *chain_ids;
  const double* loss;
  uint8_t* alive;
  int64_t* death_step;
  Operands operands;

  GroupedGradientArguments(const Tensor& w, Tensor left_, Tensor right_,
                           std::optional<Tensor> weights_, Tensor anchor_, const Tensor& table,
                           const Tensor& hyper_, const Tensor& step_, const Tensor& chain_ids_,
                           int64_t seed, int64_t stream, const std::optional<Tensor>& loss_,
                           const std::optional<Tensor>& alive_,
                           const std::optional<Tensor>& death_step_, const std::string& precision)
      : master(check_weights(w)),
        chains(w.size(0)),
        row(w.size(1)),
        positions(left_.dim() == 3 ? left_.size(1) : 0),
        left("left", std::move(left_), w, master, positions),
        right("right", std::move(right_), w, master, positions),
        weights(std::move(weights_)),
        anchor(torch::stable::contiguous(anchor_)),
        anchor_dtype(dtype_of(anchor)),
        segment(read_segment(table, row, left.columns, right.columns)),
        hyper(dense<const double>("hyper", hyper_, w, {chains, 6}, {ScalarType::Double})),
        step(dense<const int64_t>("step", step_, w, {}, {ScalarType::Long})),
        chain_ids(dense<const int64_t>("chains", chain_ids_, w, {chains}, {ScalarType::Long})),
        loss(dense<const double>("loss", loss_, w, {chains}, {ScalarType::Double})),
        alive(dense<uint8_t>("alive", alive_, w, {chains}, {ScalarType::Bool, ScalarType::Byte})),
        death_step(dense<int64_t>("death_step", death_step_, w, {chains}, {ScalarType::Long})) {
    check_beside("anchor", anchor, w);
    STD_TORCH_CHECK(
        anchor_dtype == master || anchor_dtype == Dtype::bf16 || anchor_dtype == Dtype::f16,
        "anchor must be of w's dtype, bfloat16 or float16");
    STD_TORCH_CHECK(anchor.numel() == segment.numel, "anchor must hold R*K values");
    if (weights) *weights = torch::stable::contiguous(*weights);
    dense<const char>("weights", weights, w, {chains, positions}, {w.scalar_type()});
    STD_TORCH_CHECK(stream >= 0 && stream < 256, "stream must be in 0..255");
    method.seed = static_cast<uint64_t>(seed), method.stream = static_cast<uint32_t>(stream);
    const bool tf32 = precision == "tf32", bf16 = precision == "bf16";
    STD_TORCH_CHECK(tf32 || bf16 || precision == "ieee", "precision must be ieee, tf32 or bf16");
    STD_TORCH_CHECK(precision == "ieee" || master == Dtype::f32, "float64 w needs precision ieee");
    operands = tf32 ? Operands::tf32 : bf16 ? Operands::bf16 : Operands::ieee;
  }

  // Elements of the full model from one row of the gradient to the next.
  int64_t element_row() const {
    return segment.run == segment.numel ? right.columns : segment.stride;
  }
  const char* weight_data() const {
    return weights ? static_cast<const char*>(weights->const_data_ptr()) : nullptr;
  }
  const char* anchor_data() const { return static_cast<const char*>(anchor.const_data_ptr()); }

 private:
  static Segment read_segment(const Tensor& table, int64_t row, int64_t r, int64_t k) {
    STD_TORCH_CHECK(table.dim() == 1, "segment must have shape [5]");
    const Segment s = read_segments(torch::stable::unsqueeze(table, 0), row).front();
    STD_TORCH_CHECK(s.numel == r * k, "segment must hold R*K coordinates");
    STD_TORCH_CHECK(s.numel == 0 || s.run == s.numel || s.run == k,
                    "segment's run must be K or R*K");
    return s;
  }
};

}  // namespace sltfast
