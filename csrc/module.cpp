// The Python module sltfast._C: build facts, and Philox words and normals for tests. Importing it
// registers the ops.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/floors.h"
#include "cpu/langevin_kernel.h"
#include "cpu/token_loss_kernel.h"
#include "numerics/philox.h"
#include "numerics/scalar.h"

namespace py = pybind11;

namespace {

std::string torch_target() {
  constexpr unsigned long long target = TORCH_TARGET_VERSION;
  return std::to_string(target >> 56) + "." + std::to_string(target >> 48 & 0xFF);
}

py::dict build_facts() {
  py::dict facts;
  facts["version"] = SLTFAST_VERSION;
  facts["isa_compiled"] = sltfast::compiled_isas();
  facts["isa_runnable"] = sltfast::runnable_isas();
  facts["isa"] = sltfast::name_of(sltfast::isa_in_use());
  facts["cuda_archs"] = std::vector<int>{SLTFAST_CUDA_ARCHS};
  facts["torch_target"] = torch_target();
  facts["compiler"] = __VERSION__;
  return facts;
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  using One = sltfast::Scalar<float>;
  const sltfast::PhiloxStream<One> stream(key[0] | static_cast<uint64_t>(key[1]) << 32, counter[1],
                                          counter[2], counter[3]);
  const uint64_t first[1] = {counter[0]};
  uint64_t words[4][1];
  sltfast::philox_words<One, 1>(stream, first, words);
  std::array<uint32_t, 4> out;
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint32_t>(words[i][0]);
  return out;
}

py::array_t<float> normals(uint64_t seed, uint32_t stream, uint32_t step, uint32_t chain,
                           int64_t first, int64_t count) {
  if (first < 0 || count < 0)
    throw py::value_error("first and count must be >= 0, got " + std::to_string(first) + " and " +
                          std::to_string(count));
  sltfast::ChainStep c{};
  c.seed = seed, c.stream = stream, c.step = step, c.chain = chain;
  py::array_t<float> out(count);
  sltfast::kernels<sltfast::LangevinKernels>().normals(c, first, count, out.mutable_data());
  return out;
}

using Floats = py::array_t<float, py::array::c_style>;

Floats each(void (*function)(const float*, int64_t, float*), const Floats& x) {
  Floats out(x.size());
  function(x.data(), x.size(), out.mutable_data());
  return out;
}

void touch_operands(Floats w, Floats g, Floats anchor, std::optional<Floats> v) {
  if (g.size() != w.size() || anchor.size() != w.size() || (v && v->size() != w.size()))
    throw py::value_error("all arrays must be as long as w, " + std::to_string(w.size()));
  sltfast::touch_operands(w.mutable_data(), g.data(), anchor.data(),
                          v ? v->mutable_data() : nullptr, w.size());
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of sltfast; importing this registers torch.ops.sltfast.native_*.";
  m.def("build_facts", &build_facts, "What was compiled in, and the instruction set in use.");
  m.def("use_isa", &sltfast::use_isa, py::arg("isa"),
        "Run the kernels compiled for `isa`; ValueError if this CPU cannot.");
  m.def("philox", &philox, py::arg("counter"), py::arg("key"),
        "The four words of Philox4x32-10 of a counter (4 words) and a key (2 words).");
  m.def("normals", &normals, py::arg("seed"), py::arg("stream"), py::arg("step"), py::arg("chain"),
        py::arg("first"), py::arg("count"),
        "float32 normals of elements first .. first + count − 1.");
  m.def(
      "exponential",
      [](const Floats& x) {
        return each(sltfast::kernels<sltfast::TokenLossKernels>().exponential, x);
      },
      py::arg("x").noconvert(), "e^x of float32 [n], as token_loss computes it.");
  m.def(
      "hyperbolic_tangent",
      [](const Floats& x) {
        return each(sltfast::kernels<sltfast::TokenLossKernels>().hyperbolic_tangent, x);
      },
      py::arg("x").noconvert(), "tanh x of float32 [n], as token_loss computes it.");
  m.def("touch_operands", &touch_operands, py::arg("w").noconvert(), py::arg("g").noconvert(),
        py::arg("anchor").noconvert(), py::arg("v").noconvert() = py::none(),
        "Benchmark floor: the memory traffic of a Langevin step, in place.");
  m.def("draw_and_discard", &sltfast::draw_and_discard, py::arg("count"),
        "Benchmark floor: the normals of a Langevin step, kept in cache.");
}
