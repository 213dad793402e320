// The gradient of a convolution's weight (kernels/weight_gradient.cpp).
#include "weight_gradient.h"

#include "pixels.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros_like.h>

at::Tensor weight_gradient(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& weight, const Window& window) {
  const auto options = weight.options().dtype(at::kFloat);
  if (gradient.size(0) * gradient.size(2) * gradient.size(3) == 0) return at::zeros_like(weight, options);
  const bool in_order = weight.is_contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor result = in_order ? at::empty_strided(weight.sizes(), weight.strides(), options)
                               : at::empty(weight.sizes(), options.memory_format(at::MemoryFormat::ChannelsLast));
  with_type(input, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    weight_gradient(Sums<T>{static_cast<const T*>(gradient.const_data_ptr()), static_cast<const T*>(input.const_data_ptr()), gradient.size(0),
                            weight.size(0), weight.size(1), {weight.size(2), weight.size(3)}, {input.size(2), input.size(3)},
                            {gradient.size(2), gradient.size(3)}, window},
                    result.data_ptr<float>());
  });
  return in_order ? result : at::empty_like(weight, options).copy_(result);
}
