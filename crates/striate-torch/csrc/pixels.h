// Channels-last feature maps.
#pragma once
#include "common.h"

#include <ATen/ops/empty.h>

inline at::Tensor channels_last(at::IntArrayRef size, const at::Tensor& like) {
  return at::empty(size, like.options().memory_format(at::MemoryFormat::ChannelsLast));
}

// Whether the channels of each pixel lie together and pixels follow each other at one distance, which `pixel` becomes.
inline bool rows_of_pixels(const at::Tensor& t, int64_t& pixel) {
  if (t.dim() != 4 || (t.size(1) > 1 && t.stride(1) != 1)) return false;
  pixel = t.size(3) > 1 ? t.stride(3) : t.size(2) > 1 ? t.stride(2) : t.size(0) > 1 ? t.stride(0) : t.size(1);
  return (t.size(2) <= 1 || t.stride(2) == pixel * t.size(3)) && (t.size(0) <= 1 || t.stride(0) == pixel * t.size(2) * t.size(3));
}

// Calls `body` with a null pointer to what a value of the tensor is: float, or the bits of a bfloat16.
template <typename Body>
void with_type(const at::Tensor& tensor, Body body) {
  if (tensor.scalar_type() == at::kFloat) body(static_cast<float*>(nullptr));
  else body(static_cast<uint16_t*>(nullptr));
}
