// All that reads libtorch's headers, as one unit: they take seconds to compile, however little of them is used.
#include "kernels/kernel.h"

#include "c10d.cpp"
#include "conv_relu.cpp"
#include "conv_train.cpp"
#include "cuda.cpp"
#include "cuda_kernels.cpp"
#include "cudnn.cpp"
#include "foreach.cpp"
#include "int8.cpp"
#include "norm.cpp"
#include "pixels.cpp"
#include "pointwise.cpp"
#include "pool.cpp"
#include "shim.cpp"
#include "sync_norm.cpp"
#include "weight_gradient.cpp"
#include "winograd.cpp"
#include "winograd_train.cpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

int64_t thread_count() {
  name_cuda();
  return at::get_num_threads();
}

Floats::Floats(int64_t count) {
  auto* tensor = new at::Tensor(at::empty({count}, at::TensorOptions().dtype(at::kFloat)));
  tensor_ = tensor;
  data_ = tensor->data_ptr<float>();
}

Floats::~Floats() { delete static_cast<at::Tensor*>(tensor_); }
