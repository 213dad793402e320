// What Winograd's convolution shares with its gradient.
#pragma once
#include "lanes.h"

namespace LEVEL {

// The bytes between the parts where all threads share each part of many tiles.
constexpr int64_t kSharedCache = 12 << 20;

// Transforms tile number `tile` of all channels into `points`, which lie `step` apart.
void transform(const float* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step);
void transform(const uint16_t* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step);

}  // namespace LEVEL
