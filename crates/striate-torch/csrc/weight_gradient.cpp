// The gradient of a convolution's weight: for each place of the window the sum, over the pixels of the output, of the outer product of a pixel's gradient
// and of the pixel that is read there.
#include "weight_gradient.h"

#include "outer.h"
#include "pixels.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>

namespace {

// What is multiplied at once, so that a panel of it stays in the nearest cache: pixels, or pairs of such; and the channels of them that stay in the next one.
constexpr int64_t kCount = 98, kStrip = 512;
// The sums that each thread can have for itself, if threads share out pixels and not sums.
constexpr int64_t kOwnSums = int64_t{1} << 17;

// What is multiplied of a float, and of a bfloat16: two pixels' values beside each other.
template <typename T>
using Value = std::conditional_t<std::is_same_v<T, float>, float, uint32_t>;
template <typename T>
constexpr int64_t kTogether = sizeof(Value<T>) / sizeof(T);
// The most pixels that are multiplied at once.
template <typename T>
constexpr int64_t kPixels = kCount * kTogether<T>;
constexpr int64_t kMost = kPixels<uint16_t>;

template <typename T>
constexpr T kZeros[kStrip] = {};

ALWAYS_INLINE void put(const float* const* pixels, int64_t c, float* to) { store(to, load(pixels[0] + c)); }
ALWAYS_INLINE void put(const uint16_t* const* pixels, int64_t c, uint32_t* to) {
  const Bits values = paired(pixels[0] + c, pixels[1] + c);
  memcpy(to, &values, sizeof values);
}

// Where values go: pixels, or pairs of such, `step` apart, or whole panels of them one after the other if that is 0; of each from the value `start` on.
template <typename T>
struct Place {
  T* to;
  int64_t step, start;

  T* at(int64_t i, int64_t c) const { return to + (step == 0 ? (start + c) / kPanel * kCount * kPanel + i * kPanel + (start + c) % kPanel : i * step + start + c); }
};

// Copies `width` values of each of `count` pixels, or pairs of such; zeros for a pixel that is nowhere.
#define GATHER                                                                           \
  for (int64_t i = 0; i < count; ++i) {                                                  \
    const T* pixels[kTogether<T>];                                                       \
    for (int64_t k = 0; k < kTogether<T>; ++k) {                                         \
      const int64_t at = offsets[i * kTogether<T> + k];                                  \
      pixels[k] = at < 0 ? kZeros<T> : values + at;                                      \
    }                                                                                    \
    for (int64_t c = 0; c < width; c += kLanes) put(pixels, c, place.at(i, c));          \
  }

FOR_EACH_PROCESSOR void gather(const float* values, const int64_t* offsets, int64_t count, int64_t width, const Place<float>& place) {
  using T = float;
  GATHER
}
WIDE_VECTORS void gather(const uint16_t* values, const int64_t* offsets, int64_t count, int64_t width, const Place<uint32_t>& place) {
  using T = uint16_t;
  GATHER
}
#undef GATHER

constexpr int64_t kNowhere = -1;

// The pixels that some outputs read at the first place of the window, which may be outside of the image: rows, columns, and where they lie.
struct Places {
  int64_t row[kMost], column[kMost], offset[kMost], count;
};

// Where those lie that are read some rows down and columns across, `by` values on.
FOR_EACH_PROCESSOR void move(const Places& places, int64_t down, int64_t across, int64_t by, const int64_t* size, int64_t* offsets) {
  for (int64_t i = 0; i < places.count; ++i) {
    const uint64_t row = places.row[i] + down, column = places.column[i] + across;
    offsets[i] = row < static_cast<uint64_t>(size[0]) && column < static_cast<uint64_t>(size[1]) ? places.offset[i] + by : kNowhere;
  }
}

template <typename T>
struct Sums {
  const T *gradient, *input;
  int64_t out_channels, channels, kernel[2], size[2], out_size[2];
  Window window;

  // Of each output channel: for each place of the window the input's channels.
  int64_t width() const { return kernel[0] * kernel[1] * channels; }
  int64_t panels() const { return (width() + kPanel - 1) / kPanel; }

  void find(int64_t begin, int64_t count, Places& places) const {
    int64_t x = begin % out_size[1], y = begin / out_size[1] % out_size[0], image = begin / (out_size[0] * out_size[1]);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = y * window.stride[0] - window.padding[0], column = x * window.stride[1] - window.padding[1];
      places.row[i] = row, places.column[i] = column;
      places.offset[i] = ((image * size[0] + row) * size[1] + column) * channels;
      if (++x < out_size[1]) continue;
      x = 0;
      if (++y == out_size[0]) y = 0, ++image;
    }
    places.count = count;
  }

  // Gathers the columns first..last of what these outputs read.
  void gather_columns(const Places& places, int64_t count, int64_t first, int64_t last, Value<T>* to) const {
    int64_t offsets[kPixels<T> + 1];
    for (int64_t column = first, next; column < last; column = next) {
      const int64_t place = column / channels;
      next = std::min(last, (place + 1) * channels);
      const int64_t down = place / kernel[1] * window.dilation[0], across = place % kernel[1] * window.dilation[1];
      move(places, down, across, (down * size[1] + across) * channels, size, offsets);
      offsets[places.count] = kNowhere;
      gather(input + column % channels, offsets, count, next - column, Place<Value<T>>{to, 0, column - first});
    }
  }

  // What these outputs' products need first: their gradients and, if all pixels are read, those that come about then.
  Ahead ahead_of(int64_t begin, int64_t count) const {
    const auto piece = [](const T* values, int64_t size) { return Ahead::Piece{reinterpret_cast<const char*>(values), reinterpret_cast<const char*>(values + size)}; };
    const Ahead::Piece gradients = piece(gradient + begin * out_channels, count * out_channels);
    if (kernel[0] < window.stride[0] || kernel[1] < window.stride[1]) return {gradients, {}};
    const int64_t each = size[0] * size[1] / (out_size[0] * out_size[1]) * channels;
    return {gradients, piece(input + begin * each + kernel[0] / 2 * size[1] * channels, count * each)};
  }

  // Of the outputs begin..end, in the columns first..last, into `sums` [out, kernel height, kernel width, in].
  void add(int64_t begin, int64_t end, int64_t first, int64_t last, float* sums, Value<T>* scratch) const {
    // Other than a power of two, or the values of a channel would share a few places of the cache.
    constexpr int64_t y_step = kStrip + kLanes;
    Value<T> *x = scratch, *y = scratch + kCount * kStrip;
    Places places;
    int64_t offsets[kPixels<T> + 1];
    // In equal parts.
    const int64_t parts = (end - begin + kPixels<T> - 1) / kPixels<T>, most = ((end - begin + parts - 1) / parts + kTogether<T> - 1) / kTogether<T> * kTogether<T>;
    for (int64_t at = begin; at < end; at += most) {
      const int64_t here = std::min(most, end - at), count = (here + kTogether<T> - 1) / kTogether<T>;
      find(at, here, places);
      Ahead ahead = ahead_of(at + here, std::min(most, end - at - here));
      for (int64_t i = 0; i < here; ++i) offsets[i] = (at + i) * out_channels;
      offsets[here] = kNowhere;  // beside the last one of an odd number
      for (int64_t row = 0; row < out_channels; row += kStrip) {
        const int64_t rows = std::min(kStrip, out_channels - row);
        gather(gradient + row, offsets, count, rows, Place<Value<T>>{y, y_step, 0});
        for (int64_t start = first; start < last; start += kStrip) {
          const int64_t stop = std::min(start + kStrip, last);
          gather_columns(places, count, start, stop, x);
          for (int64_t c = start; c < stop; c += kPanel)
            multiply_outer(Outer<Value<T>>{y, x + (c - start) * kCount, y_step, kPanel, count, sums + row * width() + c, width(), at == begin, &ahead}, rows,
                           std::min(kPanel, stop - c));
        }
      }
    }
  }

  static constexpr int64_t scratch() { return kCount * (kStrip + kStrip + kLanes); }
};

template <typename T>
void compute(const Sums<T>& sums, int64_t pixels, at::Tensor& result) {
  const int64_t threads = at::get_num_threads(), panels = sums.panels(), width = sums.width(), size = sums.out_channels * width;
  const auto options = at::TensorOptions().dtype(at::kFloat);
  at::Tensor scratch = at::empty({threads, Sums<T>::scratch()}, options);
  auto* apart = static_cast<Value<T>*>(scratch.data_ptr());
  float* to = result.data_ptr<float>();
  if (size > kOwnSums) {
    const int64_t parts = std::min(threads, panels);
    parallel(parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part)
        sums.add(0, pixels, part * panels / parts * kPanel, std::min((part + 1) * panels / parts * kPanel, width), to, apart + part * Sums<T>::scratch());
    });
    return;
  }
  const int64_t parts = std::min(threads, (pixels + kPixels<T> - 1) / kPixels<T>);
  at::Tensor others = at::empty({parts - 1, size}, options);
  float* more = others.data_ptr<float>();
  parallel(parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      sums.add(part * pixels / parts, (part + 1) * pixels / parts, 0, width, part == 0 ? to : more + (part - 1) * size, apart + part * Sums<T>::scratch());
  });
  for (int64_t part = 1; part < parts; ++part) result.add_(others.select(0, part - 1).as_strided(result.sizes(), result.strides()));
}

}  // namespace

at::Tensor weight_gradient(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& weight, const Window& window) {
  const auto options = weight.options().dtype(at::kFloat);
  const bool in_order = weight.is_contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor result = in_order ? at::empty_strided(weight.sizes(), weight.strides(), options)
                               : at::empty(weight.sizes(), options.memory_format(at::MemoryFormat::ChannelsLast));
  const int64_t pixels = gradient.size(0) * gradient.size(2) * gradient.size(3);
  if (pixels == 0) return at::empty_like(weight, options).zero_();
  with_type(input, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    compute(Sums<T>{static_cast<const T*>(gradient.const_data_ptr()), static_cast<const T*>(input.const_data_ptr()), weight.size(0), weight.size(1),
                    {weight.size(2), weight.size(3)}, {input.size(2), input.size(3)}, {gradient.size(2), gradient.size(3)}, window},
            pixels, result);
  });
  return in_order ? result : at::empty_like(weight, options).copy_(result);
}
