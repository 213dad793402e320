// cuDNN's convolutions and cuBLAS's products with what follows them. libtorch has the convolutions on CUDA alone, but their names everywhere.
#include "common.h"

#include <ATen/Context.h>
#include <ATen/ops/_addmm_activation.h>
#include <ATen/ops/cudnn_convolution_add_relu.h>
#include <ATen/ops/cudnn_convolution_relu.h>

namespace {

enum Switch { kTf32Products = 1, kTf32Convolutions = 2, kMeasure = 4 };

}  // namespace

char* st_cudnn_conv_relu(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, st_tensor other, st_tensor* out) {
  return caught([&] {
    at::AutoDispatchBelowAutograd guard;
    const at::Tensor &x = tensor_of(input), &w = tensor_of(weight);
    const auto b = bias == nullptr ? std::nullopt : std::optional<at::Tensor>(tensor_of(bias));
    const auto padding = pair_of(geometry, 0), stride = pair_of(geometry, 1), dilation = pair_of(geometry, 2);
    constexpr int64_t kGroups = 1;
    *out = new at::Tensor(other == nullptr
                              ? at::cudnn_convolution_relu(x, w, b, stride, padding, dilation, kGroups)
                              : at::cudnn_convolution_add_relu(x, w, tensor_of(other), std::nullopt, b, stride, padding, dilation, kGroups));
  });
}

char* st_linear_relu(st_tensor input, st_tensor weight, st_tensor bias, st_tensor* out) {
  return caught([&] {
    at::AutoDispatchBelowAutograd guard;
    *out = new at::Tensor(at::_addmm_activation(tensor_of(bias), tensor_of(input), tensor_of(weight).t()));
  });
}

int st_cuda_switches() {
  const at::Context& context = at::globalContext();
  return (context.allowTF32CuBLAS() ? kTf32Products : 0) | (context.allowTF32CuDNN() ? kTf32Convolutions : 0) | (context.benchmarkCuDNN() ? kMeasure : 0);
}

void st_set_cuda_switches(int switches) {
  at::Context& context = at::globalContext();
  context.setAllowTF32CuBLAS((switches & kTf32Products) != 0);
  context.setAllowTF32CuDNN((switches & kTf32Convolutions) != 0);
  context.setBenchmarkCuDNN((switches & kMeasure) != 0);
}
