// What a Langevin step is measured against: its memory traffic with next to no arithmetic, and its
// noise without memory. For the benchmark.
#pragma once

#include <cstdint>

namespace sltfast {

// Reads w, g, anchor and writes w on every thread; with v also reads and writes v.
void touch_operands(float* w, const float* g, const float* anchor, float* v, int64_t count);

// Draws `count` normals on every thread into a buffer that stays in cache; returns one of them.
float draw_and_discard(int64_t count);

}  // namespace sltfast
