// What lets one definition serve every instruction set, host and device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SLT_HD __host__ __device__ __forceinline__
#define SLT_UNROLL(times) _Pragma("unroll")
#else
#define SLT_HD inline __attribute__((always_inline))
#define SLT_PRAGMA(text) _Pragma(#text)
#define SLT_UNROLL(times) SLT_PRAGMA(GCC unroll times)
#endif

// Each translation unit that is compiled for an instruction set of its own names it here, so that
// the linker never merges two compilations of one template.
#ifndef SLT_ISA
#define SLT_ISA generic
#endif
