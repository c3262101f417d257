// What the launchers of the co-moment ops share: rules that name the argument, stream, grid, GEMM.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string>

namespace sltfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_wide(const Tensor& t) { return t.scalar_type() == ScalarType::Double; }
inline bool is_float(const Tensor& t) { return is_wide(t) || t.scalar_type() == ScalarType::Float; }
inline bool is_flag(const Tensor& t) {
  return t.scalar_type() == ScalarType::Bool || t.scalar_type() == ScalarType::Byte;
}

// Contiguous throughout, or in its rows alone.
inline void check_on_device(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                            bool dtype_fits, bool contiguous) {
  STD_TORCH_CHECK(t.is_cuda(), name, " must be on a CUDA device");
  STD_TORCH_CHECK(dtype_fits, name, " has the wrong dtype");
  STD_TORCH_CHECK(t.dim() == static_cast<int64_t>(shape.size()), name, " has the wrong rank");
  int64_t d = 0;
  for (int64_t size : shape) STD_TORCH_CHECK(t.size(d++) == size, name, " has the wrong shape");
  const bool rows = t.size(d - 1) <= 1 || t.stride(d - 1) == 1;
  STD_TORCH_CHECK(contiguous ? t.is_contiguous() : rows, name, " must be contiguous",
                  contiguous ? "" : " in its rows");
}

// Makes a tensor's device the current one; the stream that torch uses there.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;

  explicit OnDevice(const Tensor& t) : guard(t.get_device_index()) {
    void* current = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_get_current_cuda_stream(t.get_device_index(), &current));
    stream = static_cast<cudaStream_t>(current);
  }
};

// Blocks for `units` of work that a grid strides over.
inline unsigned blocks_for(int64_t units) {
  return static_cast<unsigned>(std::max<int64_t>(1, std::min<int64_t>(units, 1 << 16)));
}

inline void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "a kernel was not launched: ", cudaGetErrorString(error));
}

// out = a·b by cuBLAS.
inline void multiply_into(const Tensor& out, const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // the result is `out` again: let go of it
}

}  // namespace sltfast
