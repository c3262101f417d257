// The Langevin step of one piece of one chain. Compiled once for each instruction set (SLT_ISA),
// without torch and without std templates: nothing here may be merged by the linker with code for
// another instruction set.
#include "../numerics/gaussian.h"
#include "../numerics/langevin.h"
#include "../numerics/rounding.h"
#include "kernels.h"
#include "lanes.h"

namespace sltfast {
inline namespace SLT_ISA {
namespace {

constexpr int64_t kChunk = 1024;  // coordinates whose noise and operands stay in L1

template <class T>
struct Scratch {
  // One group of four normals a coordinate at worst (run = 1), and a whole batch past the end.
  alignas(64) float normals[4 * (kChunk + 16)];
  alignas(64) uint32_t groups[kChunk + 16];
  alignas(64) T noise[kChunk], grad[kChunk], anchor[kChunk];
};

void fill_normals(const ChainStep& c, uint32_t high, const uint32_t* groups, int64_t count,
                  float* out) {
  const PhiloxStream stream(c.seed, high | c.stream << 24, c.step, c.chain);
  for (int64_t i = 0; i < count; i += Lanes::width)
    normals_of_groups<Lanes>(stream, groups + i, out + 4 * i);
}

// Normals of elements [first, first + count); returns where they start in `normals`.
const float* run_normals(const ChainStep& c, int64_t first, int64_t count, uint32_t* groups,
                         float* normals) {
  int64_t group = first >> 2;
  const int64_t last = (first + count + 3) >> 2;
  float* out = normals;
  while (group < last) {
    // the high counter word is the same up to the next multiple of 2^32 groups
    const int64_t boundary = ((group >> 32) + 1) << 32;
    const int64_t n = (last < boundary ? last : boundary) - group;
    for (int64_t i = 0; i < n; ++i) groups[i] = static_cast<uint32_t>(group + i);
    fill_normals(c, static_cast<uint32_t>(group >> 32), groups, n, out);
    out += 4 * n;
    group += n;
  }
  return normals + (first & 3);
}

// Normals of coordinates [first, first + count) of a segment whose runs are shorter than the chunk:
// the groups of all runs are drawn together, then the coordinates picked.
template <class T>
void gather_normals(const ChainStep& c, const Piece& p, int64_t first, int64_t count,
                    Scratch<T>& s) {
  const auto element = [&p](int64_t i) { return p.element + i / p.run * p.stride + i % p.run; };
  for (int64_t start = 0; start < count;) {
    const int64_t high = element(first + start) >> 34;
    int64_t n = 0, last = -1, i = start;
    for (; i < count; ++i) {
      const int64_t e = element(first + i);
      if (e >> 34 != high) break;
      if (e >> 2 != last) s.groups[n++] = static_cast<uint32_t>(last = e >> 2);
    }
    fill_normals(c, static_cast<uint32_t>(high), s.groups, n, s.normals);
    int64_t slot = -1;
    last = -1;
    for (int64_t j = start; j < i; ++j) {
      const int64_t e = element(first + j);
      if (e >> 2 != last) ++slot, last = e >> 2;
      s.noise[j] = static_cast<T>(s.normals[4 * slot + (e & 3)]);
    }
    start = i;
  }
}

template <class T>
void widen(const Values& from, int64_t offset, int64_t n, T* to) {
  if (from.dtype == Dtype::none) {
    for (int64_t i = 0; i < n; ++i) to[i] = 0;
  } else if (from.dtype == Dtype::f32) {
    const float* p = static_cast<const float*>(from.data) + offset;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(p[i]);
  } else if (from.dtype == Dtype::f64) {
    const double* p = static_cast<const double*>(from.data) + offset;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(p[i]);
  } else if (from.dtype == Dtype::bf16) {
    const uint16_t* p = static_cast<const uint16_t*>(from.data) + offset;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from_bfloat16(p[i]));
  } else {
    const uint16_t* p = static_cast<const uint16_t*>(from.data) + offset;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from_float16(p[i]));
  }
}

// The values themselves when they have the master's dtype, else widened into `scratch`.
template <class T>
const T* operand(const Values& from, int64_t offset, int64_t n, T* scratch) {
  if (from.dtype == (sizeof(T) == 4 ? Dtype::f32 : Dtype::f64))
    return static_cast<const T*>(from.data) + offset;
  widen(from, offset, n, scratch);
  return scratch;
}

template <class T>
const T* chunk_noise(const Piece& p, const ChainStep& c, int64_t offset, int64_t n, Scratch<T>& s) {
  if (p.noise.dtype != Dtype::none) return operand(p.noise, offset, n, s.noise);
  const int64_t i = p.first + offset;
  if (i % p.run + n > p.run) {
    gather_normals(c, p, i, n, s);
    return s.noise;
  }
  const int64_t first = p.element + i / p.run * p.stride + i % p.run;
  const float* normals = run_normals(c, first, n, s.groups, s.normals);
  if constexpr (sizeof(T) == 4) {
    return normals;
  } else {
    for (int64_t j = 0; j < n; ++j) s.noise[j] = normals[j];
    return s.noise;
  }
}

template <class T>
void round_copy(const T* w, int64_t n, const Piece& p, int64_t offset) {
  uint16_t* to = static_cast<uint16_t*>(p.low) + offset;
  if (p.low_dtype == Dtype::bf16)
    for (int64_t i = 0; i < n; ++i) to[i] = to_bfloat16(static_cast<float>(w[i]));
  else
    for (int64_t i = 0; i < n; ++i) to[i] = to_float16(static_cast<float>(w[i]));
}

// Operands of `count` coordinates, all of the master's dtype.
template <class T>
struct Chunk {
  T* w;
  T* v;
  const T *grad, *anchor, *noise;
  const uint8_t* mask;
  int64_t count;
};

template <class L, bool Preconditioned, bool Masked, bool Measured>
SLT_HD typename L::Mask move_lanes(const Chunk<typename L::Value>& k, int64_t i,
                                   const Langevin<L>& step, Moments<L>& moments) {
  using Real = typename L::Real;
  const Real w = L::load(k.w + i), anchor = L::load(k.anchor + i);
  Real g = L::load(k.grad + i), xi = L::load(k.noise + i), distance = w - anchor, weight = w;
  typename L::Mask moves = L::all();
  if constexpr (Masked) {
    // zeroed, not only kept: a NaN gradient where nothing moves must not count
    const Real zero = L::broadcast(0);
    moves = L::load_mask(k.mask + i);
    g = L::select(moves, g, zero), xi = L::select(moves, xi, zero);
    distance = L::select(moves, distance, zero), weight = L::select(moves, w, zero);
  }
  const Real prior = step.prior(weight, distance);
  Real moved;
  typename L::Mask finite;
  if constexpr (Preconditioned) {
    const Real v = L::load(k.v + i);
    const Real mean = step.mean_square(v, g);
    const Real root = step.root_of_preconditioner(mean);
    moved = w + step.increment(g, prior, xi, root);
    finite = L::both(L::finite(moved), L::finite(mean));
    L::store(k.v + i, L::select(L::both(finite, moves), mean, v));
    if constexpr (Measured) moments.add(g, prior, weight, distance, xi, root);
  } else {
    moved = w + step.increment(g, prior, xi);
    finite = L::finite(moved);
    if constexpr (Measured) moments.add(g, prior, weight, distance, xi);
  }
  L::store(k.w + i, L::select(L::both(finite, moves), step.boxed(moved, anchor), w));
  return finite;
}

template <class L, bool Preconditioned, bool Masked, bool Measured>
bool move_chunk(const Chunk<typename L::Value>& k, const ChainStep& c, double* sums) {
  using One = Scalar<typename L::Value>;
  const Langevin<L> step(c);
  Moments<L> moments;
  typename L::Mask finite = L::all();
  int64_t i = 0;
  for (; i + L::width <= k.count; i += L::width)
    finite = L::both(finite, move_lanes<L, Preconditioned, Masked, Measured>(k, i, step, moments));
  bool every = L::every(finite);
  const Langevin<One> tail_step(c);
  Moments<One> tail;
  for (; i < k.count; ++i)
    every &= move_lanes<One, Preconditioned, Masked, Measured>(k, i, tail_step, tail);
  if constexpr (Measured) {
    moments.flush(sums, Preconditioned);
    tail.flush(sums, Preconditioned);
  }
  return every;
}

template <class L, bool Preconditioned>
bool move_any(const Chunk<typename L::Value>& k, const ChainStep& c, double* sums) {
  if (k.mask)
    return sums ? move_chunk<L, Preconditioned, true, true>(k, c, sums)
                : move_chunk<L, Preconditioned, true, false>(k, c, sums);
  return sums ? move_chunk<L, Preconditioned, false, true>(k, c, sums)
              : move_chunk<L, Preconditioned, false, false>(k, c, sums);
}

template <class L>
bool step_piece(const Piece& p, const ChainStep& c, double* sums) {
  using T = typename L::Value;
  Scratch<T> s;
  bool finite = true;
  for (int64_t offset = 0; offset < p.count; offset += kChunk) {
    const int64_t n = p.count - offset < kChunk ? p.count - offset : kChunk;
    Chunk<T> k;
    k.w = static_cast<T*>(p.w) + offset;
    k.v = p.v ? static_cast<T*>(p.v) + offset : nullptr;
    k.noise = chunk_noise(p, c, offset, n, s);
    k.grad = operand(p.grad, offset, n, s.grad);
    k.anchor = operand(p.anchor, offset, n, s.anchor);
    k.mask = p.mask ? p.mask + offset : nullptr;
    k.count = n;
    finite &= k.v ? move_any<L, true>(k, c, sums) : move_any<L, false>(k, c, sums);
    if (p.low) round_copy(k.w, n, p, offset);
  }
  return finite;
}

void normals(const ChainStep& c, int64_t first, int64_t count, float* out) {
  alignas(64) uint32_t groups[kChunk + 16];
  alignas(64) float buffer[4 * (kChunk + 16)];
  for (int64_t offset = 0; offset < count; offset += kChunk) {
    const int64_t n = count - offset < kChunk ? count - offset : kChunk;
    const float* from = run_normals(c, first + offset, n, groups, buffer);
    for (int64_t i = 0; i < n; ++i) out[offset + i] = from[i];
  }
}

}  // namespace
}  // namespace SLT_ISA

#define SLT_KERNELS_OF_(isa) isa##_kernels
#define SLT_KERNELS_OF(isa) SLT_KERNELS_OF_(isa)
#define SLT_NAME_OF_(isa) #isa
#define SLT_NAME_OF(isa) SLT_NAME_OF_(isa)

const Kernels& SLT_KERNELS_OF(SLT_ISA)() {
  static const Kernels kernels{SLT_NAME_OF(SLT_ISA), step_piece<Lanes>, step_piece<Scalar<double>>,
                               normals};
  return kernels;
}

}  // namespace sltfast
