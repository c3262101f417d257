// Inner products of per-sample gradients on CPU threads: for ctypes, and a main for the sanitizers.
#include "grouped_gradient_inner.cuh"

namespace {

using namespace sltfast;

template <class Kernel>
void launch(unsigned blocks, bool backward, const Kernel& kernel) {
  cuda_threads::launch({blocks}, {kProductThreads}, kernel,
                       backward ? cuda_threads::Order::backward : cuda_threads::Order::forward);
}

enum class Form : int64_t { formed, ghost, short_ghost };

template <class T>
void products(GradientPair<T> p, Form form, unsigned blocks, bool backward, double* out) {
  std::vector<double> parts(p.samples * p.shares, NAN);
  p.parts = form == Form::short_ghost ? out : parts.data();
  launch(blocks, backward, [&] {
    if (form == Form::formed) tiled_products<true>(p);
    if (form == Form::ghost) tiled_products<false>(p);
    if (form == Form::short_ghost) short_products(p);
  });
  if (form != Form::short_ghost)
    launch(blocks, backward, [&] { sum_parts(parts.data(), out, p.samples, p.shares); });
}

template <class T>
void inner(const SampleMatrices<T>& left, const SampleMatrices<T>& right,
           const SampleMatrices<T>& v, int64_t samples, unsigned blocks, bool backward,
           double* out) {
  const int64_t wide = tiles_of(left.columns);
  std::vector<double> parts(left.rows * wide, NAN);
  launch(blocks, backward, [&] { inner_products(left, right, v, parts.data()); });
  const int64_t count = left.rows / samples * wide;
  launch(blocks, backward, [&] { sum_parts(parts.data(), out, samples, count); });
}

// Five words: address, rows, columns and the strides of samples and rows.
template <class T>
SampleMatrices<T> matrices(const int64_t* a) {
  return {reinterpret_cast<const T*>(a[0]), a[1], a[2], a[3], a[4]};
}

template <class T>
void products_of(const int64_t* a) {
  const GradientPair<T> p{matrices<T>(a),
                          matrices<T>(a + 5),
                          matrices<T>(a + 10),
                          matrices<T>(a + 15),
                          a[20] != 0,
                          a[21],
                          a[22],
                          nullptr};
  products(p, static_cast<Form>(a[23]), static_cast<unsigned>(a[24]), a[25] != 0,
           reinterpret_cast<double*>(a[26]));
}

template <class T>
void inner_of(const int64_t* a) {
  inner(matrices<T>(a), matrices<T>(a + 5), matrices<T>(a + 10), a[15],
        static_cast<unsigned>(a[16]), a[17] != 0, reinterpret_cast<double*>(a[18]));
}

}  // namespace

// Every argument as a 64-bit word.
extern "C" void grouped_gradient_products_words(const int64_t* a) {
  a[27] ? products_of<double>(a) : products_of<float>(a);
}
extern "C" void grouped_gradient_inner_words(const int64_t* a) {
  a[19] ? inner_of<double>(a) : inner_of<float>(a);
}

namespace {

// Buffers exactly as long as the kernels may touch, so that a sanitizer sees every access beyond.
// Factors of ones: ⟨g_i, g_i⟩ = T·T'·R·K exactly.
template <class T>
bool run_on_made_up_sizes(int64_t ta, int64_t tb, int64_t r, int64_t k, bool backward) {
  const int64_t samples = 2;
  const std::vector<T> la(samples * ta * r, T(1)), ra(samples * ta * k, T(1));
  const std::vector<T> lb(samples * tb * r, T(1)), rb(samples * tb * k, T(1)), v(r * k, T(1));
  const SampleMatrices<T> first{la.data(), ta, r, ta * r, r}, second{ra.data(), ta, k, ta * k, k};
  const SampleMatrices<T> third{lb.data(), tb, r, tb * r, r}, fourth{rb.data(), tb, k, tb * k, k};
  const auto all = [](const std::vector<double>& x, int64_t value) {
    return std::all_of(x.begin(), x.end(), [=](double y) { return y == double(value); });
  };
  for (Form form : {Form::formed, Form::ghost, Form::short_ghost})
    for (bool same : {false, true}) {
      std::vector<double> out(samples, NAN);
      products<T>(
          {first, second, same ? first : third, same ? second : fourth, same, samples, 2, nullptr},
          form, 3, backward, out.data());
      if (!all(out, ta * (same ? ta : tb) * r * k)) return false;
    }
  std::vector<double> out(samples, NAN);
  inner<T>({la.data(), samples * ta, r, 0, r}, {ra.data(), samples * ta, k, 0, k},
           {v.data(), r, k, 0, k}, samples, 3, backward, out.data());
  return all(out, ta * r * k);
}

}  // namespace

int main() {
  return run_on_made_up_sizes<float>(3, 5, 67, 18, false) &&
                 run_on_made_up_sizes<double>(3, 1, 8, 66, true) &&
                 run_on_made_up_sizes<float>(5, 66, 1, 5, true)
             ? 0
             : 1;
}
