// sltfast::native_grouped_gradient_step_ on the CPU: a tile of the group's gradient by BLAS, into
// scratch that stays in L2, and the Langevin step of the tile's coordinates from there.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "dispatch.h"
#include "gemm.h"
#include "grouped_gradient_kernel.h"
#include "share_work.h"

namespace sltfast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A tile's coordinates: measured by benchmarks/grouped_gradient.py. Wider than kColumns, a tile is
// cut by columns too, so that neither factor of the GEMM is packed more often than it pays for.
constexpr int64_t kTile = 65536, kColumns = 1024;
constexpr double kWorthAUnit = 1e6;  // multiplications worth a unit of work of their own

Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return Dtype::f32;
    case ScalarType::Double:
      return Dtype::f64;
    case ScalarType::BFloat16:
      return Dtype::bf16;
    case ScalarType::Half:
      return Dtype::f16;
    default:
      return Dtype::none;
  }
}

void check(const char* name, const Tensor& t, std::initializer_list<int64_t> shape, bool fits) {
  STD_TORCH_CHECK(t.is_cpu() && fits, name, " must be on the CPU and of an allowed dtype");
  STD_TORCH_CHECK(t.dim() == static_cast<int64_t>(shape.size()), name, " has the wrong rank");
  int64_t d = 0;
  for (int64_t size : shape) STD_TORCH_CHECK(t.size(d++) == size, name, " has the wrong shape");
}

void check_dense(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                 ScalarType dtype) {
  check(name, t, shape, t.scalar_type() == dtype);
  STD_TORCH_CHECK(t.is_contiguous(), name, " must be contiguous");
}

struct Segment {
  int64_t offset, numel, element, run, stride;
};

Segment read_segment(const Tensor& t, int64_t row, int64_t numel, int64_t columns) {
  check_dense("segment", t, {5}, ScalarType::Long);
  const int64_t* p = t.const_data_ptr<int64_t>();
  const Segment s{p[0], p[1], p[2], p[3], p[4]};
  STD_TORCH_CHECK(s.offset >= 0 && s.element >= 0 && s.stride >= 0, "segment must not be negative");
  STD_TORCH_CHECK(s.numel == numel, "segment must hold R*K coordinates");
  STD_TORCH_CHECK(s.numel <= row && s.offset <= row - s.numel, "segment ends beyond w");
  STD_TORCH_CHECK(numel == 0 || s.run == numel || s.run == columns,
                  "segment's run must be K or R*K");
  return s;
}

struct Tiles {
  int64_t rows, columns, down, across;

  // Small enough for L2, and for several threads to find some; a function of the shape alone.
  Tiles(int64_t r, int64_t k, int64_t n) {
    columns = std::min(k, kColumns);
    rows = std::min(r, std::max<int64_t>(1, kTile / columns));
    while (rows > 1 && (r + rows - 1) / rows * ((k + columns - 1) / columns) < 4 &&
           static_cast<double>(rows * columns) * static_cast<double>(n) > kWorthAUnit)
      rows = (rows + 1) / 2;
    down = (r + rows - 1) / rows, across = (k + columns - 1) / columns;
  }
};

void grouped_gradient_step_(Tensor w, Tensor left, Tensor right, std::optional<Tensor> weights,
                            Tensor anchor, Tensor segment, Tensor hyper, Tensor step, Tensor chains,
                            int64_t seed, int64_t stream, std::optional<Tensor> loss,
                            std::optional<Tensor> alive, std::optional<Tensor> death_step,
                            std::string precision) {
  const Dtype master = dtype_of(w);
  STD_TORCH_CHECK(master == Dtype::f32 || master == Dtype::f64, "w must be float32 or float64");
  STD_TORCH_CHECK(w.is_cpu() && w.dim() == 2 && w.is_contiguous(),
                  "w must be a contiguous [C, P] tensor on the CPU");
  const ScalarType dtype = w.scalar_type();
  const auto fits = [&](const Tensor& t) {
    const Dtype d = dtype_of(t);
    return d == master || d == Dtype::bf16 || d == Dtype::f16;
  };
  STD_TORCH_CHECK(left.dim() == 3 && right.dim() == 3, "left and right must be [C, N, *]");
  const int64_t count = w.size(0), n = left.size(1), r = left.size(2), k = right.size(2);
  check("left", left, {count, n, r}, fits(left));
  check("right", right, {count, n, k}, fits(right));
  if (weights) check("weights", *weights, {count, n}, weights->scalar_type() == dtype);
  STD_TORCH_CHECK(anchor.is_cpu() && fits(anchor) && anchor.numel() == r * k,
                  "anchor must hold R*K values of w's dtype, bfloat16 or float16");
  const Segment s = read_segment(segment, w.size(1), r * k, k);
  check_dense("hyper", hyper, {count, 6}, ScalarType::Double);
  check_dense("step", step, {}, ScalarType::Long);
  check_dense("chains", chains, {count}, ScalarType::Long);
  STD_TORCH_CHECK(stream >= 0 && stream < 256, "stream must be in 0..255");
  if (loss) check_dense("loss", *loss, {count}, ScalarType::Double);
  if (alive) {
    const bool bytes = alive->scalar_type() == ScalarType::Byte;
    check_dense("alive", *alive, {count}, bytes ? ScalarType::Byte : ScalarType::Bool);
  }
  if (death_step) check_dense("death_step", *death_step, {count}, ScalarType::Long);
  STD_TORCH_CHECK(precision == "ieee" || precision == "tf32" || precision == "bf16",
                  "precision must be ieee, tf32 or bf16");
  STD_TORCH_CHECK(precision == "ieee" || master == Dtype::f32, "float64 w needs precision ieee");
  const Operands operands = precision == "tf32"   ? Operands::tf32
                            : precision == "bf16" ? Operands::bf16
                                                  : Operands::ieee;

  const auto& own = kernels<GroupedGradientKernels>();
  const auto gather = master == Dtype::f32 ? own.gather_f32 : own.gather_f64;
  const int64_t width = master == Dtype::f32 ? 4 : 8;
  const bool exact = operands == Operands::ieee;
  if (!exact || dtype_of(right) != master) {
    right = torch::stable::contiguous(right);
    Tensor copy = torch::stable::empty({count, n, k}, dtype);
    gather({right.const_data_ptr(), dtype_of(right), count * n, k, k, nullptr, operands,
            copy.mutable_data_ptr()});
    right = copy;
  }
  const Matrices b = matrices_of(right);
  if (r > 1 && left.stride(2) != 1) left = torch::stable::contiguous(left);
  anchor = torch::stable::contiguous(anchor);
  if (weights) *weights = torch::stable::contiguous(*weights);
  const Dtype given = dtype_of(left), pull = dtype_of(anchor);
  const int64_t left_width = left.element_size();
  const bool gathered = weights || !exact || given != master;
  Matrices a{};
  if (!gathered) a = matrices_of(left);

  const int64_t t = *step.const_data_ptr<int64_t>();
  uint8_t* living = alive ? static_cast<uint8_t*>(alive->mutable_data_ptr()) : nullptr;
  std::vector<ChainStep> moving;
  std::vector<int64_t> rows;
  std::vector<uint8_t> dies(count, 0);
  for (int64_t c = 0; c < count; ++c) {
    if (living && !living[c]) continue;
    if (loss && !std::isfinite(loss->const_data_ptr<double>()[c])) {
      dies[c] = 1;
      continue;
    }
    const double* h = hyper.const_data_ptr<double>() + 6 * c;
    ChainStep m{};
    m.lr = h[0], m.n_beta = h[1], m.localization = h[2], m.weight_decay = h[3];
    m.noise = std::sqrt(h[0]) * h[4], m.box = h[5];
    m.seed = static_cast<uint64_t>(seed), m.stream = static_cast<uint32_t>(stream);
    m.step = static_cast<uint32_t>(t);
    m.chain = static_cast<uint32_t>(chains.const_data_ptr<int64_t>()[c]);
    moving.push_back(m);
    rows.push_back(c);
  }

  char* coordinates = static_cast<char*>(w.mutable_data_ptr());
  const char* left_data = static_cast<const char*>(left.const_data_ptr());
  const char* anchor_data = static_cast<const char*>(anchor.const_data_ptr());
  const char* weight_data = weights ? static_cast<const char*>(weights->const_data_ptr()) : nullptr;
  const auto move = master == Dtype::f32 ? kernels<LangevinKernels>().step_f32
                                         : kernels<LangevinKernels>().step_f64;
  const Tiles tiles(std::max<int64_t>(r, 1), std::max<int64_t>(k, 1), n);
  // chains innermost: they share the anchor's tile
  const int64_t lanes = static_cast<int64_t>(moving.size());
  const int64_t units = r * k == 0 ? 0 : tiles.down * tiles.across * lanes;
  const int64_t workers = workers_for(units);
  std::vector<std::vector<char>> gradients(workers), lefts(workers);
  std::vector<uint8_t> finite(units, 1);
  share_work(units, workers, [&](int64_t worker, int64_t unit) {
    const int64_t tile = unit / lanes, c = rows[unit % lanes];
    const int64_t r0 = tile / tiles.across * tiles.rows, k0 = tile % tiles.across * tiles.columns;
    const int64_t down = std::min(tiles.rows, r - r0), across = std::min(tiles.columns, k - k0);
    if (n > 0) {
      std::vector<char>& room = gradients[worker];
      if (room.empty()) room.resize(tiles.rows * tiles.columns * width);
      Matrices factor;
      if (gathered) {
        std::vector<char>& copy = lefts[worker];
        if (copy.empty()) copy.resize(n * tiles.rows * width);
        gather({left_data + (c * left.stride(0) + r0) * left_width, given, n, down, left.stride(1),
                weight_data ? weight_data + c * n * width : nullptr, operands, copy.data()});
        factor = Matrices::dense(copy.data(), 1, n, down, width);
      } else {
        factor = a.some(c, 1).some_columns(r0, down);
      }
      multiply(factor.transposed(), b.some(c, 1).some_columns(k0, across),
               Matrices::dense(room.data(), 1, down, across, width));
    }
    // a tile of whole rows is one stretch of coordinates
    const int64_t stretches = across == k ? 1 : down, length = across == k ? down * k : across;
    for (int64_t i = 0; i < stretches; ++i) {
      const int64_t first = (r0 + i) * k + k0;
      Piece piece{};
      piece.w = coordinates + (c * w.size(1) + s.offset + first) * width;
      if (n > 0) piece.grad = {gradients[worker].data() + i * length * width, master};
      piece.anchor = {anchor_data + first * anchor.element_size(), pull};
      piece.count = length, piece.first = first;
      piece.element = s.element, piece.run = s.run, piece.stride = s.stride;
      finite[unit] &= move(piece, moving[unit % lanes], nullptr, nullptr);
    }
  });

  for (int64_t unit = 0; unit < units; ++unit) dies[rows[unit % lanes]] |= !finite[unit];
  for (int64_t c = 0; c < count; ++c) {
    if (!dies[c]) continue;
    if (living) living[c] = 0;
    if (death_step) death_step->mutable_data_ptr<int64_t>()[c] = t;
  }
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_grouped_gradient_step_", TORCH_BOX(&sltfast::grouped_gradient_step_));
}
