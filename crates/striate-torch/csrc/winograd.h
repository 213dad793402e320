// Winograd's convolution (kernels/winograd.cpp).
#pragma once
#include "common.h"
#include "kernels/kernels.h"

// The tiles of images.
Tiles tiles_of(const at::Tensor& input, int64_t top, int64_t left);

// Convolves images, channels-last after this, with a weight of their channels. What follows is as for `st_winograd`.
at::Tensor winograd(at::Tensor input, const WinogradWeight& weight, const float* bias, int64_t top, int64_t left, int64_t out_channels, at::Tensor added,
                    bool relu, bool in_place);
