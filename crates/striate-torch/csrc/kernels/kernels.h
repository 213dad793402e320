// The kernels, over plain memory: what is in it is checked before, by the operators that call them. A T is a float or, by its bits, a bfloat16 (uint16_t).
// Feature maps are channels-last. Compiled with optimisation in every profile.
#pragma once
#include "../shim.h"
#include "kernel.h"

// What channels come in multiples of where they fill vectors, of any level of instructions.
constexpr int64_t kMultiple = 16;

// pool.cpp

// In place of the position within its window: the ReLU let nothing through.
constexpr uint8_t kNone = 255;

struct Axis {
  int64_t in, out, kernel, stride, padding;

  // Where window `at` begins, and which of its positions lie within the input.
  int64_t begin(int64_t at) const { return at * stride - padding; }
  int64_t first(int64_t at) const { return std::max<int64_t>(0, -begin(at)); }
  int64_t last(int64_t at) const { return std::min(kernel, in - begin(at)); }
};

struct Pool {
  int64_t images, channels;
  Axis down, across;
  bool relu;
};

// norm.cpp

// y = relu((x - mean) * scale + shift + other); `other`, `weight` and `bias` may be nullptr. `statistics` [4, channels] gets the mean, the inverse standard
// deviation and the scale, which the gradient takes, and the shift.
template <typename T>
struct Norm {
  const T *x, *other;
  const float *weight, *bias;
  float *running_mean, *running_var;
  double momentum, eps;
  bool relu;
  int64_t rows, channels;  // of pixels
  float* statistics;
  T* y;
};

// `y` is nullptr where there was no ReLU, `of_other` where nothing was added.
template <typename T>
struct NormGradient {
  const T *gradient, *y, *x;
  const float* statistics;
  int64_t rows, channels;
  float *of_weight, *of_bias;
  T *of_x, *of_other;
};

// pointwise.cpp

// The pixels that the outputs, numbered in their order, read: all of them, or each few down and across.
struct Reading {
  int64_t height, width, image, row, pixel;
  bool all;

  int64_t at(int64_t i) const { return all ? i * pixel : i / (height * width) * image + i / width % height * row + i % width * pixel; }
};

template <typename T>
struct Product {
  const T* input;
  Reading reading;
  const T* panels;    // [panel][depth][columns], of bfloat16 [panel][depth / 2][columns][2]: see `pack`
  const float* bias;  // whole vectors of it
  const T* other;     // nullptr if nothing is added
  T* output;
  int64_t count, depth, out_channels;
  bool relu;
  // The `depth` values that an output reads: in runs of so many, and so far from the end of one to the beginning of the next.
  int64_t run, gap;
};

// What a panel multiplies: of column `c` the values `depth`, `step` apart, and zeros in place of columns that fill the last vector.
template <typename T>
struct Matrix {
  const T* values;
  int64_t depth, step, columns, column_step;

  T at(int64_t k, int64_t c) const { return c < columns ? values[k * step + c * column_step] : T{}; }
};

// weight_gradient.cpp

// How a window moves over an image; height and width each.
struct Window {
  int64_t padding[2], stride[2], dilation[2];
};

template <typename T>
struct Sums {
  const T *gradient, *input;
  int64_t images, out_channels, channels, kernel[2], size[2], out_size[2];
  Window window;

  int64_t pixels() const { return images * out_size[0] * out_size[1]; }
  // Of each output channel: for each place of the window the input's channels.
  int64_t width() const { return kernel[0] * kernel[1] * channels; }
};

// winograd.cpp

constexpr int64_t kIn = 6, kOut = 4, kPoints = kIn * kIn;

struct Tiles {
  int64_t images, height, width;             // of the input
  int64_t out_height, out_width, top, left;  // of the output; zeros before the input
  int64_t down, across;                      // tiles of an image

  Tiles(int64_t images, int64_t height, int64_t width, int64_t top, int64_t left)
      : images(images), height(height), width(width), out_height(height + 2 * top - 2), out_width(width + 2 * left - 2), top(top), left(left),
        down((out_height + kOut - 1) / kOut), across((out_width + kOut - 1) / kOut) {}

  int64_t count() const { return images * down * across; }
};

// What follows the convolution.
template <typename T>
struct After {
  const float* bias;
  const T* other;
  bool relu;
};

// The values of a weight [out, in, 3, 3] by what a product sums over (`depth`) and what it gives (`column`).
struct Kernels {
  float* values;
  int64_t depth_step, column_step, row_step, step;

  float* at(int64_t depth, int64_t column) const { return values + depth * depth_step + column * column_step; }
};

// What tiles are multiplied with: transformed and packed in panels, [36, depth * columns]; or, where there are none, kernels that are transformed on the way.
struct WinogradWeight {
  const float* panels;
  Kernels kernels;
};

template <typename T>
struct Winograd {
  const T* input;
  WinogradWeight weight;
  After<T> after;
  T* output;
  Tiles tiles;
  int64_t channels, out_channels;
};

// winograd_train.cpp

template <typename T>
struct WinogradGradient {
  const T *input, *gradient;
  Tiles tiles;
  int64_t channels, out_channels;
};

// pixels.cpp

struct Part {
  const char* data;
  int64_t bytes, pixel;
};
// Writes the parts of each pixel beside each other; `row` is the bytes of all.
void concat_pixels(const std::vector<Part>& parts, int64_t pixels, int64_t row, char* to);

// Whether the level of instructions in use adds up products of bytes without overflow (levels.cpp).
bool multiplies_bytes();

// Of each level of instructions, and, by their plain names, of the one in use (levels.cpp).
namespace baseline {
#include "functions.h"
}
namespace avx2 {
#include "functions.h"
}
namespace avx512 {
#include "functions.h"
}
#include "functions.h"
