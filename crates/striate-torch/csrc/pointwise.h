// Products of pixels and weights (pointwise.cpp).
#pragma once
#include "common.h"

// A weight [out, in] packed in panels; turned around, for the product that gives the gradient of the input.
at::Tensor pointwise_panels(const at::Tensor& weight, bool around);

// A convolution's window: its size, the pixels between two of them, and the zeros on each side of the image; height and width each.
struct SizedWindow {
  int64_t size[2], stride[2], padding[2];
};
constexpr SizedWindow kOnePixel = {{1, 1}, {1, 1}, {0, 0}};

// The convolution of `input` with such panels, of [out, height * width * in]; see st_pointwise.
at::Tensor pointwise(at::Tensor x, const at::Tensor& weight, const at::Tensor& shifts, const SizedWindow& window, int64_t out_channels,
                     at::Tensor added, bool relu, bool in_place);
