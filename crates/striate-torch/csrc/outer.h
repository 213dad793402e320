// Sums of outer products: what the gradients of weights are.
#pragma once
#include "lanes.h"

// Two lists of values, [count, step] each, and the sums, over what is counted, of the products of one's with the other's.
struct Outer {
  const float *x, *y;
  int64_t x_step, y_step, count;
  float* sums;
  int64_t width;
  bool first;
};

template <int64_t rows, int64_t vectors>
ALWAYS_INLINE void outer_block(const Outer& o, int64_t row) {
  Lanes sums[rows][vectors] = {};
  if (!o.first)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t v = 0; v < vectors; ++v) sums[r][v] = load(o.sums + (row + r) * o.width + v * kLanes);
  for (int64_t t = 0; t < o.count; ++t) {
    Lanes values[vectors];
    for (int64_t v = 0; v < vectors; ++v) values[v] = load(o.y + t * o.y_step + v * kLanes);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t v = 0; v < vectors; ++v) sums[r][v] += o.x[t * o.x_step + row + r] * values[v];
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors; ++v) store(o.sums + (row + r) * o.width + v * kLanes, sums[r][v]);
}

template <int64_t vectors>
ALWAYS_INLINE void outer_blocks(const Outer& o, int64_t rows) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) outer_block<kRows, vectors>(o, row);
  // Channels come in sixteens.
  if (rows - row >= 4) outer_block<4, vectors>(o, row), row += 4;
  if (rows - row >= 2) outer_block<2, vectors>(o, row);
}

// The sums for `rows` values of x and `columns` of y, added to those that are there unless they are the first.
FOR_EACH_PROCESSOR static void multiply_outer(const Outer& o, int64_t rows, int64_t columns) {
  switch (columns / kLanes) {
    case 4: return outer_blocks<4>(o, rows);
    case 3: return outer_blocks<3>(o, rows);
    case 2: return outer_blocks<2>(o, rows);
    default: return outer_blocks<1>(o, rows);
  }
}
