// Four neighbours of a row in float64, whatever the row holds, wherever it starts and ends.
#pragma once

#include "device.cuh"

namespace sltfast {

// Four neighbours from p, of which `left` are there.
template <class T>
__device__ __forceinline__ void read_four(const T* p, int64_t left, bool fours, double (&out)[4]) {
  if (fours && left >= 4) {
    const Four<T> x = load_four(p);
    for (int i = 0; i < 4; ++i) out[i] = static_cast<double>(x.x[i]);
  } else {
    for (int i = 0; i < 4; ++i) out[i] = i < left ? static_cast<double>(p[i]) : 0;
  }
}
template <class T>
__device__ __forceinline__ void write_four(T* p, int64_t left, bool fours, const double (&x)[4]) {
  if (fours && left >= 4) {
    Four<T> out;
    for (int i = 0; i < 4; ++i) out.x[i] = static_cast<T>(x[i]);
    store_four(p, out);
  } else {
    for (int i = 0; i < 4; ++i)
      if (i < left) p[i] = static_cast<T>(x[i]);
  }
}

}  // namespace sltfast
