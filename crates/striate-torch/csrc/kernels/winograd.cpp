// 3x3 convolutions at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308): tiles of 6x6 input values are
// transformed, multiplied with transformed weights as 36 matrix products, and transformed into tiles of 4x4 output values, with a quarter of the
// multiplications. Computes in float32; feature maps may be bfloat16.
#include "winograd.h"

namespace LEVEL {

namespace {

// Up to these bytes of weights, each thread takes some tiles through all three parts, so that what lies between stays in its own cache. Beyond, all
// threads share each part of many tiles, so that weights are read seldom.
constexpr int64_t kSmallWeight = 4 << 20;
// The bytes between the parts in the first way; in the second, kSharedCache.
constexpr int64_t kOwnCache = 1 << 20;
// For so few tiles, to write a weight that is transformed and to read it again takes longer than to multiply it.
constexpr int64_t kFewTiles = 40;
// The floats of weights, at each point, that are transformed on the way at once: half a megabyte for all points.
constexpr int64_t kOnTheWay = 4096;

// B^T d for six values.
ALWAYS_INLINE void to_points(const Lanes* d, int64_t step, Lanes* t, int64_t to) {
  Lanes d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  Lanes even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, even2 = d4 - d2, odd2 = 2.0f * (d3 - d1);
  t[0] = 4.0f * d0 - 5.0f * d2 + d4;
  t[to] = even + odd;
  t[2 * to] = even - odd;
  t[3 * to] = even2 + odd2;
  t[4 * to] = even2 - odd2;
  t[5 * to] = 4.0f * d1 - 5.0f * d3 + d5;
}

// A^T m for six values.
ALWAYS_INLINE void from_points(const Lanes* m, int64_t step, Lanes* t, int64_t to) {
  Lanes m0 = m[0], m5 = m[5 * step];
  Lanes sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
  Lanes sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
  t[0] = m0 + sum + sum2;
  t[to] = difference + 2.0f * difference2;
  t[2 * to] = sum + 4.0f * sum2;
  t[3 * to] = difference + 8.0f * difference2 + m5;
}

// Transforms tile number `tile` of all channels into `points`, which lie `step` apart.
template <typename T>
ALWAYS_INLINE void input_tile(const T* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  const int64_t image = tile / (tiles.down * tiles.across), place = tile % (tiles.down * tiles.across);
  const int64_t y = place / tiles.across * kOut - tiles.top, x = place % tiles.across * kOut - tiles.left;
  const T* from = input + image * tiles.height * tiles.width * channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes d[kPoints], t[kPoints];
    for (int64_t i = 0; i < kIn; ++i)
      for (int64_t j = 0; j < kIn; ++j) {
        bool within = y + i >= 0 && y + i < tiles.height && x + j >= 0 && x + j < tiles.width;
        d[i * kIn + j] = within ? load(from + ((y + i) * tiles.width + x + j) * channels + c) : Lanes{};
      }
    for (int64_t j = 0; j < kIn; ++j) to_points(d + j, kIn, t + j, kIn);
    for (int64_t i = 0; i < kIn; ++i) to_points(t + i * kIn, 1, d + i * kIn, 1);
    for (int64_t p = 0; p < kPoints; ++p) store(points + p * step + c, d[p]);
  }
}

// Transforms `points`, which lie `step` apart, into tile number `tile` of the output.
template <typename T>
ALWAYS_INLINE void output_tile(const float* points, int64_t step, const After<T>& after, int64_t channels, const Tiles& tiles, int64_t tile,
                               T* output) {
  const int64_t image = tile / (tiles.down * tiles.across), place = tile % (tiles.down * tiles.across);
  const int64_t y = place / tiles.across * kOut, x = place % tiles.across * kOut;
  const int64_t start = image * tiles.out_height * tiles.out_width;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes m[kPoints], t[kPoints];
    for (int64_t p = 0; p < kPoints; ++p) m[p] = load(points + p * step + c);
    for (int64_t j = 0; j < kIn; ++j) from_points(m + j, kIn, t + j, kIn);
    for (int64_t i = 0; i < kOut; ++i) from_points(t + i * kIn, 1, m + i * kOut, 1);
    Lanes add = after.bias == nullptr ? Lanes{} : load(after.bias + c);
    for (int64_t i = 0; i < kOut && y + i < tiles.out_height; ++i)
      for (int64_t j = 0; j < kOut && x + j < tiles.out_width; ++j) {
        int64_t at = (start + (y + i) * tiles.out_width + x + j) * channels + c;
        Lanes value = m[i * kOut + j] + add;
        if (after.other != nullptr) value += load(after.other + at);
        if (after.relu) value = value < 0.0f ? Lanes{} : value;
        store(output + at, value);
      }
  }
}

TARGET void finish(const float* points, int64_t step, const After<float>& after, int64_t channels, const Tiles& tiles, int64_t tile,
                               float* output) {
  output_tile(points, step, after, channels, tiles, tile, output);
}
TARGET void finish(const float* points, int64_t step, const After<uint16_t>& after, int64_t channels, const Tiles& tiles, int64_t tile,
                               uint16_t* output) {
  output_tile(points, step, after, channels, tiles, tile, output);
}

// Products of `values` and a panel of weights [depth, columns], which are added to those that are there unless they are the first. Rows of values lie `step`
// apart, rows of products `width`.
struct Products {
  const float* values;
  int64_t step, depth;
  const float* panel;
  float* to;
  int64_t width;
  bool first;
};

template <int64_t rows, int64_t vectors>
ALWAYS_INLINE void block(const Products& p, int64_t row) {
  const float *values = p.values + row * p.step, *panel = p.panel;
  float* to = p.to + row * p.width;
  Lanes sums[rows][vectors] = {};
  if (!p.first) EACH_ROW EACH_VECTOR sums[r][v] = load(to + r * p.width + v * kLanes);
  for (int64_t k = 0; k < p.depth; ++k, panel += vectors * kLanes) {
    Lanes weights[vectors];
    EACH_VECTOR weights[v] = load(panel + v * kLanes);
    EACH_LINE __builtin_prefetch(panel + v * kLanes + kAhead);
    EACH_ROW EACH_VECTOR sums[r][v] += values[r * p.step + k] * weights[v];
  }
  EACH_ROW EACH_VECTOR store(to + r * p.width + v * kLanes, sums[r][v]);
}

template <int64_t vectors>
ALWAYS_INLINE void blocks(const Products& p, int64_t rows) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) block<kRows, vectors>(p, row);
  switch (rows - row) {
    case 5: return block<5, vectors>(p, row);
    case 4: return block<4, vectors>(p, row);
    case 3: return block<3, vectors>(p, row);
    case 2: return block<2, vectors>(p, row);
    case 1: return block<1, vectors>(p, row);
  }
}

TARGET void multiply(const Products& p, int64_t rows, int64_t columns) {
#define BLOCKS(vectors) blocks<vectors>(p, rows);
  FOR_COLUMNS(columns, BLOCKS)
#undef BLOCKS
}

template <typename T>
struct Convolution : Winograd<T> {
  using Winograd<T>::input, Winograd<T>::weight, Winograd<T>::after, Winograd<T>::output, Winograd<T>::tiles, Winograd<T>::channels,
      Winograd<T>::out_channels;

  // The floats that `run` needs for this many tiles.
  int64_t scratch(int64_t count) const { return kPoints * count * (channels + out_channels); }

  int64_t panels() const { return (out_channels + kPanel - 1) / kPanel; }
  int64_t width(int64_t column) const { return std::min(kPanel, out_channels - column); }

  void multiply_panels(const float* values, int64_t count, float* products) const {
    parallel(kPoints * panels(), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t point = i / panels(), column = i % panels() * kPanel;
        multiply({values + point * count * channels, channels, channels, weight.panels + point * channels * out_channels + column * channels,
                  products + point * count * out_channels + column, out_channels, true},
                 count, width(column));
      }
    });
  }

  // Transforms some of a panel at a time, which is multiplied while it is in the thread's cache: all of it, which is four times the weight, is written nowhere.
  void multiply_kernels(const float* values, int64_t count, float* products) const {
    // Apart by other than a power of two.
    constexpr int64_t step = kOnTheWay + kLine;
    const int64_t threads = thread_count(), all = panels();
    const Floats memory(threads * kPoints * step);
    parallel(threads, 1, [&](int64_t first, int64_t last) {
      float* points = memory.data() + first * kPoints * step;
      for (int64_t i = first * all / threads; i < last * all / threads; ++i) {
        const int64_t column = i * kPanel;
        for (int64_t begin = 0, depth; begin < channels; begin += depth) {
          depth = std::min(kOnTheWay / kPanel, channels - begin);
          for (int64_t row = 0; row < depth; row += kLanes)
            transform_weight(weight.kernels, begin + row, column, width(column), points + row * width(column), step);
          for (int64_t p = 0; p < kPoints; ++p)
            multiply({values + p * count * channels + begin, channels, depth, points + p * step, products + p * count * out_channels + column, out_channels,
                      begin == 0},
                     count, width(column));
        }
      }
    });
  }

  // Computes `count` tiles from number `begin`. Within a parallel region this runs on one thread.
  void run(int64_t begin, int64_t count, float* values) const {
    float* products = values + kPoints * count * channels;
    parallel(count, 2, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) transform(input, channels, tiles, begin + t, values + t * channels, count * channels);
    });
    if (weight.panels != nullptr) multiply_panels(values, count, products);
    else multiply_kernels(values, count, products);
    parallel(count, 2, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t)
        finish(products + t * out_channels, count * out_channels, after, out_channels, tiles, begin + t, output);
    });
  }

  void run_all() const {
    const int64_t count = tiles.count(), threads = thread_count();
    const bool shared = kPoints * channels * out_channels * int64_t{sizeof(float)} > kSmallWeight || count < 2 * kRows * threads;
    const int64_t most = std::max((shared ? kSharedCache : kOwnCache) / (scratch(1) * int64_t{sizeof(float)}), 4 * kRows);
    const bool on_the_way = shared && count <= kFewTiles && panels() >= threads;
    if (weight.panels == nullptr && !on_the_way) {
      const Floats packed(kPoints * channels * out_channels);
      LEVEL::winograd_weight(weight.kernels, channels, out_channels, packed.data());
      Convolution convolution = *this;
      convolution.weight.panels = packed.data();
      return convolution.run_all();
    }
    // Parts of equal size, as many for each thread.
    int64_t parts = (count + most - 1) / most;
    if (!shared) parts = (parts + threads - 1) / threads * threads;
    const int64_t each = (count + parts - 1) / parts, alone = shared ? parts : parts / threads;
    const Floats memory(parts / alone * scratch(each));
    auto some = [&](int64_t first, int64_t last) {
      float* values = memory.data() + first / alone * scratch(each);
      for (int64_t begin = first * each; begin < std::min(last * each, count); begin += each) run(begin, std::min(each, count - begin), values);
    };
    if (shared) some(0, parts);
    else parallel(parts, alone, some);
  }
};

}  // namespace

TARGET void transform(const float* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  input_tile(input, channels, tiles, tile, points, step);
}
TARGET void transform(const uint16_t* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  input_tile(input, channels, tiles, tile, points, step);
}

template <typename T>
void winograd(const Winograd<T>& convolution) {
  Convolution<T>{convolution}.run_all();
}
template void winograd(const Winograd<float>&);
template void winograd(const Winograd<uint16_t>&);

}  // namespace LEVEL
