// The gradient of a convolution's weight: for each place of the window the sum, over the pixels of the output, of the outer product of a pixel's gradient
// and of the pixel that is read there.
#include "outer.h"

namespace LEVEL {

namespace {

// How many pixels, or pairs of such, are multiplied at once, so that a panel of them stays in the nearest cache: half of a map of 14x14.
constexpr int64_t kCount = 98;
// The channels of them that stay in the next one.
constexpr int64_t kStrip = 512;
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
constexpr int64_t kNowhere = -1;

ALWAYS_INLINE void put(const float* const* pixels, int64_t c, float* to) { store(to, load(pixels[0] + c)); }
ALWAYS_INLINE void put(const uint16_t* const* pixels, int64_t c, uint32_t* to) {
  const Bits values = paired(pixels[0] + c, pixels[1] + c);
  memcpy(to, &values, sizeof values);
}

// Where a value of a pixel goes, or of a pair: pixels lie `step` apart.
template <typename V>
struct Rows {
  V* to;
  int64_t step;

  V* at(int64_t i, int64_t c) const { return to + i * step + c; }
};
// Or in panels of channels, one after the other; what is put begins at the column `start` of them.
template <typename V>
struct Panels {
  V* to;
  int64_t start;

  V* at(int64_t i, int64_t c) const { return to + (start + c) / kPanel * kCount * kPanel + i * kPanel + (start + c) % kPanel; }
};

// Copies `width` values of each of `count` pixels, or pairs of such; zeros for a pixel that is nowhere.
template <typename T, typename Target>
ALWAYS_INLINE void copy(const T* values, const int64_t* offsets, int64_t count, int64_t width, const Target& target) {
  for (int64_t i = 0; i < count; ++i) {
    const T* pixels[kTogether<T>];
    for (int64_t k = 0; k < kTogether<T>; ++k) {
      const int64_t at = offsets[i * kTogether<T> + k];
      pixels[k] = at == kNowhere ? kZeros<T> : values + at;
    }
    for (int64_t c = 0; c < width; c += kLanes) put(pixels, c, target.at(i, c));
  }
}
#define GATHER(T, Target)                                                                                                                       \
  TARGET void gather(const T* values, const int64_t* offsets, int64_t count, int64_t width, const Target<Value<T>>& target) {            \
    copy(values, offsets, count, width, target);                                                                                               \
  }
GATHER(float, Rows)
GATHER(float, Panels)
GATHER(uint16_t, Rows)
GATHER(uint16_t, Panels)
#undef GATHER

// The pixels that some outputs read at the first place of the window, which may be outside of the image: rows, columns, and where they lie.
struct Places {
  int64_t row[kMost], column[kMost], offset[kMost], count;
};

// Where those lie that are read some rows down and columns across, `by` values on.
TARGET void move_places(const Places& places, int64_t down, int64_t across, int64_t by, const int64_t* size, int64_t* offsets) {
  for (int64_t i = 0; i < places.count; ++i) {
    const uint64_t row = places.row[i] + down, column = places.column[i] + across;
    offsets[i] = row < static_cast<uint64_t>(size[0]) && column < static_cast<uint64_t>(size[1]) ? places.offset[i] + by : kNowhere;
  }
}

template <typename T>
struct Adding : Sums<T> {
  using Sums<T>::gradient, Sums<T>::input, Sums<T>::out_channels, Sums<T>::channels, Sums<T>::kernel, Sums<T>::size, Sums<T>::out_size, Sums<T>::window,
      Sums<T>::width;

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
      move_places(places, down, across, (down * size[1] + across) * channels, size, offsets);
      offsets[places.count] = kNowhere;
      gather(input + column % channels, offsets, count, next - column, Panels<Value<T>>{to, column - first});
    }
  }

  // What these outputs' products need first: their gradients and, if all pixels are read, those that come about then.
  Ahead ahead_of(int64_t begin, int64_t count) const {
    const auto piece = [](const T* values, int64_t first, int64_t last) {
      return Ahead::Piece{reinterpret_cast<uintptr_t>(values) + first * sizeof(T), reinterpret_cast<uintptr_t>(values) + last * sizeof(T)};
    };
    const Ahead::Piece gradients = piece(gradient, begin * out_channels, (begin + count) * out_channels);
    if (kernel[0] < window.stride[0] || kernel[1] < window.stride[1]) return {gradients, {}};
    const auto about = [&](int64_t output) {
      return (output * size[0] * size[1] / (out_size[0] * out_size[1]) + kernel[0] / 2 * size[1]) * channels;
    };
    return {gradients, piece(input, about(begin), about(begin + count))};
  }

  // Of the outputs begin..end, in the columns first..last, into `sums` [out, kernel height, kernel width, in].
  void add(int64_t begin, int64_t end, int64_t first, int64_t last, float* sums, Value<T>* scratch) const {
    // Other than a power of two, or the values of a channel would share a few places of the cache.
    constexpr int64_t step = kStrip + kLanes;
    Value<T> *images = scratch, *gradients = scratch + kCount * kStrip;
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
        gather(gradient + row, offsets, count, rows, Rows<Value<T>>{gradients, step});
        for (int64_t start = first; start < last; start += kStrip) {
          const int64_t stop = std::min(start + kStrip, last);
          gather_columns(places, count, start, stop, images);
          for (int64_t c = start; c < stop; c += kPanel)
            multiply_outer(Outer<Value<T>>{gradients, images + (c - start) * kCount, step, kPanel, count, sums + row * width() + c, width(), at == begin, &ahead},
                           rows, std::min(kPanel, stop - c));
        }
      }
    }
  }

  static constexpr int64_t scratch() { return kCount * (kStrip + kStrip + kLanes); }
};

// Adds `count` lists of `size` values, one after the other, to `to`.
TARGET void add_lists(const float* lists, int64_t count, int64_t size, int64_t first, int64_t last, float* to) {
  for (int64_t list = 0; list < count; ++list)
    for (int64_t i = first; i < last; ++i) to[i] += lists[list * size + i];
}

}  // namespace

template <typename T>
void weight_gradient(const Sums<T>& of, float* to) {
  const Adding<T> sums{of};
  const int64_t pixels = sums.pixels(), threads = thread_count(), panels = sums.panels(), width = sums.width(), size = sums.out_channels * width;
  const int64_t by_pixels = std::min(threads, (pixels + kPixels<T> - 1) / kPixels<T>), by_columns = std::min(threads, panels);
  const bool columns = by_columns > by_pixels || (by_columns == by_pixels && size > kOwnSums);
  const int64_t parts = columns ? by_columns : by_pixels, others = columns ? 0 : parts - 1;
  const Floats scratch(parts * Adding<T>::scratch()), more(others * size);
  parallel(parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const auto share = [&](int64_t count) { return std::pair(part * count / parts, (part + 1) * count / parts); };
      auto* own = reinterpret_cast<Value<T>*>(scratch.data()) + part * Adding<T>::scratch();
      if (columns) {
        const auto [begin, end] = share(panels);
        sums.add(0, pixels, begin * kPanel, std::min(end * kPanel, width), to, own);
      } else {
        const auto [begin, end] = share(pixels);
        sums.add(begin, end, 0, width, part == 0 ? to : more.data() + (part - 1) * size, own);
      }
    }
  });
  if (others > 0) parallel(size, kGrain, [&](int64_t first, int64_t last) { add_lists(more.data(), others, size, first, last, to); });
}
template void weight_gradient(const Sums<float>&, float*);
template void weight_gradient(const Sums<uint16_t>&, float*);

}  // namespace LEVEL
