// The gradient of the weight of Winograd's convolution. With y = A^T ((G g G^T) * (B^T d B)) A for a tile, that of the kernel g is
// G^T (sum over tiles of (B^T d B) * (A dy A^T)) G: again 36 matrix products, of values by tiles.
#include "outer.h"
#include "winograd.h"

namespace LEVEL {

namespace {

// Tiles that are multiplied at once, so that a panel of them stays in the nearest cache.
constexpr int64_t kTiles = 64;

// G^T p for six values.
ALWAYS_INLINE void weight_from_points(const Lanes* p, int64_t step, Lanes* g, int64_t to) {
  Lanes sum = p[step] + p[2 * step], difference = p[2 * step] - p[step];
  Lanes sum2 = p[3 * step] + p[4 * step], difference2 = p[3 * step] - p[4 * step];
  g[0] = p[0] * 0.25f - sum * (1.0f / 6) + sum2 * (1.0f / 24);
  g[to] = difference * (1.0f / 6) + difference2 * (1.0f / 12);
  g[2 * to] = (sum2 - sum) * (1.0f / 6) + p[5 * step];
}

// A y for four values.
ALWAYS_INLINE void gradient_to_points(const Lanes* y, int64_t step, Lanes* t, int64_t to) {
  Lanes y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
  Lanes even = y0 + y2, odd = y1 + y3, even2 = y0 + 4.0f * y2, odd2 = 2.0f * y1 + 8.0f * y3;
  t[0] = y0;
  t[to] = even + odd;
  t[2 * to] = even - odd;
  t[3 * to] = even2 + odd2;
  t[4 * to] = even2 - odd2;
  t[5 * to] = y3;
}

// Transforms tile number `tile` of a gradient of the output into `points`, which lie `step` apart.
template <typename T>
ALWAYS_INLINE void gradient_tile(const T* gradient, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  const int64_t image = tile / (tiles.down * tiles.across), place = tile % (tiles.down * tiles.across);
  const int64_t y = place / tiles.across * kOut, x = place % tiles.across * kOut;
  const T* from = gradient + image * tiles.out_height * tiles.out_width * channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes d[kOut * kOut], t[kIn * kOut];
    for (int64_t i = 0; i < kOut; ++i)
      for (int64_t j = 0; j < kOut; ++j) {
        bool within = y + i < tiles.out_height && x + j < tiles.out_width;
        d[i * kOut + j] = within ? load(from + ((y + i) * tiles.out_width + x + j) * channels + c) : Lanes{};
      }
    for (int64_t j = 0; j < kOut; ++j) gradient_to_points(d + j, kOut, t + j, kOut);
    for (int64_t i = 0; i < kIn; ++i) {
      Lanes row[kIn];
      gradient_to_points(t + i * kOut, 1, row, 1);
      for (int64_t j = 0; j < kIn; ++j) store(points + (i * kIn + j) * step + c, row[j]);
    }
  }
}

TARGET void transform_gradient(const float* gradient, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  gradient_tile(gradient, channels, tiles, tile, points, step);
}
TARGET void transform_gradient(const uint16_t* gradient, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  gradient_tile(gradient, channels, tiles, tile, points, step);
}

// Transforms the sums for one output channel, [36, in] with points `step` apart, into the gradient of its kernels.
TARGET void finish_weight(const float* sums, int64_t step, int64_t channels, const Kernels& kernels, int64_t column) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes p[kPoints], t[18], g[9];
    for (int64_t i = 0; i < kPoints; ++i) p[i] = load(sums + i * step + c);
    for (int64_t j = 0; j < kIn; ++j) weight_from_points(p + j, kIn, t + j, kIn);
    for (int64_t i = 0; i < 3; ++i) weight_from_points(t + i * kIn, 1, g + 3 * i, 1);
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        float* to = kernels.at(c, column) + i * kernels.row_step + j * kernels.step;
        if (kernels.depth_step == 1) {
          store(to, g[3 * i + j]);
          continue;
        }
        for (int64_t lane = 0; lane < kLanes; ++lane) to[lane * kernels.depth_step] = g[3 * i + j][lane];
      }
  }
}

}  // namespace

template <typename T>
void winograd_weight_gradient(const WinogradGradient<T>& convolution, const Kernels& result) {
  const auto& [images, gradients, tiles, channels, out_channels] = convolution;
  const int64_t points = channels * out_channels, count = tiles.count();
  // Apart by other than a power of two, or the rows of a panel would share a few places of the cache.
  const int64_t x_step = channels + kLanes, y_step = out_channels + kLanes;
  const int64_t most = std::max(kSharedCache / (kPoints * (x_step + y_step) * int64_t{sizeof(float)}), kTiles);
  const int64_t parts = std::max<int64_t>((count + most - 1) / most, 1), each = (count + parts - 1) / parts;
  const int64_t panels = (channels + kPanel - 1) / kPanel;
  const Floats sums(kPoints * points), values(kPoints * each * (x_step + y_step));
  float *all = sums.data(), *x = values.data(), *y = x + kPoints * each * x_step;
  for (int64_t begin = 0; begin == 0 || begin < count; begin += each) {
    const int64_t here = std::min(each, count - begin);
    parallel(here, 2, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        transform(images, channels, tiles, begin + t, x + t * x_step, each * x_step);
        transform_gradient(gradients, out_channels, tiles, begin + t, y + t * y_step, each * y_step);
      }
    });
    parallel(kPoints * panels, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t point = i / panels, column = i % panels * kPanel;
        for (int64_t t = 0; t == 0 || t < here; t += kTiles)
          multiply_outer(Outer<float>{y + (point * each + t) * y_step, x + (point * each + t) * x_step + column, y_step, x_step, std::min(kTiles, here - t),
                                      all + point * points + column, channels, begin + t == 0, nullptr},
                         out_channels, std::min(kPanel, channels - column));
      }
    });
  }
  parallel(out_channels, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) finish_weight(all + c * channels, points, channels, result, c);
  });
}
template void winograd_weight_gradient(const WinogradGradient<float>&, const Kernels&);
template void winograd_weight_gradient(const WinogradGradient<uint16_t>&, const Kernels&);

}  // namespace LEVEL
