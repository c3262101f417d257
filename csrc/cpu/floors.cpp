#include "floors.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>

#include "dispatch.h"
#include "langevin_kernel.h"

namespace sltfast {
namespace {

constexpr int64_t kGrain = 16384;

}  // namespace

void touch_operands(float* w, const float* g, const float* anchor, float* v, int64_t count) {
  torch::stable::parallel_for(0, count, kGrain, [=](int64_t begin, int64_t end) {
    if (v)
      for (int64_t i = begin; i < end; ++i) {
        v[i] += 1e-9f * g[i];
        w[i] += 1e-9f * (v[i] - anchor[i]);
      }
    else
      for (int64_t i = begin; i < end; ++i) w[i] += 1e-9f * (g[i] - anchor[i]);
  });
}

float draw_and_discard(int64_t count) {
  std::atomic<float> last{0};
  torch::stable::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    float buffer[2048];
    ChainStep c{};
    while (begin < end) {
      const int64_t n = std::min<int64_t>(end - begin, 2048);
      kernels<LangevinKernels>().normals(c, begin, n, buffer);
      begin += n;
    }
    last = buffer[0];
  });
  return last;
}

}  // namespace sltfast
