// Pillow's resampling of a picture of bytes, to its bits: weights of 22 bits after the point, first along the rows, rounded to bytes, then along the
// columns. A side that keeps its size is not resampled. What it takes from the picture's borders is as if nothing lay beyond.
#include "lanes.h"

#include <cmath>

namespace LEVEL {

namespace {

constexpr int kBits = 22;
constexpr int32_t kHalf = 1 << (kBits - 1);
// Bytes of a row that are summed at once.
constexpr int64_t kBlock = 64;

// Rows that are resized at once, and the bytes that a pixel of colours takes meanwhile.
constexpr int64_t kRowsAtOnce = 4, kPixel = 4;

// The values of a column in these rows.
constexpr int64_t kColumn = kRowsAtOnce * kPixel;
typedef uint8_t Column __attribute__((vector_size(kColumn), aligned(1), may_alias));
typedef uint16_t Wider __attribute__((vector_size(kColumn * sizeof(uint16_t))));
typedef int32_t Sums __attribute__((vector_size(kColumn * sizeof(int32_t))));

double share(double distance, bool cubic) {
  const double x = std::abs(distance);
  if (!cubic) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Which of `in` values each of a window of `out` is made of, and their weights.
struct Shares {
  int64_t most;
  std::vector<int64_t> first, count;
  std::vector<int32_t> weights;

  Shares(int64_t in, int64_t out, int64_t start, int64_t window, bool cubic) : first(window), count(window) {
    const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0);
    const double reach = (cubic ? 2.0 : 1.0) * stretch;
    most = static_cast<int64_t>(std::ceil(reach)) * 2 + 1;
    weights.resize(window * most);
    std::vector<double> exact(most);
    for (int64_t at = 0; at < window; ++at) {
      const double centre = (static_cast<double>(at + start) + 0.5) * scale;
      first[at] = std::max<int64_t>(0, static_cast<int64_t>(centre - reach + 0.5));
      count[at] = std::min(in, static_cast<int64_t>(centre + reach + 0.5)) - first[at];
      double total = 0;
      for (int64_t k = 0; k < count[at]; ++k) {
        exact[k] = share((static_cast<double>(k + first[at]) - centre + 0.5) * (1.0 / stretch), cubic);
        total += exact[k];
      }
      for (int64_t k = 0; k < count[at]; ++k) {
        const double weight = (total != 0 ? exact[k] / total : exact[k]) * (1 << kBits);
        weights[at * most + k] = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
      }
    }
  }

  int64_t begin() const { return first.front(); }
  int64_t end() const { return first.back() + count.back(); }
};

ALWAYS_INLINE uint8_t byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// One row from the first column that is needed on.
ALWAYS_INLINE void row_of(const uint8_t* from, int64_t channels, const Shares& across, uint8_t* to) {
  const int64_t out = static_cast<int64_t>(across.first.size());
  for (int64_t x = 0; x < out; ++x, to += channels) {
    const int32_t* weights = &across.weights[x * across.most];
    const uint8_t* pixel = from + (across.first[x] - across.begin()) * channels;
    for (int64_t c = 0; c < channels; ++c) {
      int32_t sum = kHalf;
      for (int64_t k = 0; k < across.count[x]; ++k) sum += weights[k] * pixel[k * channels + c];
      to[c] = byte(sum);
    }
  }
}

// Several rows of colours, of which `columns` has the pixels column by column.
ALWAYS_INLINE void rows_of_colours(const uint8_t* columns, const Shares& across, int64_t row, uint8_t* to) {
  const int64_t out = static_cast<int64_t>(across.first.size());
  for (int64_t x = 0; x < out; ++x, to += 3) {
    const int32_t* weights = &across.weights[x * across.most];
    const auto* column = reinterpret_cast<const Column*>(columns) + (across.first[x] - across.begin());
    Sums sums = Sums{} + kHalf;
    for (int64_t k = 0; k < across.count[x]; ++k) sums += weights[k] * __builtin_convertvector(__builtin_convertvector(column[k], Wider), Sums);
    sums >>= kBits;
    sums = sums > 0 ? sums : Sums{};
    sums = sums < 255 ? sums : Sums{} + 255;
    const Column pixels = __builtin_convertvector(__builtin_convertvector(sums, Wider), Column);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&pixels);
    // A fourth byte is the next pixel's first, which is written later.
    if (x + 1 < out)
      for (int64_t r = 0; r < kRowsAtOnce; ++r) memcpy(to + r * row, bytes + r * kPixel, kPixel);
    else
      for (int64_t r = 0; r < kRowsAtOnce; ++r) memcpy(to + r * row, bytes + r * kPixel, 3);
  }
}

// So many rows of the source, of the columns that are needed, made as wide as the result.
TARGET void along_rows(const uint8_t* from, int64_t stride, int64_t width, int64_t channels, int64_t rows, const Shares& across, uint8_t* to) {
  const int64_t row = static_cast<int64_t>(across.first.size()) * channels;
  int64_t y = 0;
  if (channels == 3) {
    std::vector<uint8_t> columns(width * kColumn);
    for (; y + kRowsAtOnce <= rows; y += kRowsAtOnce) {
      uint8_t* column = columns.data();
      const uint8_t* pixel = from + y * stride;
      for (int64_t x = 1; x < width; ++x, pixel += 3, column += kColumn)
        for (int64_t r = 0; r < kRowsAtOnce; ++r) memcpy(column + r * kPixel, pixel + r * stride, kPixel);
      for (int64_t r = 0; r < kRowsAtOnce; ++r) memcpy(column + r * kPixel, pixel + r * stride, 3);
      rows_of_colours(columns.data(), across, row, to + y * row);
    }
  }
  for (; y < rows; ++y) row_of(from + y * stride, channels, across, to + y * row);
}

// The result of such rows, of which the first is the source's row `first`; they have kBlock more bytes at the end.
TARGET void along_columns(const uint8_t* wide, int64_t row, int64_t first, const Shares& down, uint8_t* to) {
  const int64_t out = static_cast<int64_t>(down.first.size());
  for (int64_t y = 0; y < out; ++y, to += row) {
    const int32_t* weights = &down.weights[y * down.most];
    const uint8_t* rows = wide + (down.first[y] - first) * row;
    for (int64_t x = 0; x < row; x += kBlock) {
      int32_t sums[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) sums[i] = kHalf;
      for (int64_t k = 0; k < down.count[y]; ++k) {
        const uint8_t* values = rows + k * row + x;
        for (int64_t i = 0; i < kBlock; ++i) sums[i] += weights[k] * values[i];
      }
      uint8_t bytes[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) bytes[i] = byte(sums[i]);
      memcpy(to + x, bytes, std::min(kBlock, row - x));
    }
  }
}

}  // namespace

int resample(const uint8_t* from, const st_resampling* resampling, int cubic, uint8_t* to) {
  try {
    const auto [piece, channels, part, size, window] = *resampling;
    const Shares across(part[2], size[0], window[0], window[2], cubic != 0), down(part[3], size[1], window[1], window[3], cubic != 0);
    const bool keeps_width = part[2] == size[0], keeps_height = part[3] == size[1];
    // The columns and rows of the piece that it is made of.
    const int64_t left = part[0] - piece[0] + (keeps_width ? window[0] : across.begin()), top = part[1] - piece[1] + (keeps_height ? window[1] : down.begin());
    const int64_t width = keeps_width ? window[2] : across.end() - across.begin(), height = keeps_height ? window[3] : down.end() - down.begin();
    const bool there = left >= 0 && left + width <= piece[2] && top >= 0 && top + height <= piece[3];
    if (!there) return -1;
    const int64_t stride = piece[2] * channels, row = window[2] * channels;
    std::vector<uint8_t> between(keeps_height ? 0 : height * row + kBlock);
    uint8_t* wide = keeps_height ? to : between.data();
    const uint8_t* begin = from + top * stride + left * channels;
    if (keeps_width)
      for (int64_t y = 0; y < height; ++y) memcpy(wide + y * row, begin + y * stride, row);
    else
      along_rows(begin, stride, width, channels, height, across, wide);
    if (!keeps_height) along_columns(wide, row, down.begin(), down, to);
    return 1;
  } catch (const std::exception&) {
    return 0;  // no memory
  }
}

}  // namespace LEVEL
