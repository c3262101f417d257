// csrc/cuda/token_loss.cuh on CPU threads: a [rows, V] matrix of products, reduced and
// differentiated in tiles of the vocabulary as the launcher does.
#include "token_loss.cuh"

#include <algorithm>
#include <vector>

namespace {

using cuda_threads::launch;
using sltfast::DeviceTile;

constexpr unsigned kBlocks = 2, kThreads = 64;

template <class T>
struct Tiles {
  T* products;
  int64_t rows, vocabulary, columns;
  const T* bias;
  const int64_t* targets;
  double scale, softcap;

  template <class Use>
  void each(const Use& use) const {
    for (int64_t v = 0; v < vocabulary; v += columns)
      launch({kBlocks}, {kThreads}, [&] {
        use(DeviceTile<T>{products + v, vocabulary, rows, std::min(columns, vocabulary - v), v,
                          vocabulary, bias ? bias + v : nullptr, targets, -100, scale, softcap});
      });
  }

  void losses(double* parts, double* at_target, T* loss, double* lse) const {
    for (int64_t i = 0; i < rows; ++i) parts[2 * i] = -INFINITY, parts[2 * i + 1] = 0;
    each([&](const DeviceTile<T>& tile) { sltfast::reduce_tile(tile, parts, at_target); });
    const DeviceTile<T> all{products, vocabulary, rows, 0, 0, vocabulary,
                            nullptr,  targets,    -100, 1, 0};
    launch({1}, {kThreads}, [&] {
      for (int64_t i = threadIdx.x; i < rows; i += kThreads)
        sltfast::finish_row(all, i, parts, at_target, loss, lse);
    });
  }

  void gradient(bool logits, const double* lse, const T* weights) const {
    each([&](const DeviceTile<T>& tile) { sltfast::gradient_tile(tile, logits, lse, weights); });
  }
};

template <class T>
void whole(const Tiles<T>& tiles, const T* weights, bool logits, T* loss, double* lse, T* total) {
  std::vector<double> parts(2 * tiles.rows), at_target(tiles.rows);
  std::vector<T> products(tiles.products, tiles.products + tiles.rows * tiles.vocabulary);
  tiles.losses(parts.data(), at_target.data(), loss, lse);
  // a backward starts from products, a pass with gradients from the logits it made of them
  if (!logits) std::copy(products.begin(), products.end(), tiles.products);
  tiles.gradient(logits, lse, weights);
  launch({1}, {kThreads}, [&] { sltfast::weighted_sum(loss, weights, tiles.rows, total); });
}

}  // namespace

#define SLT_TOKEN_LOSS(name, T)                                                             \
  extern "C" void name(T* products, int64_t rows, int64_t vocabulary, int64_t columns,      \
                       const T* bias, const int64_t* targets, double scale, double softcap, \
                       const T* weights, bool logits, T* loss, double* lse, T* total) {     \
    whole<T>({products, rows, vocabulary, columns, bias, targets, scale, softcap}, weights, \
             logits, loss, lse, total);                                                     \
  }
SLT_TOKEN_LOSS(token_loss_f32, float)
SLT_TOKEN_LOSS(token_loss_f64, double)

// Two tiles, the second one short and misaligned; an ignored target and one out of range.
int main() {
  constexpr int64_t rows = 4, vocabulary = 157, columns = 101;
  std::vector<float> products(rows * vocabulary), bias(vocabulary, 0.5f), weights(rows, 0.1f);
  for (size_t i = 0; i < products.size(); ++i) products[i] = static_cast<float>(i % 37) - 18;
  const std::vector<int64_t> targets{-100, vocabulary + 5, 3, vocabulary - 1};
  std::vector<float> loss(rows);
  std::vector<double> lse(rows);
  float total = 0;
  for (bool logits : {false, true}) {
    token_loss_f32(products.data(), rows, vocabulary, columns, bias.data(), targets.data(), 0.7, 4,
                   weights.data(), logits, loss.data(), lse.data(), &total);
    if (loss[0] != 0 || loss[1] == loss[1] || loss[2] != loss[2]) return 1;
  }
}
