// Independent units of work, shared among torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace sltfast {

// Calls f(worker, unit) for every unit in 0..units − 1; a worker takes the next unit when it is
// free, and no two calls with one worker overlap. Inside f a GEMM runs on the calling thread alone,
// so that its bits do not depend on the number of threads.
template <class F>
void share_work(int64_t units, int64_t workers, const F& f) {
  if (torch::stable::get_num_threads() == 1) {
    for (int64_t unit = 0; unit < units; ++unit) f(0, unit);
    return;
  }
  std::atomic<int64_t> next{0};
  // a single index would run outside of a parallel region
  torch::stable::parallel_for(0, std::max<int64_t>(2, workers), 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < std::min(end, workers); ++worker)
      for (int64_t unit = next++; unit < units; unit = next++) f(worker, unit);
  });
}

// The same where one worker is enough to stay on the calling thread: nothing is woken, and a GEMM
// inside f may have all threads.
template <class F>
void share_tasks(int64_t count, int64_t workers, const F& f) {
  if (workers > 1) return share_work(count, workers, f);
  for (int64_t i = 0; i < count; ++i) f(0, i);
}

inline int64_t workers_for(int64_t units) {
  return std::max<int64_t>(1, std::min<int64_t>(units, torch::stable::get_num_threads()));
}

}  // namespace sltfast
