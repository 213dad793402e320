// Values as bytes, and back.
#include "lanes.h"

namespace LEVEL {

namespace {

TARGET void quantize_some(const float* from, int64_t first, int64_t last, st_scale scale, uint8_t* to) {
  const float inverse = 1 / scale.step, zero = scale.zero_point;
  for (int64_t i = first; i < last; ++i) {
    float value = from[i] * inverse + zero;
    value = value > 0 ? value : 0;
    value = value < 255 ? value : 255;
    to[i] = static_cast<uint8_t>(static_cast<int32_t>(value + 0.5f));
  }
}

TARGET void dequantize_some(const uint8_t* from, int64_t first, int64_t last, st_scale scale, float* to) {
  const float step = scale.step;
  const int32_t zero = scale.zero_point;
  for (int64_t i = first; i < last; ++i) to[i] = step * static_cast<float>(from[i] - zero);
}

}  // namespace

void quantize(const float* from, int64_t count, st_scale scale, uint8_t* to) {
  parallel(count, kGrain, [&](int64_t first, int64_t last) { quantize_some(from, first, last, scale, to); });
}

void dequantize(const uint8_t* from, int64_t count, st_scale scale, float* to) {
  parallel(count, kGrain, [&](int64_t first, int64_t last) { dequantize_some(from, first, last, scale, to); });
}

}  // namespace LEVEL
