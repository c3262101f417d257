// The schema of every native op: the one page that says what each reads and writes.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sltfast, m) {
  m.def(
      "native_langevin_step_(Tensor(a!) w, Tensor[] grads, Tensor[] anchors, Tensor segments, "
      "Tensor hyper, Tensor step, Tensor chains, int seed, int stream, str method, "
      "Tensor(b!)? v, Tensor(c!)? momentum, Tensor(d!)? thermostat, Tensor(e!)[] low, "
      "Tensor[] masks, Tensor? loss, Tensor(f!)? alive, Tensor(g!)? death_step, "
      "Tensor(h!)? metrics, Tensor[] noise, float rms_alpha, float rms_eps, float friction, "
      "bool stochastic_rounding) -> ()");
  m.def(
      "native_grouped_gradient_products(Tensor left_a, Tensor right_a, Tensor left_b, "
      "Tensor right_b, str algorithm) -> Tensor");
  m.def(
      "native_grouped_gradient_step_(Tensor(a!) w, Tensor left, Tensor right, Tensor? weights, "
      "Tensor anchor, Tensor segment, Tensor hyper, Tensor step, Tensor chains, int seed, "
      "int stream, Tensor? loss, Tensor(b!)? alive, Tensor(c!)? death_step, str precision) -> ()");
  m.def("native_grouped_gradient_inner(Tensor left, Tensor right, Tensor v) -> Tensor");
  m.def(
      "native_comoment_(Tensor(a!) count, Tensor(b!) mean_x, Tensor(c!) m2_x, Tensor(d!)? mean_y, "
      "Tensor(e!)? m2_y, Tensor(f!)? block, Tensor x, Tensor? y, Tensor? valid, str precision) -> "
      "()");
  m.def(
      "native_comoment_merge_(Tensor(a!) count, Tensor(b!) mean_x, Tensor(c!) m2_x, "
      "Tensor(d!)? mean_y, Tensor(e!)? m2_y, Tensor(f!)? block, Tensor other_count, "
      "Tensor other_mean_x, Tensor other_m2_x, Tensor? other_mean_y, Tensor? other_m2_y, "
      "Tensor? other_block) -> ()");
  m.def(
      "native_comoment_correlation_(Tensor(a!) out, Tensor block, Tensor m2_x, Tensor? m2_y) -> "
      "()");
  m.def(
      "native_comoment_standardise_(Tensor(a!) z, Tensor x, Tensor mean, Tensor scale, "
      "Tensor? valid) -> ()");
  m.def(
      "native_comoment_top_k_(Tensor(a!) values, Tensor(b!) indices, Tensor block, int column, "
      "int? row, bool absolute) -> ()");
  m.def(
      "native_token_loss(Tensor hidden, Tensor unembedding, Tensor? bias, Tensor targets, "
      "int ignore_index, float scale, float softcap, str precision) -> (Tensor, Tensor)");
  m.def(
      "native_token_loss_backward(Tensor dloss, Tensor hidden, Tensor unembedding, Tensor? bias, "
      "Tensor targets, Tensor lse, int ignore_index, float scale, float softcap, str precision, "
      "bool needs_hidden, bool needs_unembedding, bool needs_bias) -> (Tensor, Tensor, Tensor)");
  m.def(
      "native_token_loss_with_gradient(Tensor hidden, Tensor unembedding, Tensor? bias, "
      "Tensor targets, Tensor weights, int ignore_index, float scale, float softcap, "
      "str precision, bool needs_unembedding, bool needs_bias) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
}
