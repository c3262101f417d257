// Values in memory whose type is known when the program runs.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace sltfast {

enum class Dtype : uint8_t { none, f32, f64, bf16, f16 };

struct Values {
  const void* data = nullptr;
  Dtype dtype = Dtype::none;
};

// none counts as one byte: a mask's.
SLT_HD int64_t size_of(Dtype dtype) {
  return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : dtype == Dtype::none ? 1 : 2;
}

}  // namespace sltfast
