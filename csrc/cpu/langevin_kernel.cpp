// The Langevin step of one piece of one chain. Compiled once for each instruction set (SLT_ISA),
// without torch and without std templates: nothing here may be merged by the linker with code for
// another instruction set.
#include "langevin_kernel.h"

#include "../numerics/gaussian.h"
#include "../numerics/langevin.h"
#include "../numerics/rounding.h"
#include "lanes.h"

namespace sltfast {
inline namespace SLT_ISA {
namespace {

// Batches of 4·width normals drawn side by side: more of them draw faster alone, but leave the
// update behind.
constexpr int kTogether = Lanes::width == 1 ? 1 : 2;
constexpr int64_t kChunk = 1024;  // coordinates whose noise and operands stay in L1

enum class Rule { plain, preconditioned, momentum };

template <class T, T B>
struct Constant {
  constexpr operator T() const { return B; }
};

template <class T>
struct Scratch {
  // One group of four normals a coordinate at worst (run = 1), and a whole batch past the end.
  alignas(64) float normals[4 * (kChunk + 16)];
  alignas(64) uint32_t groups[kChunk + 16];
  uint8_t all_move[kChunk];  // the mask of a box without one
  alignas(64) T noise[kChunk], grad[kChunk], anchor[kChunk];
  alignas(64) float words[kChunk];  // 32 random bits each
};

int64_t element_of(const Piece& p, int64_t i) {
  return p.element + i / p.run * p.stride + i % p.run;
}

// Elements from here to the next change of the high counter word.
int64_t same_high_word(int64_t element) { return (((element >> 34) + 1) << 34) - element; }

PhiloxStream<Lanes> stream_at(const ChainStep& c, uint32_t tag, int64_t element) {
  return {c.seed, static_cast<uint32_t>(element >> 34) | tag << 24, c.step, c.chain};
}

// What a counter gives its four elements: normals of the step's stream, or words that round.
struct Normals {
  static uint32_t tag(const ChainStep& c) { return c.stream; }
  template <int N>
  static SLT_HD void draw(const PhiloxStream<Lanes>& stream, const uint32_t* groups, float* out) {
    normals_of_groups<Lanes, N>(stream, groups, out);
  }
};
struct Words {
  static uint32_t tag(const ChainStep&) { return kStreamRounding; }
  template <int N>
  static SLT_HD void draw(const PhiloxStream<Lanes>& stream, const uint32_t* groups, float* out) {
    Lanes::Word x[4 * N];
    words_of_groups<Lanes, N>(stream, groups, x);
    const auto carry = [&](int i) { return Lanes::from_bits((Lanes::Int)x[i]); };
    for (int i = 0; i < 4 * N; i += 4)
      Lanes::store_groups(out + i * Lanes::width, carry(i), carry(i + 1), carry(i + 2),
                          carry(i + 3));
  }
};

// Calls visit(i, element, n) for the stretches of consecutive elements among coordinates [first,
// first + count) of a segment; i counts from first. Stops before an element with another high
// counter word; returns the count.
template <class Visit>
SLT_HD int64_t visit_stretches(const Piece& p, int64_t first, int64_t count, const Visit& visit) {
  int64_t element = element_of(p, first), left = p.run - first % p.run;
  const int64_t high = element >> 34;
  int64_t i = 0;
  while (i < count && element >> 34 == high) {
    int64_t n = left < count - i ? left : count - i;
    if (n > same_high_word(element)) n = same_high_word(element);
    visit(i, element, n);
    i += n, element += n, left -= n;
    if (left == 0) left = p.run, element += p.stride - p.run;
  }
  return i;
}

// Numbers of coordinates [first, first + count) of a segment: the groups they touch are drawn
// together, then the coordinates picked.
template <class Kind, class T>
void gather(const ChainStep& c, const Piece& p, int64_t first, int64_t count, T* out,
            uint32_t* groups, float* drawn) {
  while (count > 0) {
    int64_t touched = 0, last = -1;
    const int64_t n = visit_stretches(p, first, count, [&](int64_t, int64_t element, int64_t n) {
      int64_t group = element >> 2;
      group += group == last;
      last = (element + n - 1) >> 2;
      for (; group <= last; ++group) groups[touched++] = static_cast<uint32_t>(group);
    });
    const PhiloxStream<Lanes> stream = stream_at(c, Kind::tag(c), element_of(p, first));
    int64_t i = 0;
    for (; i + kTogether * Lanes::width <= touched; i += kTogether * Lanes::width)
      Kind::template draw<kTogether>(stream, groups + i, drawn + 4 * i);
    for (; i < touched; i += Lanes::width)
      Kind::template draw<1>(stream, groups + i, drawn + 4 * i);
    int64_t slot = 0;
    last = -1;
    visit_stretches(p, first, n, [&](int64_t at, int64_t element, int64_t n) {
      slot -= element >> 2 == last;
      const float* from = drawn + 4 * slot + (element & 3);
      for (int64_t j = 0; j < n; ++j) out[at + j] = static_cast<T>(from[j]);
      last = (element + n - 1) >> 2;
      slot += last - (element >> 2) + 1;
    });
    first += n, out += n, count -= n;
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
void round_copy(const T* w, int64_t n, const ChainStep& c, const Piece& p, int64_t offset,
                Scratch<T>& s) {
  uint16_t* to = static_cast<uint16_t*>(p.low) + offset;
  if (p.stochastic_rounding) {
    gather<Words>(c, p, p.first + offset, n, s.words, s.groups, s.normals);
    if (p.low_dtype == Dtype::bf16)
      for (int64_t i = 0; i < n; ++i)
        to[i] = to_bfloat16(static_cast<float>(w[i]), float_word(s.words[i]));
    else
      for (int64_t i = 0; i < n; ++i)
        to[i] = to_float16(static_cast<float>(w[i]), float_word(s.words[i]));
  } else if (p.low_dtype == Dtype::bf16) {
    for (int64_t i = 0; i < n; ++i) to[i] = to_bfloat16(static_cast<float>(w[i]));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = to_float16(static_cast<float>(w[i]));
  }
}

// Operands of `count` coordinates, all of the master's dtype.
template <class T>
struct Chunk {
  T* w;
  T* state;  // v or m, if any
  const T *grad, *anchor, *noise;
  const uint8_t* mask;  // null: no mask and no box
  int64_t count;
};

// The noise of a chunk of consecutive elements, drawn just before the update reads it: divisions
// and cache misses of the update run under the arithmetic of the next normals.
struct Draw {
  PhiloxStream<Lanes> stream;
  const uint32_t* groups;
  float* out;

  template <int N>
  SLT_HD void take(int64_t i) const {
    normals_of_groups<Lanes, N>(stream, groups + i / 4, out + i);
  }
};
struct Drawn {
  template <int N>
  SLT_HD void take(int64_t) const {}
};

// What the update reads kAhead coordinates later; past the end of a tensor it does nothing.
template <class L, Rule rule>
SLT_HD void fetch_ahead(const Chunk<typename L::Value>& k, int64_t i, int64_t n) {
  constexpr int64_t kAhead = 512, kLine = 64 / sizeof(typename L::Value);
  for (int64_t j = i + kAhead; j < i + kAhead + n; j += kLine) {
    __builtin_prefetch(k.w + j, 1);
    __builtin_prefetch(k.grad + j);
    __builtin_prefetch(k.anchor + j);
    if constexpr (rule != Rule::plain) __builtin_prefetch(k.state + j, 1);
  }
}

template <class L, Rule rule, bool Measured, bool Confined>
SLT_HD typename L::Mask move_lanes(const Chunk<typename L::Value>& k, int64_t i,
                                   const Langevin<L>& step, Moments<L>& moments,
                                   typename L::Real& heat) {
  using Real = typename L::Real;
  const Real w = L::load(k.w + i), anchor = L::load(k.anchor + i);
  Real g = L::load(k.grad + i), xi = L::load(k.noise + i), distance = w - anchor, weight = w;
  typename L::Mask stays{};
  if constexpr (Confined) {
    // zeroed, not only kept: what is not finite where nothing moves must not count
    const Real zero = L::broadcast(0);
    stays = L::load_zeros(k.mask + i);
    g = L::select(stays, zero, g), xi = L::select(stays, zero, xi);
    distance = L::select(stays, zero, distance), weight = L::select(stays, zero, w);
  }
  const Real prior = step.prior(weight, distance);
  Real moved;
  typename L::Mask broken;
  if constexpr (rule == Rule::preconditioned) {
    const Real v = L::load(k.state + i);
    Real running = v;
    if constexpr (Confined) running = L::select(stays, L::broadcast(0), v);
    const Real mean = step.mean_square(running, g);
    const Real root = step.root_of_preconditioner(mean);
    moved = weight + step.preconditioned_increment(g, prior, xi, root);
    broken = L::either(L::not_finite(moved), L::not_finite(mean));
    L::store(k.state + i, L::select(L::either(broken, stays), v, mean));
    if constexpr (Measured) moments.add(g, prior, weight, distance, xi, root);
    if constexpr (Confined) moved = step.boxed(moved, anchor);
  } else {
    Real increment = step.plain_increment(g, weight, distance, xi), m;
    if constexpr (rule == Rule::momentum) {
      m = L::load(k.state + i);
      if constexpr (Confined)
        increment = step.carried(L::select(stays, L::broadcast(0), m), increment);
      else
        increment = step.carried(m, increment);
      heat = L::fma(increment, increment, heat);
    }
    moved = weight + increment;
    broken = L::not_finite(moved);
    if constexpr (Measured) moments.add(g, prior, weight, distance, xi);
    if constexpr (Confined) {
      const Real held = step.boxed(moved, anchor);
      if constexpr (rule == Rule::momentum)
        increment = L::select(L::differ(held, moved), -increment, increment);
      moved = held;
    }
    if constexpr (rule == Rule::momentum)
      L::store(k.state + i, L::select(L::either(broken, stays), m, increment));
  }
  L::store(k.w + i, L::select(L::either(broken, stays), w, moved));
  return broken;
}

template <class L, Rule rule, bool Measured, bool Confined, class Noise>
bool move_chunk(const Chunk<typename L::Value>& k, const ChainStep& c, const Noise& draw,
                double* sums, double* heat) {
  using One = Scalar<typename L::Value>;
  const Langevin<L> step(c);
  Moments<L> moments;
  typename L::Real squares = L::broadcast(0);
  typename L::Mask broken{};
  int64_t i = 0;
  const auto advance = [&](auto batches) {
    constexpr int64_t n = 4 * L::width * batches;
    for (; i + n <= k.count; i += n) {
      draw.template take<batches>(i);
#pragma GCC unroll 4
      for (int64_t j = i; j < i + n; j += L::width) {
        fetch_ahead<L, rule>(k, j, L::width);
        broken = L::either(broken,
                           move_lanes<L, rule, Measured, Confined>(k, j, step, moments, squares));
      }
    }
  };
  advance(Constant<int, kTogether>{});
  advance(Constant<int, 1>{});
  if (i < k.count) draw.template take<1>(i);
  for (; i + L::width <= k.count; i += L::width)
    broken =
        L::either(broken, move_lanes<L, rule, Measured, Confined>(k, i, step, moments, squares));
  bool finite = !L::any(broken);
  const Langevin<One> tail_step(c);
  Moments<One> tail;
  typename One::Real tail_squares = 0;
  for (; i < k.count; ++i)
    finite &= !move_lanes<One, rule, Measured, Confined>(k, i, tail_step, tail, tail_squares);
  if constexpr (Measured) {
    moments.flush(sums, rule == Rule::preconditioned);
    tail.flush(sums, rule == Rule::preconditioned);
  }
  if constexpr (rule == Rule::momentum)
    if (heat) heat[0] += L::sum(squares) + One::sum(tail_squares);
  return finite;
}

template <class L, class Noise>
bool move_any(Rule rule, const Chunk<typename L::Value>& k, const ChainStep& c, const Noise& draw,
              double* sums, double* heat) {
  const auto confine = [&](auto rule, auto measured) {
    return k.mask ? move_chunk<L, rule, measured, true>(k, c, draw, sums, heat)
                  : move_chunk<L, rule, measured, false>(k, c, draw, sums, heat);
  };
  const auto measure = [&](auto rule) {
    return sums ? confine(rule, Constant<bool, true>{}) : confine(rule, Constant<bool, false>{});
  };
  switch (rule) {
    case Rule::preconditioned:
      return measure(Constant<Rule, Rule::preconditioned>{});
    case Rule::momentum:
      return measure(Constant<Rule, Rule::momentum>{});
    default:
      return measure(Constant<Rule, Rule::plain>{});
  }
}

int64_t count_moving(const uint8_t* mask, int64_t n) {
  if (!mask) return n;
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += mask[i] != 0;
  return count;
}

Draw draw_from(const ChainStep& c, int64_t element, int64_t count, Scratch<float>& s) {
  const uint32_t group = static_cast<uint32_t>(element >> 2);
  for (int64_t i = 0; i < (count + 6) / 4; ++i) s.groups[i] = group + static_cast<uint32_t>(i);
  return {stream_at(c, c.stream, element), s.groups, s.normals};
}

template <class L>
bool step_piece(const Piece& p, const ChainStep& c, double* sums, double* heat) {
  using T = typename L::Value;
  Scratch<T> s;
  const Rule rule = p.v ? Rule::preconditioned : p.momentum ? Rule::momentum : Rule::plain;
  T* state = static_cast<T*>(p.v ? p.v : p.momentum);
  if (heat) heat[1] += static_cast<double>(count_moving(p.mask, p.count));
  const bool boxed = c.box < __builtin_inf();
  if (boxed) __builtin_memset(s.all_move, 1, sizeof s.all_move);
  bool finite = true;
  for (int64_t offset = 0, n; offset < p.count; offset += n) {
    n = p.count - offset < kChunk ? p.count - offset : kChunk;
    const int64_t element = element_of(p, p.first + offset), position = element & 3;
    const int64_t left = p.run - (p.first + offset) % p.run;
    // Drawn as the update goes: consecutive elements, from the start of a group on or inside one.
    const bool inline_noise =
        sizeof(T) == 4 && p.noise.dtype == Dtype::none && n <= left && n <= same_high_word(element);
    if (inline_noise && position != 0 && n > 4 - position) n = 4 - position;
    Chunk<T> k;
    k.w = static_cast<T*>(p.w) + offset;
    k.state = state ? state + offset : nullptr;
    k.grad = operand(p.grad, offset, n, s.grad);
    k.anchor = operand(p.anchor, offset, n, s.anchor);
    k.mask = p.mask ? p.mask + offset : boxed ? s.all_move : nullptr;
    k.count = n;
    if constexpr (sizeof(T) == 4) {
      if (inline_noise) {
        k.noise = s.normals + position;
        finite &= move_any<L>(rule, k, c, draw_from(c, element, n, s), sums, heat);
      }
    }
    if (!inline_noise) {
      k.noise = s.noise;
      if (p.noise.dtype != Dtype::none)
        k.noise = operand(p.noise, offset, n, s.noise);
      else
        gather<Normals>(c, p, p.first + offset, n, s.noise, s.groups, s.normals);
      finite &= move_any<L>(rule, k, c, Drawn{}, sums, heat);
    }
    if (p.low) round_copy(k.w, n, c, p, offset, s);
  }
  return finite;
}

void normals(const ChainStep& c, int64_t first, int64_t count, float* out) {
  Scratch<float> s;
  Piece p{};
  p.element = first, p.run = INT64_MAX;
  for (int64_t offset = 0; offset < count; offset += kChunk) {
    const int64_t n = count - offset < kChunk ? count - offset : kChunk;
    gather<Normals>(c, p, offset, n, out + offset, s.groups, s.normals);
  }
}

}  // namespace
}  // namespace SLT_ISA

#define SLT_KERNELS_OF_(isa) isa##_kernels
#define SLT_KERNELS_OF(isa) SLT_KERNELS_OF_(isa)

const LangevinKernels& SLT_KERNELS_OF(SLT_ISA)(const LangevinKernels*) {
  static const LangevinKernels kernels{step_piece<Lanes>, step_piece<Scalar<double>>, normals};
  return kernels;
}

}  // namespace sltfast
