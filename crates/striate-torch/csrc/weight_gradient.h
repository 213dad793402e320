// The gradient of a convolution's weight.
#pragma once
#include "common.h"
#include "kernels/kernels.h"

// In float32 and laid out as `weight` [out, in, height, width], of which no value is read, from channels-last images and the gradient of their convolution:
// both float32, or bfloat16 on a processor with products of it. Channels are multiples of 16.
at::Tensor weight_gradient(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& weight, const Window& window);
