// Prints Philox words, normals, steps and rounded copies of fixed inputs, bit by bit: what two
// machines must agree on.
#include <cstdio>
#include <initializer_list>

#include "../../csrc/numerics/gaussian.h"
#include "../../csrc/numerics/langevin.h"
#include "../../csrc/numerics/langevin_chain.h"
#include "../../csrc/numerics/rounding.h"
#include "../../csrc/numerics/scalar.h"

using One = sltfast::Scalar<float>;

int main() {
  const sltfast::PhiloxStream<One> known(0xA4093822u | static_cast<uint64_t>(0x299F31D0u) << 32,
                                         0x85A308D3u, 0x13198A2Eu, 0x03707344u);
  const uint64_t first[1] = {0x243F6A88u};
  uint64_t words[4][1];
  sltfast::philox_words<One, 1>(known, first, words);
  for (auto& word : words) std::printf("%08x\n", static_cast<uint32_t>(word[0]));

  sltfast::ChainStep chain{};
  chain.lr = 1e-3, chain.n_beta = 10, chain.localization = 5, chain.weight_decay = 0.5;
  chain.noise = 0.03, chain.box = 0.1, chain.alpha = 0.99, chain.correction = 1.5, chain.eps = 0.1;
  chain.kept = 0.9;
  const sltfast::Langevin<One> step(chain);
  for (uint32_t group = 0; group < 20000; ++group) {
    uint32_t random[4];
    float xi[4];
    sltfast::words_of_groups<One>(known, &group, random);
    sltfast::normals_of_groups<One>(known, &group, xi);
    const float w = xi[0], g = xi[1], distance = 0.1f * xi[2], v = xi[3] * xi[3];
    const float plain = w + step.plain_increment(g, w, distance, xi[3]);
    const float root = step.root_of_preconditioner(step.mean_square(v, g));
    const float prior = step.prior(w, distance);
    const float scaled = step.boxed(w + step.preconditioned_increment(g, prior, xi[2], root), w);
    const float carried = step.carried(0.02f * xi[3], plain - w);
    for (float x : {xi[0], xi[1], xi[2], xi[3], plain, scaled, carried})
      std::printf("%08x ", sltfast::float_word(x));
    for (float x : {plain, plain * 1e-5f, plain * 1e4f})
      std::printf("%04x %04x %04x %04x ", sltfast::to_bfloat16(x), sltfast::to_float16(x),
                  sltfast::to_bfloat16(x, random[0]), sltfast::to_float16(x, random[1]));
    std::printf("\n");
  }
}
