// langevin_step_'s CUDA kernels on CPU threads: the launcher of the .cu file, for ctypes and for
// sanitizers.
#include "langevin_step.cuh"

#include "langevin_plan.h"

namespace {

using namespace sltfast;

struct Call {
  LangevinStep step;
  const int64_t* rows;  // [segments, 14]: the members of SegmentRow before first_tile, then dtypes
  int64_t segments;
  int64_t master, threads, most_blocks, table_rows, backward;
};

std::vector<SegmentRow> read_rows(const Call& call) {
  std::vector<SegmentRow> out;
  for (int64_t s = 0; s < call.segments; ++s) {
    const int64_t* x = call.rows + 14 * s;
    SegmentRow r{};
    r.grad = reinterpret_cast<void*>(x[0]), r.anchor = reinterpret_cast<void*>(x[1]);
    r.noise = reinterpret_cast<void*>(x[2]), r.mask = reinterpret_cast<uint8_t*>(x[3]);
    r.low = reinterpret_cast<void*>(x[4]);
    r.offset = x[5], r.numel = x[6], r.element = x[7], r.run = x[8], r.stride = x[9];
    r.grad_dtype = Dtype(x[10]), r.anchor_dtype = Dtype(x[11]);
    r.noise_dtype = Dtype(x[12]), r.low_dtype = Dtype(x[13]);
    out.push_back(r);
  }
  return out;
}

}  // namespace

// Returns how many launches there were, plus 100 for each that was of the hot kernel.
extern "C" int64_t langevin_step(const Call* call) {
  const LangevinStep& s = call->step;
  const bool measured = s.metrics || s.thermostat;
  const Dtype master = Dtype(call->master);
  std::vector<uint32_t> counters(1 + s.chains, 0);
  auto plan =
      plan_langevin(s, master, read_rows(*call), static_cast<unsigned>(call->threads),
                    static_cast<unsigned>(call->most_blocks), static_cast<int>(call->table_rows));
  std::vector<double> sums(measured ? plan[0].table.all.blocks * s.chains * kSums : 0, NAN);
  int64_t out = 0;
  for (PlannedLaunch& launch : plan) {
    launch.table.all.ticket = counters.data(), launch.table.all.broken = counters.data() + 1;
    launch.table.all.sums = sums.data();
    const auto kernel = kernel_of(launch.hot, master, s.method, measured);
    cuda_threads::launch(
        {launch.blocks}, {static_cast<unsigned>(call->threads)}, [&] { kernel(launch.table); },
        call->backward ? cuda_threads::Order::backward : cuda_threads::Order::forward);
    out += launch.hot ? 101 : 1;
  }
  return out;
}

namespace {

struct Made {
  int64_t n, run, stride;
  std::vector<float> grad, anchor, noise;
  std::vector<uint16_t> low;
  std::vector<uint8_t> mask;
};

// Buffers exactly as long as the op may touch, so that a sanitizer sees every step beyond.
template <class T>
void run_all_kinds(Rule rule, bool aligned, bool given, bool measured, bool backward) {
  const int chains = 3;
  std::vector<Made> made;
  int64_t row = aligned ? 0 : 1;
  for (int64_t n :
       aligned ? std::vector<int64_t>{4, 64, 0, 516} : std::vector<int64_t>{1, 5, 0, 263})
    made.push_back({n, aligned && n == 64 ? 16 : n + 1, 32, {}, {}, {}, {}, {}});
  for (Made& m : made) row += m.n;
  std::vector<T> w(chains * row, T(0.5)), state(w.size(), T(0.25));
  std::vector<int64_t> rows, ids{1, 2, 3};
  int64_t offset = aligned ? 0 : 1, element = offset;
  for (Made& m : made) {
    m.grad.assign(chains * m.n, 0.5f), m.anchor.assign(m.n, 0.25f);
    if (given) {
      m.noise = m.grad, m.mask.assign(m.n, 1), m.low.assign(chains * m.n, 0);
      for (int64_t i = 0; i < m.n; i += 3) m.mask[i] = 0;
    }
    const auto at = [](auto& x) { return x.empty() ? 0 : reinterpret_cast<int64_t>(x.data()); };
    const int64_t f32 = 1, bf16 = 3;
    rows.insert(rows.end(), {at(m.grad), at(m.anchor), at(m.noise), at(m.mask), at(m.low), offset,
                             m.n, element, m.run, m.stride, f32, f32, f32, bf16});
    offset += m.n, element += 4 * m.n;
  }
  if (!made[3].grad.empty()) made[3].grad[made[3].n + 1] = NAN;  // chain 1 dies
  std::vector<double> hyper, loss{1, 1, NAN}, metrics(9 * chains, NAN), thermostat(chains, 0.1);
  for (int c = 0; c < chains; ++c) hyper.insert(hyper.end(), {1e-2, 10, 1, 0.1, 1, 0.5});
  std::vector<uint8_t> alive(chains, 1);
  std::vector<int64_t> death(chains, -1);
  const int64_t t = 7;
  const LangevinMethod method{rule == Rule::preconditioned,
                              true,
                              rule == Rule::momentum,
                              rule == Rule::momentum && measured,
                              0.9,
                              0.1,
                              0.1,
                              12345,
                              2};
  const LangevinStep step{w.data(),
                          rule == Rule::plain ? nullptr : state.data(),
                          row,
                          chains,
                          method,
                          hyper.data(),
                          &t,
                          ids.data(),
                          loss.data(),
                          alive.data(),
                          death.data(),
                          measured ? metrics.data() : nullptr,
                          method.thermal ? thermostat.data() : nullptr,
                          given,
                          nullptr,
                          nullptr,
                          nullptr,
                          0};
  const Call call{step,
                  rows.data(),
                  static_cast<int64_t>(made.size()),
                  static_cast<int64_t>(sizeof(T) == 4 ? Dtype::f32 : Dtype::f64),
                  64,
                  3,
                  2,
                  backward};
  langevin_step(&call);
  if (alive != std::vector<uint8_t>{1, 0, 0} || death != std::vector<int64_t>{-1, 7, 7})
    std::abort();
  if (measured && !(metrics[0] > 0 && metrics[9 * 2] != metrics[9 * 2])) std::abort();
}

}  // namespace

int main() {
  int runs = 0;
  for (Rule rule : {Rule::plain, Rule::preconditioned, Rule::momentum})
    for (int kind = 0; kind < 8; ++kind) {
      const bool aligned = kind & 1, given = kind & 2, measured = kind & 4, backward = ++runs & 1;
      run_all_kinds<float>(rule, aligned, given, measured, backward);
      if (kind == 3 || kind == 4) run_all_kinds<double>(rule, aligned, given, measured, !backward);
    }
}
