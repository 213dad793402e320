// Convolutions with gradients. That of the weight is ours (weight_gradient.cpp); 1x1 convolutions at stride 1, and the gradients of their inputs, are our
// products of pixels and weights (pointwise.cpp), all else libtorch's.
#include "pointwise.h"
#include "weight_gradient.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

Window window_of(const int64_t* geometry) {
  Window window;
  memcpy(&window, geometry, sizeof window);
  return window;
}

class Convolution : public torch::autograd::Function<Convolution> {
 public:
  // The weight is float32, the images float32 or bfloat16; `geometry` is padding, stride and dilation.
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const std::vector<int64_t>& geometry) {
    const Window window = window_of(geometry.data());
    const at::Tensor used = weight.to(input.scalar_type());
    input = input.contiguous(at::MemoryFormat::ChannelsLast);
    context->save_for_backward({input, used});
    context->saved_data["geometry"] = geometry;
    context->saved_data["bias"] = bias.has_value();
    if (is_product(used, window)) return product(input, used, bias, false);
    return at::conv2d(input, used, bias.has_value() ? std::optional(bias->to(input.scalar_type())) : bias, window.stride, window.padding, window.dilation);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this convolution has no second derivative: derive libtorch's (conv2d) for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &used = saved[1];
    const Window window = window_of(context->saved_data["geometry"].toIntVector().data());
    const at::Tensor gradient = gradients[0].to(input.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    torch::autograd::variable_list result(4);
    if (context->needs_input_grad(0)) {
      result[0] = is_product(used, window) ? product(gradient, used, std::nullopt, true)
                                           : std::get<0>(at::convolution_backward(gradient, input, used, std::nullopt, window.stride, window.padding,
                                                                                  window.dilation, false, {0, 0}, 1, {true, false, false}));
    }
    if (context->needs_input_grad(1)) result[1] = weight_gradient(input, gradient, used, window);
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) result[2] = gradient.sum({0, 2, 3}, false, at::kFloat);
    return result;
  }

 private:
  static bool is_product(const at::Tensor& weight, const Window& window) {
    return weight.size(2) == 1 && weight.size(3) == 1 && window.padding[0] == 0 && window.padding[1] == 0 && window.stride[0] == 1 && window.stride[1] == 1;
  }

  // With the weight, or with the weight turned around, which gives the gradient of the input.
  static at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, bool around) {
    const int64_t columns = weight.size(around ? 1 : 0);
    const at::Tensor shifts = bias.has_value() ? bias->contiguous() : at::zeros({columns}, at::TensorOptions().dtype(at::kFloat));
    const at::Tensor matrix = weight.contiguous().view({weight.size(0), weight.size(1)});
    return pointwise(x, pointwise_panels(matrix, around), shifts, kOnePixel, columns, at::Tensor(), false, false);
  }
};

}  // namespace

char* st_conv_train(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, st_tensor* out) {
  return caught([&] {
    const at::Tensor& w = tensor_of(weight);
    const auto optional = bias == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(bias));
    // Autocasting has convolutions read bfloat16, and the weight stays what it is; or float16, which is libtorch's to do.
    at::Tensor x = tensor_of(input);
    if (at::autocast::is_autocast_enabled(at::kCPU)) {
      if (at::autocast::get_autocast_dtype(at::kCPU) != at::kBFloat16 || st_has_bf16_products() == 0) {
        const Window window = window_of(geometry);
        *out = new at::Tensor(at::conv2d(x, w, optional, window.stride, window.padding, window.dilation));
        return;
      }
      if (x.scalar_type() == at::kFloat) x = x.to(at::kBFloat16);
    }
    const bool type = x.scalar_type() == at::kFloat || (x.scalar_type() == at::kBFloat16 && st_has_bf16_products() != 0);
    const auto floats = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
    TORCH_CHECK(x.dim() == 4 && w.dim() == 4 && w.size(1) == x.size(1), "expected images and a weight [out, in, height, width], got ", x.sizes(), " and ",
                w.sizes());
    TORCH_CHECK(w.size(0) % kMultiple == 0 && w.size(1) % kMultiple == 0 && w.numel() > 0, "expected multiples of ", kMultiple, " channels, got ", w.sizes());
    TORCH_CHECK(x.is_cpu() && type && floats(w) && (!optional.has_value() || (floats(*optional) && optional->sizes() == at::IntArrayRef{w.size(0)})),
                "expected images of float32, or of bfloat16 if this processor multiplies such, and a weight and a bias for each output channel of float32, on the CPU");
    *out = new at::Tensor(Convolution::apply(x, w, optional, std::vector<int64_t>(geometry, geometry + 6)));
  });
}
