// Our kernels for NVIDIA GPUs (cuda/), where they are loaded.
#pragma once
#include "common.h"
#include "cuda/launch.h"

// What serves tensors of this device and type; nullptr if nothing does.
const Card* card_of(const at::Tensor& tensor);

// Values of a vector of 16 bytes.
inline int vector_values(const at::Tensor& tensor) { return 16 / static_cast<int>(tensor.element_size()); }

// Whole vectors of every type.
constexpr int64_t kCardMultiple = 8;

inline bool is_aligned(const at::Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0; }
