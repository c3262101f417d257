// What every device asks of the arguments of grouped_gradient_products and _inner, and which form
// of the products it takes.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>

namespace sltfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_factor(const char* name, const Tensor& t, int64_t dims, const Tensor& like) {
  const ScalarType dtype = like.scalar_type();
  STD_TORCH_CHECK(t.is_cpu() == like.is_cpu() && t.is_cuda() == like.is_cuda() && t.dim() == dims &&
                      t.scalar_type() == dtype &&
                      (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  name, " must be a float32 or float64 tensor with ", dims,
                  " dimensions, of left's dtype and on its device");
}

struct ProductSizes {
  int64_t samples, positions_a, positions_b, rows, columns;  // B, T, T', R, K

  ProductSizes(const Tensor& left_a, const Tensor& right_a, const Tensor& left_b,
               const Tensor& right_b, const std::string& algorithm) {
    check_factor("left_a", left_a, 3, left_a);
    check_factor("right_a", right_a, 3, left_a);
    check_factor("left_b", left_b, 3, left_a);
    check_factor("right_b", right_b, 3, left_a);
    samples = left_a.size(0), positions_a = left_a.size(1), positions_b = left_b.size(1);
    rows = left_a.size(2), columns = right_a.size(2);
    STD_TORCH_CHECK(right_a.size(0) == samples && right_a.size(1) == positions_a,
                    "right_a must have left_a's samples and positions");
    STD_TORCH_CHECK(left_b.size(0) == samples && left_b.size(2) == rows,
                    "left_b must have left_a's samples and columns");
    STD_TORCH_CHECK(
        right_b.size(0) == samples && right_b.size(1) == positions_b && right_b.size(2) == columns,
        "right_b must have right_a's samples and columns and left_b's positions");
    STD_TORCH_CHECK(algorithm == "auto" || algorithm == "ghost" || algorithm == "formed",
                    "algorithm must be auto, ghost or formed");
  }

  bool empty() const {
    return samples == 0 || positions_a == 0 || positions_b == 0 || rows == 0 || columns == 0;
  }

  // Whether gradients are formed: "auto" takes the form with fewer multiplications. `symmetric`:
  // the two gradients are one, which is formed once; of its Gram matrices only the tiles (of
  // `side` × `side`) on and above the diagonal are.
  bool formed(const std::string& algorithm, bool symmetric, int64_t side) const {
    if (algorithm != "auto") return algorithm == "formed";
    const double tiles = static_cast<double>((positions_a + side - 1) / side);
    const double share = symmetric ? 0.5 * (tiles + 1) / tiles : 1.0;
    const double ghost = share * static_cast<double>(positions_a * positions_b) *
                         static_cast<double>(rows + columns);
    const int64_t positions = symmetric ? positions_a : positions_a + positions_b;
    return static_cast<double>(positions) * static_cast<double>(rows) *
               static_cast<double>(columns) <
           ghost;
  }
};

// V [R, K] against left [B, T, R] and right [B, T, K].
inline void check_inner(const Tensor& left, const Tensor& right, const Tensor& v) {
  check_factor("left", left, 3, left);
  check_factor("right", right, 3, left);
  check_factor("v", v, 2, left);
  STD_TORCH_CHECK(right.size(0) == left.size(0) && right.size(1) == left.size(1),
                  "right must have left's samples and positions");
  STD_TORCH_CHECK(v.size(0) == left.size(2) && v.size(1) == right.size(2),
                  "v must be [columns of left, of right]");
}

}  // namespace sltfast
