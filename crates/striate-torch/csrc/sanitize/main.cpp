// Runs every kernel on plain memory that ends where its values end and begins at odd places, for `cargo xtask check --sanitize`, whose sanitizers fail on any
// access beyond it and on undefined behaviour. What kernels compute is not looked at here: Rust's tests do that.
#include "../kernels/kernels.h"

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace {

int64_t threads = 1;

// Values at an address that is a multiple of their own size and of nothing larger; behind the last one, memory is poisoned.
template <typename T>
class Values {
 public:
  explicit Values(int64_t count) : memory_(new T[count + 1]) {
    for (int64_t i = 0; i < count; ++i) data()[i] = value(i * 7919 % 1009 / 504.5f - 1);
  }
  T* data() const { return memory_.get() + 1; }
  operator T*() const { return data(); }

 private:
  static T value(float of) {
    if constexpr (std::is_same_v<T, uint16_t>) {
      uint32_t bits;
      memcpy(&bits, &of, sizeof bits);
      return static_cast<uint16_t>(bits >> 16);
    } else if constexpr (std::is_same_v<T, float>) {
      return of;
    } else {
      return static_cast<T>(static_cast<int64_t>(of * 127));
    }
  }
  std::unique_ptr<T[]> memory_;
};

template <typename T>
void pools() {
  for (const int64_t channels : {1, 3, 8, 16, 17, 40})
    for (const int64_t gap : {0, 5})
      for (const Pool& shape : {Pool{0, channels, {4, 2, 2, 2, 0}, {4, 2, 2, 2, 0}, false}, Pool{1, channels, {1, 1, 1, 1, 0}, {1, 1, 1, 1, 0}, true},
                                Pool{3, channels, {7, 4, 3, 2, 1}, {5, 3, 3, 2, 1}, true}, Pool{2, channels, {9, 4, 2, 2, 0}, {1, 1, 1, 1, 0}, false},
                                Pool{1, channels, {6, 7, 2, 1, 1}, {33, 16, 3, 2, 0}, false}}) {
        const int64_t pixels = shape.images * shape.down.in * shape.across.in, outputs = shape.images * shape.down.out * shape.across.out * channels;
        const int64_t pixel = channels + gap;
        const Values<T> x(std::max<int64_t>(0, (pixels - 1) * pixel + channels)), y(outputs);
        max_pool<T>(x, pixel, shape, y, nullptr);
        if constexpr (!std::is_same_v<T, uint8_t>) {
          const Values<uint8_t> index(outputs + kMultiple);
          max_pool<T>(x, pixel, shape, y, index);
          const Values<T> gradient(pixels * channels);
          max_pool_gradient<T>(y, index, shape, gradient);
        }
      }
}

template <typename T>
void norms() {
  for (const int64_t channels : {16, 48, 80})
    for (const int64_t rows : {2, 5, 129, 1500})
      for (const bool plain : {false, true}) {
        const int64_t count = rows * channels;
        const Values<T> x(count), other(count), y(count), of_x(count), of_other(count);
        const Values<float> weight(channels), bias(channels), mean(channels), var(channels), statistics(4 * channels), of_weight(channels), of_bias(channels);
        batch_norm(Norm<T>{x, plain ? nullptr : other.data(), plain ? nullptr : weight.data(), plain ? nullptr : bias.data(), mean, var, 0.1, 1e-5, !plain,
                           rows, channels, statistics, y});
        batch_norm_gradient(NormGradient<T>{other, plain ? nullptr : y.data(), x, statistics, rows, channels, of_weight, of_bias, of_x,
                                            plain ? nullptr : of_other.data()});
      }
}

template <typename T>
void products() {
  for (const int64_t count : {0, 1, 5, 6, 13, 61, 150})
    for (const int64_t depth : {1, 2, 30, 514})
      for (const int64_t out : {1, 15, 16, 33, 64, 80, 200}) {
        if (sizeof(T) == 2 && depth % 2 != 0) continue;
        const int64_t padded = (out + kMultiple - 1) / kMultiple * kMultiple;
        const Values<T> weight(out * depth), panels(padded * depth), output(count * out), other(count * out);
        const Values<float> bias(padded);
        pack(Matrix<T>{weight, depth, out, out, 1}, padded, panels.data());
        pack(Matrix<T>{weight, depth, 1, out, depth}, padded, panels.data());
        const int64_t pixel = depth + 3;
        const Values<T> dense(std::max<int64_t>(0, (count - 1) * pixel + depth));
        multiply(Product<T>{dense, {1, count, count * pixel, count * pixel, pixel, true}, panels, bias, other, output, count, depth, out, true, depth, 0});
        // Every second pixel down and across of an image of one column more than they are.
        const Values<T> sparse(std::max<int64_t>(0, (2 * (count - 1)) * depth + depth));
        multiply(Product<T>{sparse, {1, count, 2 * count * depth, 2 * count * depth, 2 * depth, false}, panels, bias, nullptr, output, count, depth, out, false, depth, 0});
      }
}

// Windows of 3x2 pixels, one pixel apart, of images whose rows have one pixel more than a row has windows.
template <typename T>
void windows() {
  for (const int64_t side : {1, 2, 7, 13})
    for (const int64_t channels : {1, 6, 110}) {
      const int64_t out = 20, padded = 32, run = 2 * channels, depth = 3 * run, row = (side + 1) * channels, count = side * side;
      const Values<T> panels(padded * depth), image((side + 2) * row), output(count * out);
      const Values<float> bias(padded);
      multiply(Product<T>{image, {side, side, (side + 2) * row, row, channels, false}, panels, bias, nullptr, output, count, depth, out, true, run, row - run});
    }
}

template <typename T>
void weight_gradients() {
  for (const int64_t channels : {16, 48, 528})
    for (const int64_t out : {16, 80})
      for (const auto& [images, kernel, size, window] : {std::tuple{int64_t{1}, std::pair{1, 1}, std::pair{1, 1}, Window{{0, 0}, {1, 1}, {1, 1}}},
                                                         std::tuple{int64_t{2}, std::pair{3, 2}, std::pair{9, 11}, Window{{2, 0}, {1, 3}, {1, 2}}},
                                                         std::tuple{int64_t{3}, std::pair{3, 3}, std::pair{8, 7}, Window{{1, 1}, {2, 2}, {1, 1}}}}) {
        const auto steps = [&](int64_t in, int64_t window_size, int axis) {
          return (in + 2 * window.padding[axis] - window.dilation[axis] * (window_size - 1) - 1) / window.stride[axis] + 1;
        };
        const int64_t down = steps(size.first, kernel.first, 0), across = steps(size.second, kernel.second, 1);
        const Values<T> gradient(images * down * across * out), input(images * size.first * size.second * channels);
        const Values<float> sums(out * kernel.first * kernel.second * channels);
        weight_gradient(Sums<T>{gradient, input, images, out, channels, {kernel.first, kernel.second}, {size.first, size.second}, {down, across}, window}, sums);
      }
}

template <typename T>
void winograds() {
  for (const int64_t channels : {16, 48})
    for (const int64_t out : {16, 80, 304})
      for (const Tiles& tiles : {Tiles(1, 3, 3, 0, 0), Tiles(1, 1, 1, 1, 1), Tiles(2, 9, 6, 1, 2), Tiles(3, 14, 5, 1, 1)}) {
        const int64_t pixels = tiles.images * tiles.height * tiles.width, outputs = tiles.images * tiles.out_height * tiles.out_width;
        const Values<T> input(pixels * channels), output(outputs * out), other(outputs * out);
        const Values<float> weight(9 * channels * out), transformed(kPoints * channels * out), bias(out);
        // As [out, in, 3, 3] lies contiguous, channels-last, and with in and out exchanged.
        for (const Kernels& kernels : {Kernels{weight, 9, 9 * channels, 3, 1}, Kernels{weight, 1, 9 * channels, 3 * channels, channels},
                                       Kernels{weight, 9 * out, 9, 3, 1}}) {
          winograd_weight(kernels, channels, out, transformed);
          winograd(Winograd<T>{input, {transformed, kernels}, {bias, other, true}, output, tiles, channels, out});
          // Transformed on the way.
          winograd(Winograd<T>{input, {nullptr, kernels}, {nullptr, nullptr, false}, output, tiles, channels, out});
        }
        for (const Kernels& kernels : {Kernels{weight, 9, 9 * channels, 3, 1}, Kernels{weight, 1, 9 * channels, 3 * channels, channels}})
          winograd_weight_gradient(WinogradGradient<T>{input, output, tiles, channels, out}, kernels);
      }
}

void bytes() {
  for (const int64_t count : {0, 1, 15, 17, 100003}) {
    const Values<float> values(count);
    const Values<uint8_t> bytes(count);
    quantize(values, count, {0.01, 128}, bytes);
    dequantize(bytes, count, {0.01, 128}, values);
  }
  for (const int64_t pixels : {0, 1, 70001}) {
    const Values<char> a(pixels * 5), b(std::max<int64_t>(0, pixels * 9 - 2)), to(pixels * 12);
    concat_pixels({{a, 5, 5}, {b, 7, 9}}, pixels, 12, to);
  }
}

void pictures() {
  for (const int64_t count : {0, 1, 5}) {
    const Values<int16_t> coefficients(count * 64);
    Values<uint8_t> flat(count), samples(8 * 8 * count);
    for (int64_t i = 0; i < count; ++i) flat[i] = i % 2;
    // What hostile files have.
    for (int64_t i = 0; i < count * 64; ++i) coefficients[i] = static_cast<int16_t>(i % 3 == 0 ? INT16_MAX : i % 3 == 1 ? INT16_MIN : i);
    st_jpeg_blocks(coefficients, flat, count, 8 * count, samples);
  }
  for (const auto [width, height] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {34, 9}})
    for (const auto& [across, down] : {std::pair{false, false}, {true, false}, {true, true}}) {
      const int64_t narrow = across ? (width + 1) / 2 : width, low = down ? (height + 1) / 2 : height;
      const Values<uint8_t> luma(width * height), chroma(narrow * low), to(3 * width * height);
      const st_plane planes[] = {{luma, width, 0, 0, width, height}, {chroma, narrow, 0, 0, narrow, low}, {chroma, narrow, 0, 0, narrow, low}};
      const int64_t all[] = {0, 0, width, height}, last[] = {width - 1, height - 1, 1, 1};
      for (const int64_t* region : {all, last}) st_jpeg_pixels(planes, across, down, region, to);
    }
  for (const int64_t channels : {1, 3})
    for (const auto [width, height] : {std::pair<int64_t, int64_t>{1, 1}, {33, 7}, {5, 90}})
      for (const auto [wide, high] : {std::pair<int64_t, int64_t>{1, 1}, {9, 40}, {70, 6}, {width, 6}, {9, height}})
        for (const int cubic : {0, 1}) {
          const Values<uint8_t> from(width * height * channels), to(wide * high * channels), one(channels);
          const st_resampling all{{0, 0, width, height}, channels, {0, 0, width, height}, {wide, high}, {0, 0, wide, high}};
          const st_resampling last{{0, 0, width, height}, channels, {0, 0, width, height}, {wide, high}, {wide - 1, high - 1, 1, 1}};
          if (st_resample(from, &all, cubic, to) != 1 || st_resample(from, &last, cubic, one) != 1) abort();
        }
}

template <typename T>
void all_of() {
  pools<T>();
  norms<T>();
  winograds<T>();
  // Of bfloat16 where the processor has products of it.
  if (sizeof(T) == sizeof(float) || st_has_bf16_products() != 0) products<T>(), windows<T>(), weight_gradients<T>();
}

}  // namespace

// In place of libtorch's (operators.cpp) and of Rust's (src/cpu.rs).
int64_t thread_count() { return threads; }
Floats::Floats(int64_t count) : tensor_(nullptr), data_(new float[count]) {}
Floats::~Floats() { delete[] data_; }
extern "C" int striate_cpu_level() { return atoi(getenv("STRIATE_SANITIZED_LEVEL")); }

int main() {
  for (threads = 1; threads <= 8; ++threads) {
    all_of<float>();
    all_of<uint16_t>();
    pools<uint8_t>();
    bytes();
    pictures();
  }
  return 0;
}
