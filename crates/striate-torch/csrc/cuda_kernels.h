// Our kernels for NVIDIA GPUs (cuda/), where they are loaded.
#pragma once
#include "common.h"
#include "cuda/launch.h"

#include <ATen/ops/empty.h>

// What serves tensors of this device and type; nullptr if nothing does.
const Card* card_of(const at::Tensor& tensor);

// Values of a vector of 16 bytes.
inline int vector_values(const at::Tensor& tensor) { return 16 / static_cast<int>(tensor.element_size()); }

// Whole vectors of every type.
constexpr int64_t kCardMultiple = 8;

inline bool is_aligned(const at::Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0; }

// Channels-last, and where a GPU reads vectors of it.
inline at::Tensor laid_out(const at::Tensor& tensor) {
  const at::Tensor laid = tensor.contiguous(at::MemoryFormat::ChannelsLast);
  return laid.is_cpu() || is_aligned(laid) ? laid : laid.clone();
}

// Pixels of all images.
inline int64_t rows_of(const at::Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

inline at::Tensor unwritten(at::IntArrayRef size, at::ScalarType type, const at::Tensor& like) {
  return at::empty(size, like.options().dtype(type).memory_format(at::MemoryFormat::Contiguous));
}
