// Concatenation of channels-last feature maps.
#include "kernels.h"

void concat_pixels(const std::vector<Part>& parts, int64_t pixels, int64_t row, char* to) {
  parallel(pixels, std::max<int64_t>(1, 4 * kGrain / std::max<int64_t>(1, row)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* at = to + i * row;
      for (const Part& part : parts) {
        memcpy(at, part.data + i * part.pixel, part.bytes);
        at += part.bytes;
      }
    }
  });
}
