// sltfast::native_langevin_step_ on CUDA: the same checks as on the CPU, the plan, the launches.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <string>

#include "../langevin_arguments.h"
#include "langevin_plan.h"
#include "langevin_step.cuh"

namespace sltfast {
namespace {

// Blocks while sums are taken: fixed, so that they do not depend on the GPU.
constexpr unsigned kMeasuringBlocks = 1024;
constexpr unsigned kBlocksPerProcessor = 8;

std::vector<SegmentRow> rows_of(const LangevinArguments& a) {
  std::vector<SegmentRow> out;
  for (size_t s = 0; s < a.segments.size(); ++s) {
    const Segment& segment = a.segments[s];
    SegmentRow r{};
    r.grad = a.grads.values[s].data, r.grad_dtype = a.grads.values[s].dtype;
    r.anchor = a.anchors.values[s].data, r.anchor_dtype = a.anchors.values[s].dtype;
    r.noise = a.noise.values[s].data, r.noise_dtype = a.noise.values[s].dtype;
    r.mask = static_cast<const uint8_t*>(a.masks.values[s].data);
    r.low = const_cast<void*>(a.low.values[s].data), r.low_dtype = a.low.values[s].dtype;
    r.offset = segment.offset, r.numel = segment.numel;
    r.element = segment.element, r.run = segment.run, r.stride = segment.stride;
    out.push_back(r);
  }
  return out;
}

void check_launch(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "langevin_step_: ", cudaGetErrorString(error));
}

void langevin_step_(Tensor w, std::vector<Tensor> grads, std::vector<Tensor> anchors,
                    Tensor segments, Tensor hyper, Tensor step, Tensor chains, int64_t seed,
                    int64_t stream, std::string method, std::optional<Tensor> v,
                    std::optional<Tensor> momentum, std::optional<Tensor> thermostat,
                    std::vector<Tensor> low, std::vector<Tensor> masks, std::optional<Tensor> loss,
                    std::optional<Tensor> alive, std::optional<Tensor> death_step,
                    std::optional<Tensor> metrics, std::vector<Tensor> noise, double rms_alpha,
                    double rms_eps, double friction, bool stochastic_rounding) {
  STD_TORCH_CHECK(w.is_cuda(), "w must be on a CUDA device");
  const torch::stable::accelerator::DeviceGuard guard(w.get_device_index());
  const LangevinArguments a(w, std::move(grads), std::move(anchors), segments, hyper, step, chains,
                            seed, stream, method, v, momentum, thermostat, std::move(low),
                            std::move(masks), loss, alive, death_step, metrics, std::move(noise),
                            rms_alpha, rms_eps, friction, stochastic_rounding);
  if (a.chains == 0) return;
  const Tensor counters =
      torch::stable::new_zeros(w, {1 + a.chains}, std::make_optional(ScalarType::Int));
  uint32_t* counts = static_cast<uint32_t*>(counters.mutable_data_ptr());
  LangevinStep s{w.mutable_data_ptr(),
                 a.state,
                 a.row,
                 static_cast<int>(a.chains),
                 a.method,
                 a.hyper,
                 a.step,
                 a.chain_ids,
                 a.loss,
                 a.alive,
                 a.death_step,
                 a.metrics,
                 a.thermostat,
                 a.stochastic_rounding,
                 counts,
                 counts + 1,
                 nullptr,
                 0};
  const bool measured = a.metrics || a.thermostat;
  int processors = 0;
  check_launch(
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, w.get_device_index()));
  const unsigned most = measured ? kMeasuringBlocks : kBlocksPerProcessor * processors;
  std::vector<PlannedLaunch> plan = plan_langevin(s, a.master, rows_of(a), kThreads, most);
  std::optional<Tensor> sums;
  if (measured) {
    const int64_t blocks = plan.front().table.all.blocks;
    sums = torch::stable::new_empty(w, {blocks, a.chains, kSums},
                                    std::make_optional(ScalarType::Double));
    for (PlannedLaunch& launch : plan)
      launch.table.all.sums = static_cast<double*>(sums->mutable_data_ptr());
  }
  void* queue = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(w.get_device_index(), &queue));
  for (const PlannedLaunch& launch : plan) {
    kernel_of(
        launch.hot, a.master, a.method,
        measured)<<<launch.blocks, kThreads, 0, static_cast<cudaStream_t>(queue)>>>(launch.table);
    check_launch(cudaGetLastError());
  }
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CUDA, m) {
  m.impl("native_langevin_step_", TORCH_BOX(&sltfast::langevin_step_));
}
