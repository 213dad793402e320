// Sums of outer products: what the gradients of weights are.
#pragma once
#include "lanes.h"

#include <utility>

constexpr int64_t kLineBytes = 64;

// Memory that is fetched while products are computed, a line of the cache for each of what is counted: two pieces, one after the other.
struct Ahead {
  struct Piece {
    uintptr_t begin, end;
  } now, then;

  uintptr_t take(int64_t lines, uintptr_t or_else) {
    if (now.begin >= now.end) now = std::exchange(then, {});
    return now.begin >= now.end ? or_else : std::exchange(now.begin, now.begin + lines * kLineBytes);
  }
};

// Two lists of values, [count, step] each, and the sums, over what is counted, of the products of one's with the other's. A value is a float, or the bits of
// two bfloat16, whose products are both added.
template <typename T>
struct Outer {
  const T *x, *y;
  int64_t x_step, y_step, count;
  float* sums;
  int64_t width;
  bool first;
  Ahead* ahead;  // nullptr for nothing

  uintptr_t fetched() const { return ahead == nullptr ? reinterpret_cast<uintptr_t>(y) : ahead->take(count, reinterpret_cast<uintptr_t>(y)); }
};

template <int64_t rows, int64_t vectors>
ALWAYS_INLINE void outer_block(const Outer<float>& o, int64_t row) {
  Lanes sums[rows][vectors] = {};
  if (!o.first) EACH_ROW EACH_VECTOR sums[r][v] = load(o.sums + (row + r) * o.width + v * kLanes);
  const uintptr_t fetched = o.fetched();
  EACH_ROW EACH_VECTOR __builtin_prefetch(o.sums + (row + rows + r) * o.width + v * kLanes, 1);  // those of the next rows
  for (int64_t t = 0; t < o.count; ++t) {
    __builtin_prefetch(reinterpret_cast<const void*>(fetched + t * kLineBytes), 0, 2);
    Lanes values[vectors];
    EACH_VECTOR values[v] = load(o.y + t * o.y_step + v * kLanes);
    EACH_ROW EACH_VECTOR sums[r][v] += o.x[t * o.x_step + row + r] * values[v];
  }
  EACH_ROW EACH_VECTOR store(o.sums + (row + r) * o.width + v * kLanes, sums[r][v]);
}

#ifdef PAIRS
template <int64_t rows, int64_t vectors>
PAIRS ALWAYS_INLINE void outer_block(const Outer<uint32_t>& o, int64_t row) {
  __m512 sums[rows][vectors] = {};
  if (!o.first) EACH_ROW EACH_VECTOR sums[r][v] = _mm512_loadu_ps(o.sums + (row + r) * o.width + v * kLanes);
  const uintptr_t fetched = o.fetched();
  EACH_ROW EACH_VECTOR __builtin_prefetch(o.sums + (row + rows + r) * o.width + v * kLanes, 1);  // those of the next rows
  for (int64_t t = 0; t < o.count; ++t) {
    __builtin_prefetch(reinterpret_cast<const void*>(fetched + t * kLineBytes), 0, 2);
    __m512i values[vectors];
    EACH_VECTOR values[v] = _mm512_loadu_si512(o.y + t * o.y_step + v * kLanes);
    EACH_ROW {
      const __m512i pairs = _mm512_set1_epi32(static_cast<int32_t>(o.x[t * o.x_step + row + r]));
      // GCC 12 moves sums about when it is given the intrinsic.
      EACH_VECTOR asm("vdpbf16ps %2, %1, %0" : "+v"(sums[r][v]) : "v"(pairs), "v"(values[v]));
    }
  }
  EACH_ROW EACH_VECTOR _mm512_storeu_ps(o.sums + (row + r) * o.width + v * kLanes, sums[r][v]);
}
#endif

#define OUTER_BLOCKS(vectors)                                                               \
  {                                                                                         \
    int64_t row = 0;                                                                        \
    for (; row + kRows <= rows; row += kRows) outer_block<kRows, vectors>(o, row);          \
    if (rows - row >= 4) outer_block<4, vectors>(o, row), row += 4;                         \
    if (rows - row >= 2) outer_block<2, vectors>(o, row);                                   \
  }
#define OUTER                            \
  switch (columns / kLanes) {            \
    case 4: OUTER_BLOCKS(4) break;       \
    case 3: OUTER_BLOCKS(3) break;       \
    case 2: OUTER_BLOCKS(2) break;       \
    default: OUTER_BLOCKS(1)             \
  }

// The sums for `rows` values of x and `columns` of y, multiples of sixteen, added to those that are there unless they are the first.
FOR_EACH_PROCESSOR static void multiply_outer(const Outer<float>& o, int64_t rows, int64_t columns) { OUTER }
#ifdef PAIRS
PAIRS static void multiply_outer(const Outer<uint32_t>& o, int64_t rows, int64_t columns) { OUTER }
#else
static void multiply_outer(const Outer<uint32_t>&, int64_t, int64_t) {}  // no image is bfloat16 then
#endif
#undef OUTER
#undef OUTER_BLOCKS
