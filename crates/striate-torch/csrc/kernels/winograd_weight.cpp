// The weights of Winograd's convolution at the 36 points where they are multiplied.
#include "winograd.h"

namespace LEVEL {

namespace {

// G g for three values.
ALWAYS_INLINE void weight_to_points(const Lanes* g, int64_t step, Lanes* t, int64_t to) {
  Lanes g0 = g[0], g1 = g[step], g2 = g[2 * step];
  Lanes ends = (g0 + g2) * (-1.0f / 6), middle = g1 * (1.0f / 6), ends2 = g0 * (1.0f / 24) + g2 * (1.0f / 6), middle2 = g1 * (1.0f / 12);
  t[0] = g0 * 0.25f;
  t[to] = ends - middle;
  t[2 * to] = ends + middle;
  t[3 * to] = ends2 + middle2;
  t[4 * to] = ends2 - middle2;
  t[5 * to] = g2;
}

}  // namespace

TARGET void transform_weight(const Kernels& kernels, int64_t depth, int64_t column, int64_t width, float* to, int64_t point_step) {
  for (int64_t c = 0; c < width; c += kLanes) {
    Lanes g[9][kLanes];  // of each place, the rows
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        Lanes(&rows)[kLanes] = g[3 * i + j];
        const float* from = kernels.at(depth, column + c) + i * kernels.row_step + j * kernels.step;
        if (kernels.column_step == 1) {
          for (int64_t r = 0; r < kLanes; ++r) rows[r] = load(from + r * kernels.depth_step);
        } else if (kernels.depth_step == 1) {
          for (int64_t lane = 0; lane < kLanes; ++lane) rows[lane] = load(from + lane * kernels.column_step);
          transpose(rows);
        } else {
          for (int64_t r = 0; r < kLanes; ++r)
            for (int64_t lane = 0; lane < kLanes; ++lane) rows[r][lane] = from[r * kernels.depth_step + lane * kernels.column_step];
        }
      }
    for (int64_t r = 0; r < kLanes; ++r) {
      Lanes t[18], points[kPoints];
      for (int64_t j = 0; j < 3; ++j) weight_to_points(&g[j][r], 3 * kLanes, t + j, 3);
      for (int64_t i = 0; i < kIn; ++i) weight_to_points(t + 3 * i, 1, points + i * kIn, 1);
      for (int64_t p = 0; p < kPoints; ++p) store(to + p * point_step + r * width + c, points[p]);
    }
  }
}

void winograd_weight(const Kernels& kernels, int64_t depth, int64_t columns, float* to) {
  const int64_t points = depth * columns, panels = (columns + kPanel - 1) / kPanel, blocks = depth / kLanes;
  parallel(panels * blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t column = i / blocks * kPanel, width = std::min(kPanel, columns - column), row = i % blocks * kLanes;
      transform_weight(kernels, row, column, width, to + column * depth + row * width, points);
    }
  });
}

}  // namespace LEVEL
