// Sums of outer products: what the gradients of weights are.
#pragma once
#include "lanes.h"

namespace LEVEL {

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

// The sums for `rows` values of x and `columns` of y, multiples of sixteen, added to those that are there unless they are the first.
void multiply_outer(const Outer<float>& o, int64_t rows, int64_t columns);
void multiply_outer(const Outer<uint32_t>& o, int64_t rows, int64_t columns);

}  // namespace LEVEL
