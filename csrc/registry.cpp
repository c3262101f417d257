// The schema of every native op: the one page that says what each reads and writes.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sltfast, m) {
  m.def(
      "native_langevin_step_(Tensor(a!) w, Tensor[] grads, Tensor[] anchors, Tensor segments, "
      "Tensor hyper, Tensor step, Tensor chains, int seed, int stream, str method, "
      "Tensor(b!)? v, Tensor(c!)[] low, Tensor[] masks, Tensor? loss, Tensor(d!)? alive, "
      "Tensor(e!)? death_step, Tensor(f!)? metrics, Tensor[] noise, float rms_alpha, "
      "float rms_eps) -> ()");
  m.def(
      "native_grouped_gradient_products(Tensor left_a, Tensor right_a, Tensor left_b, "
      "Tensor right_b, str algorithm) -> Tensor");
  m.def("native_grouped_gradient_inner(Tensor left, Tensor right, Tensor v) -> Tensor");
}
