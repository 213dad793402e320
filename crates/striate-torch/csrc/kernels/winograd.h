// What Winograd's convolution shares with its gradient.
#pragma once
#include "lanes.h"

namespace LEVEL {

// The bytes between the parts where all threads share each part of many tiles.
constexpr int64_t kSharedCache = 12 << 20;

// Transforms tile number `tile` of all channels into `points`, which lie `step` apart.
void transform(const float* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step);
void transform(const uint16_t* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step);

// Transforms as many rows of a panel as a vector has values: what the values from `depth` on add to `width` columns from `column` on. Rows lie `width` apart,
// points `point_step`.
void transform_weight(const Kernels& kernels, int64_t depth, int64_t column, int64_t width, float* to, int64_t point_step);

}  // namespace LEVEL
