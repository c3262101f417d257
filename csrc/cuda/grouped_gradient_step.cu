// sltfast::native_grouped_gradient_step_ on CUDA: the same checks as on the CPU, one launch.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "../grouped_gradient_arguments.h"
#include "grouped_gradient_step.cuh"

namespace sltfast {
namespace {

constexpr int64_t kBlocksPerProcessor = 8;

TileFactor tile_factor(const Factor& f) { return {f.data(), f.dtype, f.columns, f.chain, f.row}; }

void check_launch(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "grouped_gradient_step_: ", cudaGetErrorString(error));
}

void grouped_gradient_step_(Tensor w, Tensor left, Tensor right, std::optional<Tensor> weights,
                            Tensor anchor, Tensor segment, Tensor hyper, Tensor step, Tensor chains,
                            int64_t seed, int64_t stream, std::optional<Tensor> loss,
                            std::optional<Tensor> alive, std::optional<Tensor> death_step,
                            std::string precision) {
  STD_TORCH_CHECK(w.is_cuda(), "w must be on a CUDA device");
  const torch::stable::accelerator::DeviceGuard guard(w.get_device_index());
  const GroupedGradientArguments a(w, std::move(left), std::move(right), std::move(weights),
                                   std::move(anchor), segment, hyper, step, chains, seed, stream,
                                   loss, alive, death_step, precision);
  if (a.chains == 0) return;
  const Tensor counters =
      torch::stable::new_zeros(w, {1 + a.chains}, std::make_optional(ScalarType::Int));
  uint32_t* counts = static_cast<uint32_t*>(counters.mutable_data_ptr());
  const GroupedGradientStep s{tile_factor(a.left),
                              tile_factor(a.right),
                              a.weight_data(),
                              a.positions,
                              a.operands,
                              w.mutable_data_ptr(),
                              a.row,
                              a.segment.offset,
                              a.anchor_data(),
                              a.anchor_dtype,
                              a.segment.element,
                              a.element_row(),
                              static_cast<int>(a.chains),
                              a.method,
                              a.hyper,
                              a.step,
                              a.chain_ids,
                              a.loss,
                              a.alive,
                              a.death_step,
                              counts,
                              counts + 1};
  int processors = 0;
  check_launch(
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, w.get_device_index()));
  const int64_t units = tiles_of(a.left.columns) * tiles_of(a.right.columns) * a.chains;
  // at least one: chains whose loss is broken die where there is nothing to move
  const unsigned blocks = static_cast<unsigned>(
      std::max<int64_t>(1, std::min<int64_t>(units, kBlocksPerProcessor * processors)));
  void* queue = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(w.get_device_index(), &queue));
  const auto kernel =
      a.master == Dtype::f64 ? grouped_gradient_step<double> : grouped_gradient_step<float>;
  kernel<<<blocks, kTileThreads * kTileThreads, 0, static_cast<cudaStream_t>(queue)>>>(s);
  check_launch(cudaGetLastError());
}

}  // namespace
}  // namespace sltfast

STABLE_TORCH_LIBRARY_IMPL(sltfast, CUDA, m) {
  m.impl("native_grouped_gradient_step_", TORCH_BOX(&sltfast::grouped_gradient_step_));
}
