// The step in the epilogue of the gradient's product on CPU threads: for ctypes, and a main for the
// sanitizers.
#include "grouped_gradient_step.cuh"

namespace {

using namespace sltfast;

void run(const GroupedGradientStep& s, bool wide, unsigned blocks, bool backward) {
  const auto kernel = wide ? grouped_gradient_step<double> : grouped_gradient_step<float>;
  cuda_threads::launch(
      {blocks}, {kTileThreads * kTileThreads}, [&] { kernel(s); },
      backward ? cuda_threads::Order::backward : cuda_threads::Order::forward);
}

}  // namespace

// Every argument as a 64-bit word, in the order of the struct; pointers may be 0.
extern "C" void grouped_gradient_step_words(const int64_t* a) {
  const auto at = [](int64_t address) { return reinterpret_cast<void*>(address); };
  const auto factor = [&](const int64_t* f) {
    return TileFactor{at(f[0]), static_cast<Dtype>(f[1]), f[2], f[3], f[4]};
  };
  const int64_t chains = a[19];
  std::vector<uint32_t> counters(1 + chains, 0);
  LangevinMethod method{};
  method.seed = static_cast<uint64_t>(a[20]), method.stream = static_cast<uint32_t>(a[21]);
  const GroupedGradientStep s{factor(a),
                              factor(a + 5),
                              at(a[10]),
                              a[11],
                              static_cast<Operands>(a[12]),
                              at(a[13]),
                              a[14],
                              a[15],
                              at(a[16]),
                              static_cast<Dtype>(a[17]),
                              a[18],
                              a[28],
                              static_cast<int>(chains),
                              method,
                              static_cast<const double*>(at(a[22])),
                              static_cast<const int64_t*>(at(a[23])),
                              static_cast<const int64_t*>(at(a[24])),
                              static_cast<const double*>(at(a[25])),
                              static_cast<uint8_t*>(at(a[26])),
                              static_cast<int64_t*>(at(a[27])),
                              counters.data(),
                              counters.data() + 1};
  run(s, a[29] != 0, static_cast<unsigned>(a[30]), a[31] != 0);
}

namespace {

// Buffers exactly as long as the kernel may touch, so that a sanitizer sees every access beyond.
template <class T>
bool run_on_made_up_sizes(int64_t n, int64_t r, int64_t k, bool weighted, bool backward) {
  const int64_t chains = 2, row = r * k + 1;
  std::vector<T> w(chains * row, T(0.5)), anchor(r * k, T(0.25)), weights(chains * n, T(2));
  std::vector<T> left(chains * n * r, T(0.01)), right(chains * n * k, T(0.02));
  std::vector<double> hyper, loss{1, NAN};
  for (int c = 0; c < chains; ++c) hyper.insert(hyper.end(), {1e-2, 10, 1, 0.1, 1, INFINITY});
  const std::vector<int64_t> ids{3, 4};
  const int64_t t = 7;
  std::vector<uint8_t> alive(chains, 1);
  std::vector<int64_t> death(chains, -1);
  std::vector<uint32_t> counters(1 + chains, 0);
  const Dtype dtype = sizeof(T) == 8 ? Dtype::f64 : Dtype::f32;
  LangevinMethod method{};
  const GroupedGradientStep s{{left.data(), dtype, r, n * r, r},
                              {right.data(), dtype, k, n * k, k},
                              weighted ? weights.data() : nullptr,
                              n,
                              Operands::ieee,
                              w.data(),
                              row,
                              1,
                              anchor.data(),
                              dtype,
                              5,
                              k + 3,
                              static_cast<int>(chains),
                              method,
                              hyper.data(),
                              &t,
                              ids.data(),
                              loss.data(),
                              alive.data(),
                              death.data(),
                              counters.data(),
                              counters.data() + 1};
  run(s, sizeof(T) == 8, 2, backward);
  for (int64_t i = 0; i < r * k; ++i)
    if (w[1 + i] == T(0.5) || w[row + 1 + i] != T(0.5)) return false;
  return w[0] == T(0.5) && alive[0] == 1 && alive[1] == 0 && death[1] == 7;
}

}  // namespace

int main() {
  for (bool flag : {false, true})
    if (!run_on_made_up_sizes<float>(17, 66, 67, flag, !flag) ||
        !run_on_made_up_sizes<double>(3, 5, 8, flag, flag) ||
        !run_on_made_up_sizes<float>(1, 1, 64, flag, flag))
      return 1;
  return 0;
}
