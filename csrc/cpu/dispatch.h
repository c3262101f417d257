// Which compiled instruction set runs.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace sltfast {

// The kernels in use: the widest that this CPU runs, unless `use_isa` chose another.
const Kernels& kernels();

// Names of the instruction sets compiled in, narrowest first.
std::vector<std::string> compiled_isas();
// Those of them that this CPU runs.
std::vector<std::string> runnable_isas();
// Makes `kernels()` return `isa`; throws std::invalid_argument if it cannot run here.
void use_isa(const std::string& isa);

}  // namespace sltfast
