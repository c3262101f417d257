#include "dispatch.h"

#include <atomic>
#include <stdexcept>

namespace sltfast {
namespace {

struct Level {
  Isa isa;
  bool runs;
};

// Narrowest first. `runs` asks for everything the kernel files are compiled with.
const std::vector<Level>& levels() {
  static const std::vector<Level> all = [] {
    std::vector<Level> out{{Isa::generic, true}};
#if defined(SLT_HAS_AVX2)
    out.push_back({Isa::avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
#if defined(SLT_HAS_AVX512)
    out.push_back({Isa::avx512,
                   __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
    return out;
  }();
  return all;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{[] {
    Isa widest = Isa::generic;
    for (const Level& level : levels())
      if (level.runs) widest = level.isa;
    return widest;
  }()};
  return isa;
}

}  // namespace

Isa isa_in_use() { return current().load(std::memory_order_relaxed); }

const char* name_of(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "generic";
}

std::vector<std::string> compiled_isas() {
  std::vector<std::string> out;
  for (const Level& level : levels()) out.push_back(name_of(level.isa));
  return out;
}

std::vector<std::string> runnable_isas() {
  std::vector<std::string> out;
  for (const Level& level : levels())
    if (level.runs) out.push_back(name_of(level.isa));
  return out;
}

void use_isa(const std::string& isa) {
  for (const Level& level : levels())
    if (level.runs && isa == name_of(level.isa)) {
      current().store(level.isa, std::memory_order_relaxed);
      return;
    }
  std::string allowed;
  for (const std::string& name : runnable_isas()) allowed += (allowed.empty() ? "" : ", ") + name;
  throw std::invalid_argument("isa must be one of " + allowed + ", got '" + isa + "'");
}

}  // namespace sltfast
