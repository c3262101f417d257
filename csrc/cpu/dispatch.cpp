#include "dispatch.h"

#include <atomic>
#include <stdexcept>

namespace sltfast {
namespace {

struct Level {
  const Kernels* kernels;
  bool runs;
};

// Narrowest first. `runs` asks for everything the kernel file is compiled with.
const std::vector<Level>& levels() {
  static const std::vector<Level> all = [] {
    std::vector<Level> out{{&generic_kernels(), true}};
#if defined(SLT_HAS_AVX2)
    out.push_back(
        {&avx2_kernels(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
#if defined(SLT_HAS_AVX512)
    out.push_back({&avx512_kernels(),
                   __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
    return out;
  }();
  return all;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> kernels{[] {
    const Kernels* widest = nullptr;
    for (const Level& level : levels())
      if (level.runs) widest = level.kernels;
    return widest;
  }()};
  return kernels;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

std::vector<std::string> compiled_isas() {
  std::vector<std::string> out;
  for (const Level& level : levels()) out.push_back(level.kernels->name);
  return out;
}

std::vector<std::string> runnable_isas() {
  std::vector<std::string> out;
  for (const Level& level : levels())
    if (level.runs) out.push_back(level.kernels->name);
  return out;
}

void use_isa(const std::string& isa) {
  for (const Level& level : levels())
    if (level.runs && isa == level.kernels->name) {
      current().store(level.kernels, std::memory_order_relaxed);
      return;
    }
  std::string allowed;
  for (const std::string& name : runnable_isas()) allowed += (allowed.empty() ? "" : ", ") + name;
  throw std::invalid_argument("isa must be one of " + allowed + ", got '" + isa + "'");
}

}  // namespace sltfast
