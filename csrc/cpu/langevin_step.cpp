// sltfast::native_langevin_step_ on the CPU: checks, the list of pieces, one parallel region, the
// chains' health.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "dispatch.h"
#include "langevin_kernel.h"

namespace sltfast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kPiece =
    16384;  // coordinates of a unit of work; fixed, so sums never depend on threads
constexpr int64_t kWorthAThread =
    8192;  // coordinates below which waking a thread costs more than it saves

struct Segment {
  int64_t offset, numel, element, run, stride;
};

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

int64_t size_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

void check_dense(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                 bool dtype_fits) {
  STD_TORCH_CHECK(t.is_cpu(), name, " must be on the CPU");
  STD_TORCH_CHECK(dtype_fits, name, " has the wrong dtype");
  STD_TORCH_CHECK(t.dim() == static_cast<int64_t>(shape.size()), name, " has the wrong rank");
  int64_t d = 0;
  for (int64_t size : shape) STD_TORCH_CHECK(t.size(d++) == size, name, " has the wrong shape");
  STD_TORCH_CHECK(t.is_contiguous(), name, " must be contiguous");
}

std::vector<Segment> read_segments(const Tensor& t, int64_t row) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Long && t.dim() == 2 &&
                      t.size(1) == 5 && t.is_contiguous(),
                  "segments must be a contiguous int64 tensor of shape [S, 5] on the CPU");
  const int64_t* p = t.const_data_ptr<int64_t>();
  std::vector<Segment> out(t.size(0));
  int64_t end = 0;
  for (Segment& s : out) {
    s = {p[0], p[1], p[2], p[3], p[4]};
    p += 5;
    STD_TORCH_CHECK(s.offset >= end && s.numel >= 0 && s.element >= 0 && s.stride >= 0,
                    "segments must be sorted, disjoint and not negative");
    STD_TORCH_CHECK(s.numel <= row && s.offset <= row - s.numel, "a segment ends beyond w");
    STD_TORCH_CHECK(s.numel == 0 || s.run >= 1, "a segment's run must be >= 1");
    end = s.offset + s.numel;
  }
  return out;
}

// One tensor a segment, `copies`·numel values each. Inputs that are not contiguous are replaced by
// copies.
struct List {
  std::vector<Tensor> tensors;
  std::vector<Values> values;  // data null: nothing given for this segment

  List(const char* name, std::vector<Tensor> given, const std::vector<Segment>& segments,
       int64_t copies, std::initializer_list<Dtype> allowed, bool may_be_absent, bool may_be_empty,
       bool written = false)
      : tensors(std::move(given)), values(segments.size()) {
    if (tensors.empty() && may_be_absent) return;
    STD_TORCH_CHECK(tensors.size() == segments.size(), name, " must hold one tensor a segment");
    for (size_t s = 0; s < segments.size(); ++s) {
      Tensor& t = tensors[s];
      const int64_t numel = t.numel();
      if (numel == 0 && (may_be_empty || segments[s].numel == 0)) continue;
      STD_TORCH_CHECK(numel == copies * segments[s].numel, name, " has a wrong number of values");
      STD_TORCH_CHECK(t.is_cpu(), name, " must be on the CPU");
      const Dtype dtype = dtype_of(t);
      bool fits = false;
      for (Dtype d : allowed) fits |= d == dtype && (d != Dtype::none || is_bool(t));
      STD_TORCH_CHECK(fits, name, " has a wrong dtype");
      if (!t.is_contiguous()) {
        STD_TORCH_CHECK(!written, name, " must be contiguous");
        t = torch::stable::contiguous(t);
      }
      values[s] = {written ? t.mutable_data_ptr() : t.const_data_ptr(), dtype};
    }
  }

  static bool is_bool(const Tensor& t) { return t.scalar_type() == ScalarType::Bool; }

  // The values of chain `c` from coordinate `first` on.
  Values at(size_t s, int64_t c, int64_t numel, int64_t first) const {
    Values v = values[s];
    if (v.data) v.data = static_cast<const char*>(v.data) + (c * numel + first) * size_of(v.dtype);
    return v;
  }
};

template <class T>
T* written(const char* name, const std::optional<Tensor>& t, std::initializer_list<int64_t> shape,
           std::initializer_list<ScalarType> dtypes) {
  if (!t) return nullptr;
  bool fits = false;
  for (ScalarType dtype : dtypes) fits |= t->scalar_type() == dtype;
  check_dense(name, *t, shape, fits);
  return static_cast<T*>(t->mutable_data_ptr());
}

// Σ over coordinates → the nine numbers of `metrics`: norms of the parts, then their dot products.
void finish_metrics(const ChainStep& c, double* m) {
  const double half = 0.5 * c.lr, gradient = half * c.n_beta;
  const double factor[9] = {gradient * gradient,
                            gradient * gradient,
                            half * half * c.localization * c.localization,
                            half * half * c.weight_decay * c.weight_decay,
                            c.noise * c.noise,
                            1.0,
                            gradient * half,
                            gradient * c.noise,
                            half * c.noise};
  for (int i = 0; i < 9; ++i) m[i] = i < 6 ? std::sqrt(factor[i] * m[i]) : factor[i] * m[i];
}

// Runs f(0), …, f(count − 1) on up to `workers` threads, each taking the next when it is free.
template <class F>
void run_pieces(int64_t count, int64_t workers, const F& f) {
  if (workers <= 1) {
    for (int64_t i = 0; i < count; ++i) f(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker)
      for (int64_t i = next++; i < count; i = next++) f(i);
  });
}

void langevin_step_(Tensor w, std::vector<Tensor> grads, std::vector<Tensor> anchors,
                    Tensor segments, Tensor hyper, Tensor step, Tensor chains, int64_t seed,
                    int64_t stream, std::string method, std::optional<Tensor> v,
                    std::vector<Tensor> low, std::vector<Tensor> masks, std::optional<Tensor> loss,
                    std::optional<Tensor> alive, std::optional<Tensor> death_step,
                    std::optional<Tensor> metrics, std::vector<Tensor> noise, double rms_alpha,
                    double rms_eps) {
  const Dtype master = dtype_of(w);
  STD_TORCH_CHECK(master == Dtype::f32 || master == Dtype::f64, "w must be float32 or float64");
  STD_TORCH_CHECK(w.is_cpu() && w.dim() == 2 && w.is_contiguous(),
                  "w must be a contiguous [C, P] tensor on the CPU");
  const int64_t count = w.size(0), row = w.size(1);
  const std::vector<Segment> table = read_segments(segments, row);
  using D = Dtype;
  const List grad("grads", std::move(grads), table, count, {D::f32, D::f64, D::bf16, D::f16}, false,
                  true);
  const List anchor("anchors", std::move(anchors), table, 1, {master, D::bf16, D::f16}, false,
                    false);
  const List copy("low", std::move(low), table, count, {D::bf16, D::f16}, true, true, true);
  const List mask("masks", std::move(masks), table, 1, {D::none}, true, true);
  const List normal("noise", std::move(noise), table, count, {D::f32, D::f64, D::bf16, D::f16},
                    true, false);
  check_dense("hyper", hyper, {count, 6}, hyper.scalar_type() == ScalarType::Double);
  check_dense("step", step, {}, step.scalar_type() == ScalarType::Long);
  check_dense("chains", chains, {count}, chains.scalar_type() == ScalarType::Long);
  STD_TORCH_CHECK(stream >= 0 && stream < 256, "stream must be in 0..255");
  const bool corrected = method == "rmsprop_sgld_hh";
  const bool preconditioned = corrected || method == "rmsprop_sgld";
  STD_TORCH_CHECK(preconditioned || method == "sgld", "unknown method");
  STD_TORCH_CHECK(preconditioned == v.has_value(), "v goes with the RMSprop methods and only them");
  STD_TORCH_CHECK(!preconditioned || (rms_alpha >= 0 && rms_alpha <= 1 && rms_eps >= 0),
                  "rms_alpha must be in [0, 1] and rms_eps >= 0");
  char* v_data = written<char>("v", v, {count, row}, {w.scalar_type()});
  if (loss) check_dense("loss", *loss, {count}, loss->scalar_type() == ScalarType::Double);
  uint8_t* alive_data =
      written<uint8_t>("alive", alive, {count}, {ScalarType::Bool, ScalarType::Byte});
  int64_t* death_data = written<int64_t>("death_step", death_step, {count}, {ScalarType::Long});
  double* metrics_data = written<double>("metrics", metrics, {count, 9}, {ScalarType::Double});

  const int64_t t = *step.const_data_ptr<int64_t>();
  const double* loss_data = loss ? loss->const_data_ptr<double>() : nullptr;
  std::vector<ChainStep> moving;  // the chains that take this step, and which rows of w they are
  std::vector<int64_t> rows;
  std::vector<uint8_t> dies(count, 0);
  for (int64_t c = 0; c < count; ++c) {
    const double* h = hyper.const_data_ptr<double>() + 6 * c;
    if (metrics_data)
      for (int i = 0; i < 9; ++i)
        metrics_data[9 * c + i] = std::numeric_limits<double>::quiet_NaN();
    if (alive_data && !alive_data[c]) continue;
    if (loss_data && !std::isfinite(loss_data[c])) {
      dies[c] = 1;
      continue;
    }
    ChainStep s;
    s.lr = h[0], s.n_beta = h[1], s.localization = h[2], s.weight_decay = h[3];
    s.noise = std::sqrt(h[0]) * h[4], s.box = h[5];
    s.alpha = rms_alpha, s.eps = rms_eps;
    s.correction = corrected ? 1.0 / (1.0 - std::pow(rms_alpha, static_cast<double>(t) + 1)) : 1.0;
    s.seed = static_cast<uint64_t>(seed), s.stream = static_cast<uint32_t>(stream);
    s.step = static_cast<uint32_t>(t);
    s.chain = static_cast<uint32_t>(chains.const_data_ptr<int64_t>()[c]);
    moving.push_back(s);
    rows.push_back(c);
  }

  // Chains innermost: the anchor of a piece is read once from memory for all of them.
  struct Place {
    size_t segment;
    int64_t first;
  };
  std::vector<Place> places;
  int64_t total = 0;
  for (size_t s = 0; s < table.size(); ++s) {
    for (int64_t first = 0; first < table[s].numel; first += kPiece) places.push_back({s, first});
    total += table[s].numel;
  }
  const int64_t lanes = static_cast<int64_t>(moving.size());
  const int64_t pieces = static_cast<int64_t>(places.size()) * lanes;
  std::vector<double> sums(metrics_data ? 9 * pieces : 0, 0.0);
  std::vector<uint8_t> finite(pieces, 1);
  char* w_data = static_cast<char*>(w.mutable_data_ptr());
  const int64_t width = size_of(master);
  const auto move = master == Dtype::f32 ? kernels<LangevinKernels>().step_f32
                                         : kernels<LangevinKernels>().step_f64;
  const auto run = [&](int64_t i) {
    const Place& place = places[i / lanes];
    const int64_t c = rows[i % lanes], first = place.first;
    const size_t s = place.segment;
    const Segment& segment = table[s];
    const int64_t at = (c * row + segment.offset + first) * width;
    const Values to = copy.at(s, c, segment.numel, first);
    const Piece piece{
        w_data + at,
        v_data ? v_data + at : nullptr,
        const_cast<void*>(to.data),
        to.dtype,
        grad.at(s, c, segment.numel, first),
        anchor.at(s, 0, segment.numel, first),
        normal.at(s, c, segment.numel, first),
        mask.values[s].data ? static_cast<const uint8_t*>(mask.values[s].data) + first : nullptr,
        std::min(kPiece, segment.numel - first),
        first,
        segment.element,
        segment.run,
        segment.stride};
    finite[i] = move(piece, moving[i % lanes], metrics_data ? &sums[9 * i] : nullptr);
  };
  run_pieces(pieces,
             std::min<int64_t>(torch::stable::get_num_threads(), total * lanes / kWorthAThread),
             run);

  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int64_t c = rows[lane];
    double* m = metrics_data ? metrics_data + 9 * c : nullptr;
    if (m) std::fill(m, m + 9, 0.0);
    for (int64_t i = lane; i < pieces; i += lanes) {
      dies[c] |= !finite[i];
      for (int k = 0; m && k < 9; ++k) m[k] += sums[9 * i + k];
    }
    if (m) finish_metrics(moving[lane], m);
  }
  for (int64_t c = 0; c < count; ++c) {
    if (!dies[c]) continue;
    if (alive_data) alive_data[c] = 0;
    if (death_data) death_data[c] = t;
  }
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_langevin_step_", TORCH_BOX(&sltfast::langevin_step_));
}
