// Winograd's convolution with its gradients (kernels/winograd_train.cpp). The gradient of the input is the convolution of dy with the kernel turned around,
// inputs and outputs exchanged.
#include "winograd.h"

#include "pixels.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

// For the convolution, or, turned around, for the gradient of its input.
Kernels kernels_of(const at::Tensor& weight, bool around) {
  const int64_t down = weight.stride(2), across = weight.stride(3);
  float* values = weight.data_ptr<float>();
  return around ? Kernels{values + 2 * down + 2 * across, weight.stride(0), weight.stride(1), -down, -across}
                : Kernels{values, weight.stride(1), weight.stride(0), down, across};
}

// The gradient of a weight, which lies as the weight does.
at::Tensor winograd_gradient(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& weight, const Tiles& tiles) {
  if (tiles.count() == 0) return at::zeros_like(weight);
  at::Tensor result = at::empty_like(weight);
  with_type(input, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    winograd_weight_gradient(WinogradGradient<T>{static_cast<const T*>(input.const_data_ptr()), static_cast<const T*>(gradient.const_data_ptr()), tiles,
                                                 input.size(1), gradient.size(1)},
                             kernels_of(result, false));
  });
  return result;
}

class Convolution3x3 : public torch::autograd::Function<Convolution3x3> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            int64_t top, int64_t left) {
    TORCH_CHECK(input.dim() == 4 && weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 && weight.size(1) == input.size(1),
                "Winograd's convolution takes images and a weight [out, in, 3, 3], got ", input.sizes(), " and ", weight.sizes());
    TORCH_CHECK(weight.size(0) % kMultiple == 0 && weight.size(1) % kMultiple == 0, "Winograd's convolution takes multiples of ", kMultiple, " channels, got ",
                weight.sizes());
    TORCH_CHECK(top >= 0 && top <= 2 && left >= 0 && left <= 2, "Winograd's convolution takes a padding of at most 2");
    TORCH_CHECK(weight.scalar_type() == at::kFloat && weight.is_cpu(), "Winograd's convolution takes a float32 weight on the CPU");
    const float* bias_values = nullptr;
    if (bias.has_value()) {
      TORCH_CHECK(bias->is_contiguous() && bias->scalar_type() == at::kFloat && bias->is_cpu() && bias->numel() == weight.size(0),
                  "Winograd's convolution takes a float32 bias for each output channel, on the CPU");
      bias_values = bias->const_data_ptr<float>();
    }
    input = input.contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor output = winograd(input, {nullptr, kernels_of(weight, false)}, bias_values, top, left, weight.size(0), at::Tensor(), false, false);
    context->save_for_backward({input, weight});
    context->saved_data["top"] = top;
    context->saved_data["left"] = left;
    context->saved_data["bias"] = bias.has_value();
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "Winograd's convolution has no second derivative: derive libtorch's (conv2d) for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1];
    const int64_t top = context->saved_data["top"].toInt(), left = context->saved_data["left"].toInt();
    const at::Tensor gradient = gradients[0].to(input.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    torch::autograd::variable_list result(5);
    if (context->needs_input_grad(0))
      result[0] = winograd(gradient, {nullptr, kernels_of(weight, true)}, nullptr, 2 - top, 2 - left, weight.size(1), at::Tensor(), false, false);
    if (context->needs_input_grad(1)) result[1] = winograd_gradient(input, gradient, weight, tiles_of(input, top, left));
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) result[2] = gradient.sum({0, 2, 3}, false, at::kFloat);
    return result;
  }
};

}  // namespace

char* st_winograd_weight(st_tensor weight, st_tensor* out) {
  return caught([&] {
    const at::Tensor& kernels = tensor_of(weight);
    at::Tensor packed = at::empty({kPoints, kernels.size(1) * kernels.size(0)}, kernels.options().memory_format(at::MemoryFormat::Contiguous));
    winograd_weight(kernels_of(kernels, false), kernels.size(1), kernels.size(0), packed.data_ptr<float>());
    *out = new at::Tensor(packed);
  });
}

char* st_conv3x3(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* padding, st_tensor* out) {
  return caught([&] {
    const auto optional = bias == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(bias));
    // Autocasting has convolutions read bfloat16; the weight stays what it is.
    const bool half = at::autocast::is_autocast_enabled(at::kCPU) && at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16;
    const at::Tensor images = half ? tensor_of(input).to(at::kBFloat16) : tensor_of(input);
    *out = new at::Tensor(Convolution3x3::apply(images, tensor_of(weight), optional, padding[0], padding[1]));
  });
}
