// Which compiled instruction set runs.
#pragma once

#include <string>
#include <vector>

namespace sltfast {

enum class Isa { generic, avx2, avx512 };

// The instruction set in use: the widest that this CPU runs, unless `use_isa` chose another.
Isa isa_in_use();

// Names of the instruction sets compiled in, narrowest first.
std::vector<std::string> compiled_isas();
// Those of them that this CPU runs.
std::vector<std::string> runnable_isas();
const char* name_of(Isa isa);
// Makes `isa` the one in use; throws std::invalid_argument if it cannot run here.
void use_isa(const std::string& isa);

// The functions of one kernel file for the instruction set in use. A file `x_kernel.cpp` defines
// `const Table& SLT_ISA_kernels(const Table*)` once for each; the argument only picks the overload.
template <class Table>
const Table& kernels() {
  constexpr const Table* tag = nullptr;
  switch (isa_in_use()) {
#if defined(SLT_HAS_AVX512)
    case Isa::avx512:
      return avx512_kernels(tag);
#endif
#if defined(SLT_HAS_AVX2)
    case Isa::avx2:
      return avx2_kernels(tag);
#endif
    default:
      return generic_kernels(tag);
  }
}

}  // namespace sltfast
