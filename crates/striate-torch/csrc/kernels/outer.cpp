#include "outer.h"

namespace LEVEL {

namespace {

template <int64_t rows, int64_t vectors>
ALWAYS_INLINE void outer_block(const Outer<float>& o, int64_t row) {
  Lanes sums[rows][vectors] = {};
  if (!o.first) EACH_ROW EACH_VECTOR sums[r][v] = load(o.sums + (row + r) * o.width + v * kLanes);
  const uintptr_t fetched = o.fetched();
  EACH_ROW EACH_LINE __builtin_prefetch(o.sums + (row + rows + r) * o.width + v * kLanes, 1);  // those of the next rows
  for (int64_t t = 0; t < o.count; ++t) {
    // Blocks of narrower vectors are so short that this would cost more than it saves.
    if constexpr (kLanes == kLine) __builtin_prefetch(reinterpret_cast<const void*>(fetched + t * kLineBytes), 0, 2);
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
  EACH_ROW EACH_LINE __builtin_prefetch(o.sums + (row + rows + r) * o.width + v * kLanes, 1);  // those of the next rows
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

}  // namespace

#define OUTER_BLOCKS(vectors)                                                               \
  {                                                                                         \
    int64_t row = 0;                                                                        \
    for (; row + kRows <= rows; row += kRows) outer_block<kRows, vectors>(o, row);          \
    if (rows - row >= 4) outer_block<4, vectors>(o, row), row += 4;                         \
    if (rows - row >= 2) outer_block<2, vectors>(o, row);                                   \
  }

TARGET void multiply_outer(const Outer<float>& o, int64_t rows, int64_t columns) { FOR_COLUMNS(columns, OUTER_BLOCKS) }
#ifdef PAIRS
PAIRS void multiply_outer(const Outer<uint32_t>& o, int64_t rows, int64_t columns) { FOR_COLUMNS(columns, OUTER_BLOCKS) }
#else
void multiply_outer(const Outer<uint32_t>&, int64_t, int64_t) {}  // no image is bfloat16 then
#endif

}  // namespace LEVEL
