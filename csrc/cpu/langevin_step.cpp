// sltfast::native_langevin_step_ on the CPU: checks, the list of pieces, one parallel region, the
// chains' health.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "../langevin_arguments.h"
#include "../numerics/langevin.h"
#include "dispatch.h"
#include "langevin_kernel.h"
#include "share_work.h"

namespace sltfast {
namespace {

constexpr int64_t kPiece =
    16384;  // coordinates of a unit of work; fixed, so sums never depend on threads
constexpr int64_t kWorthAThread =
    8192;  // coordinates below which waking a thread costs more than it saves

void langevin_step_(Tensor w, std::vector<Tensor> grads, std::vector<Tensor> anchors,
                    Tensor segments, Tensor hyper, Tensor step, Tensor chains, int64_t seed,
                    int64_t stream, std::string method, std::optional<Tensor> v,
                    std::optional<Tensor> momentum, std::optional<Tensor> thermostat,
                    std::vector<Tensor> low, std::vector<Tensor> masks, std::optional<Tensor> loss,
                    std::optional<Tensor> alive, std::optional<Tensor> death_step,
                    std::optional<Tensor> metrics, std::vector<Tensor> noise, double rms_alpha,
                    double rms_eps, double friction, bool stochastic_rounding) {
  STD_TORCH_CHECK(w.is_cpu(), "w must be on the CPU");
  const LangevinArguments a(w, std::move(grads), std::move(anchors), segments, hyper, step, chains,
                            seed, stream, method, v, momentum, thermostat, std::move(low),
                            std::move(masks), loss, alive, death_step, metrics, std::move(noise),
                            rms_alpha, rms_eps, friction, stochastic_rounding);
  const std::vector<Segment>& table = a.segments;
  const int64_t count = a.chains, t = *a.step;
  std::vector<ChainStep> moving;  // the chains that take this step, and which rows of w they are
  std::vector<int64_t> rows;
  std::vector<uint8_t> dies(count, 0);
  for (int64_t c = 0; c < count; ++c) {
    if (a.metrics)
      for (int i = 0; i < 9; ++i) a.metrics[9 * c + i] = std::numeric_limits<double>::quiet_NaN();
    if (a.alive && !a.alive[c]) continue;
    if (a.loss && !std::isfinite(a.loss[c])) {
      dies[c] = 1;
      continue;
    }
    moving.push_back(chain_step(a.method, a.hyper + 6 * c, t, a.chain_ids[c],
                                a.thermostat ? a.thermostat[c] : 0.0));
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
  std::vector<double> sums(a.metrics ? 9 * pieces : 0, 0.0);
  std::vector<double> heat(a.method.thermal ? 2 * pieces : 0, 0.0);
  std::vector<uint8_t> finite(pieces, 1);
  char* w_data = static_cast<char*>(w.mutable_data_ptr());
  const int64_t width = size_of(a.master);
  const auto move = a.master == Dtype::f32 ? kernels<LangevinKernels>().step_f32
                                           : kernels<LangevinKernels>().step_f64;
  const auto run = [&](int64_t, int64_t i) {
    const Place& place = places[i / lanes];
    const int64_t c = rows[i % lanes], first = place.first;
    const size_t s = place.segment;
    const Segment& segment = table[s];
    const int64_t at = (c * a.row + segment.offset + first) * width;
    const Values to = a.low.at(s, c, segment.numel, first);
    const Piece piece{w_data + at,
                      a.method.preconditioned ? a.state + at : nullptr,
                      a.method.inert ? a.state + at : nullptr,
                      const_cast<void*>(to.data),
                      to.dtype,
                      stochastic_rounding,
                      a.grads.at(s, c, segment.numel, first),
                      a.anchors.at(s, 0, segment.numel, first),
                      a.noise.at(s, c, segment.numel, first),
                      static_cast<const uint8_t*>(a.masks.at(s, 0, 0, first).data),
                      std::min(kPiece, segment.numel - first),
                      first,
                      segment.element,
                      segment.run,
                      segment.stride};
    finite[i] = move(piece, moving[i % lanes], a.metrics ? &sums[9 * i] : nullptr,
                     a.method.thermal ? &heat[2 * i] : nullptr);
  };
  share_tasks(pieces,
              std::min<int64_t>(torch::stable::get_num_threads(), total * lanes / kWorthAThread),
              run);

  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int64_t c = rows[lane];
    double* m = a.metrics ? a.metrics + 9 * c : nullptr;
    if (m) std::fill(m, m + 9, 0.0);
    double squares = 0, movable = 0;
    for (int64_t i = lane; i < pieces; i += lanes) {
      dies[c] |= !finite[i];
      for (int k = 0; m && k < 9; ++k) m[k] += sums[9 * i + k];
      if (a.method.thermal) squares += heat[2 * i], movable += heat[2 * i + 1];
    }
    if (m) finish_metrics(moving[lane], m);
    if (a.method.thermal && movable > 0 && !dies[c])
      a.thermostat[c] = next_thermostat(a.thermostat[c], squares / movable, moving[lane].lr);
  }
  for (int64_t c = 0; c < count; ++c) {
    if (!dies[c]) continue;
    if (a.alive) a.alive[c] = 0;
    if (a.death_step) a.death_step[c] = t;
  }
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CPU, m) {
  m.impl("native_langevin_step_", TORCH_BOX(&sltfast::langevin_step_));
}
