// Batch norm in training (kernels/norm.cpp), of channels-last float32 or bfloat16 images.
#include "kernels/kernels.h"
#include "pixels.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

int64_t rows_of(const at::Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

template <typename T>
const T* values(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

at::Tensor laid_out(const at::Tensor& tensor) { return tensor.contiguous(at::MemoryFormat::ChannelsLast); }

bool is_channels(const at::Tensor& tensor, int64_t channels) {
  return tensor.scalar_type() == at::kFloat && tensor.is_cpu() && tensor.is_contiguous() && tensor.numel() == channels;
}

class BatchNorm : public torch::autograd::Function<BatchNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& other, at::Tensor running_mean,
                            at::Tensor running_var, double momentum, double eps, bool relu) {
    const int64_t channels = x.dim() == 4 ? x.size(1) : 0;
    TORCH_CHECK(x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && channels > 0 && channels % kMultiple == 0,
                "this batch norm takes float32 or bfloat16 images with a multiple of 16 channels, on the CPU");
    TORCH_CHECK(!other.has_value() || (other->sizes() == x.sizes() && other->scalar_type() == x.scalar_type() && other->is_cpu()),
                "what is added has another shape or type");
    TORCH_CHECK(is_channels(running_mean, channels) && is_channels(running_var, channels) && (!weight.has_value() || is_channels(*weight, channels)) &&
                    (!bias.has_value() || is_channels(*bias, channels)),
                "batch norm takes float32 parameters, one for each channel");
    x = laid_out(x);
    const int64_t rows = rows_of(x);
    TORCH_CHECK(rows > 1, "batch norm needs more than one value for each channel");
    const at::Tensor added = other.has_value() ? laid_out(*other) : at::Tensor();
    at::Tensor y = at::empty_like(x);
    at::Tensor statistics = at::empty({4, channels}, x.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous));
    const auto parameter = [](const std::optional<at::Tensor>& tensor) { return tensor.has_value() ? tensor->const_data_ptr<float>() : nullptr; };
    with_type(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      batch_norm(Norm<T>{values<T>(x), values<T>(added), parameter(weight), parameter(bias), running_mean.data_ptr<float>(), running_var.data_ptr<float>(),
                         momentum, eps, relu, rows, channels, statistics.data_ptr<float>(), static_cast<T*>(y.data_ptr())});
    });
    context->save_for_backward({x, relu ? y : at::Tensor(), statistics});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this batch norm has no second derivative: derive libtorch's for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &y = saved[1], &statistics = saved[2];
    const at::Tensor gradient = laid_out(gradients[0].to(x.scalar_type()));
    const int64_t channels = x.size(1);
    torch::autograd::variable_list result(9);
    at::Tensor of_weight = at::empty({channels}, statistics.options()), of_bias = at::empty_like(of_weight);
    at::Tensor of_x = at::empty_like(x), of_other = context->needs_input_grad(3) ? at::empty_like(x) : at::Tensor();
    with_type(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      batch_norm_gradient(NormGradient<T>{values<T>(gradient), values<T>(y), values<T>(x), statistics.const_data_ptr<float>(), rows_of(x), channels,
                                          of_weight.data_ptr<float>(), of_bias.data_ptr<float>(), static_cast<T*>(of_x.data_ptr()),
                                          of_other.defined() ? static_cast<T*>(of_other.data_ptr()) : nullptr});
    });
    result[0] = of_x;
    if (context->needs_input_grad(1)) result[1] = of_weight;
    if (context->needs_input_grad(2)) result[2] = of_bias;
    result[3] = of_other;
    return result;
  }
};

}  // namespace

char* st_batch_norm(st_tensor x, st_tensor weight, st_tensor bias, st_tensor other, st_tensor running_mean, st_tensor running_var, double momentum,
                    double eps, int relu, st_tensor* out) {
  return caught([&] {
    const auto optional = [](st_tensor tensor) { return tensor == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(tensor)); };
    *out = new at::Tensor(BatchNorm::apply(tensor_of(x), optional(weight), optional(bias), optional(other), tensor_of(running_mean),
                                           tensor_of(running_var), momentum, eps, relu != 0));
  });
}
