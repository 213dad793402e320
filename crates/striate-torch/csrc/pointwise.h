// Products of pixels and weights (pointwise.cpp).
#pragma once
#include "common.h"

// A weight [out, in] packed in panels; turned around, for the product that gives the gradient of the input.
at::Tensor pointwise_panels(const at::Tensor& weight, bool around);

// The convolution of `input`, every `stride`-th pixel down and across, with such panels; see st_pointwise.
at::Tensor pointwise(at::Tensor x, const at::Tensor& weight, const at::Tensor& shifts, const int64_t* stride, int64_t out_channels,
                     at::Tensor added, bool relu, bool in_place);
