// The arguments of native_langevin_step_, checked before anything is written, on any device.
#pragma once

#include <string>

#include "numerics/langevin_chain.h"
#include "segments.h"

namespace sltfast {

struct LangevinArguments {
  Dtype master;
  int64_t chains, row;
  LangevinMethod method;
  std::vector<Segment> segments;
  List grads, anchors, low, masks, noise;
  const double* hyper;
  const int64_t *step, *chain_ids;
  char* state;  // v or momentum, if any
  double* thermostat;
  const double* loss;
  uint8_t* alive;
  int64_t* death_step;
  double* metrics;
  bool stochastic_rounding;

  LangevinArguments(const Tensor& w, std::vector<Tensor> grads_, std::vector<Tensor> anchors_,
                    const Tensor& table, const Tensor& hyper_, const Tensor& step_,
                    const Tensor& chain_ids_, int64_t seed, int64_t stream, const std::string& name,
                    const std::optional<Tensor>& v, const std::optional<Tensor>& momentum,
                    const std::optional<Tensor>& thermostat_, std::vector<Tensor> low_,
                    std::vector<Tensor> masks_, const std::optional<Tensor>& loss_,
                    const std::optional<Tensor>& alive_, const std::optional<Tensor>& death_step_,
                    const std::optional<Tensor>& metrics_, std::vector<Tensor> noise_,
                    double rms_alpha, double rms_eps, double friction, bool stochastic)
      : master(check_weights(w)),
        chains(w.size(0)),
        row(w.size(1)),
        method(read_method(name, rms_alpha, rms_eps, friction, seed, stream)),
        segments(read_segments(table, row)),
        grads("grads", std::move(grads_), w, segments, chains,
              {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}, false, true),
        anchors("anchors", std::move(anchors_), w, segments, 1, {master, Dtype::bf16, Dtype::f16},
                false, false),
        low("low", std::move(low_), w, segments, chains, {Dtype::bf16, Dtype::f16}, true, true,
            true),
        masks("masks", std::move(masks_), w, segments, 1, {Dtype::none}, true, true),
        noise("noise", std::move(noise_), w, segments, chains,
              {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}, true, false),
        hyper(dense<const double>("hyper", hyper_, w, {chains, 6}, {ScalarType::Double})),
        step(dense<const int64_t>("step", step_, w, {}, {ScalarType::Long})),
        chain_ids(dense<const int64_t>("chains", chain_ids_, w, {chains}, {ScalarType::Long})),
        thermostat(dense<double>("thermostat", thermostat_, w, {chains}, {ScalarType::Double})),
        loss(dense<const double>("loss", loss_, w, {chains}, {ScalarType::Double})),
        alive(dense<uint8_t>("alive", alive_, w, {chains}, {ScalarType::Bool, ScalarType::Byte})),
        death_step(dense<int64_t>("death_step", death_step_, w, {chains}, {ScalarType::Long})),
        metrics(dense<double>("metrics", metrics_, w, {chains, 9}, {ScalarType::Double})),
        stochastic_rounding(stochastic) {
    STD_TORCH_CHECK(method.preconditioned == v.has_value(),
                    "v goes with the RMSprop methods and only them");
    STD_TORCH_CHECK(method.inert == momentum.has_value(),
                    "momentum goes with sghmc and sgnht and only them");
    STD_TORCH_CHECK(method.thermal == thermostat_.has_value(),
                    "thermostat goes with sgnht and only with it");
    STD_TORCH_CHECK(!stochastic || segments.empty() || !low.tensors.empty(),
                    "stochastic_rounding goes with low");
    char* square = dense<char>("v", v, w, {chains, row}, {w.scalar_type()});
    char* speed = dense<char>("momentum", momentum, w, {chains, row}, {w.scalar_type()});
    state = square ? square : speed;
  }

 private:
  static LangevinMethod read_method(const std::string& name, double alpha, double eps,
                                    double friction, int64_t seed, int64_t stream) {
    STD_TORCH_CHECK(stream >= 0 && stream < 256, "stream must be in 0..255");
    const bool corrected = name == "rmsprop_sgld_hh", thermal = name == "sgnht";
    const bool preconditioned = corrected || name == "rmsprop_sgld";
    const bool inert = thermal || name == "sghmc";
    STD_TORCH_CHECK(preconditioned || inert || name == "sgld", "unknown method");
    STD_TORCH_CHECK(!inert || (friction > 0 && friction <= 1), "friction must be in (0, 1]");
    STD_TORCH_CHECK(!preconditioned || (alpha >= 0 && alpha <= 1 && eps >= 0),
                    "rms_alpha must be in [0, 1] and rms_eps >= 0");
    return {preconditioned,
            corrected,
            inert,
            thermal,
            alpha,
            eps,
            friction,
            static_cast<uint64_t>(seed),
            static_cast<uint32_t>(stream)};
  }
};

}  // namespace sltfast
