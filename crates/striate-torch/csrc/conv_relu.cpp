// A convolution and the ReLU after it with gradients, on a GPU: cuDNN adds the bias and applies the ReLU; one pass takes the gradient through the ReLU and sums it
// up for the bias (cuda/kernels.cu).
#include "cuda_kernels.h"
#include "kernels/kernels.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/cudnn_convolution_relu.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <set>

namespace {

// What cuDNN had no algorithm for, so that it does not look for one at each step.
class Refused {
 public:
  static bool has(const std::vector<int64_t>& convolution) {
    const std::lock_guard<std::mutex> lock(all().mutex);
    return all().known.contains(convolution);
  }
  static void add(const std::vector<int64_t>& convolution) {
    const std::lock_guard<std::mutex> lock(all().mutex);
    all().known.insert(convolution);
  }

 private:
  struct All {
    std::mutex mutex;
    std::set<std::vector<int64_t>> known;
  };
  static All& all() {
    static All all;
    return all;
  }
};

class ConvolutionRelu : public torch::autograd::Function<ConvolutionRelu> {
 public:
  // Images and weight are of one type; `geometry` is padding, stride and dilation.
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor x, const at::Tensor& weight, const at::Tensor& bias,
                            const std::vector<int64_t>& geometry) {
    x = x.contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor y = laid_out(output(x, weight, bias.to(x.scalar_type()), geometry));
    TORCH_CHECK(y.numel() / vector_values(y) < kMost, "this convolution gives fewer values");
    context->save_for_backward({x, weight, y});
    context->saved_data["geometry"] = geometry;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this convolution has no second derivative: derive libtorch's (conv2d) for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &y = saved[2];
    const auto [passed, of_bias] = through_relu(laid_out(gradients[0].to(y.scalar_type())), y);
    torch::autograd::variable_list result(4);
    const bool wants_x = context->needs_input_grad(0), wants_weight = context->needs_input_grad(1);
    if (wants_x || wants_weight) {
      const auto geometry = context->saved_data["geometry"].toIntVector();
      std::tie(result[0], result[1], std::ignore) =
          at::convolution_backward(passed, x, weight, std::nullopt, pair_of(geometry.data(), 1), pair_of(geometry.data(), 0), pair_of(geometry.data(), 2), false,
                                   {0, 0}, kGroups, {wants_x, wants_weight, false});
    }
    if (context->needs_input_grad(2)) result[2] = of_bias;
    return result;
  }

 private:
  static constexpr int64_t kGroups = 1;

  static at::Tensor output(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const std::vector<int64_t>& geometry) {
    const auto padding = pair_of(geometry.data(), 0), stride = pair_of(geometry.data(), 1), dilation = pair_of(geometry.data(), 2);
    std::vector<int64_t> convolution = geometry;
    for (const auto& sizes : {x.sizes(), weight.sizes()}) convolution.insert(convolution.end(), sizes.begin(), sizes.end());
    convolution.insert(convolution.end(), {static_cast<int64_t>(x.scalar_type()), x.device().index()});
    if (x.is_cuda() && !Refused::has(convolution)) {
      try {
        return at::cudnn_convolution_relu(x, weight, bias, stride, padding, dilation, kGroups);
      } catch (const std::exception& error) {
        if (is_lack_of_memory(error)) throw;
        Refused::add(convolution);
      }
    }
    return at::conv2d(x, weight, bias, stride, padding, dilation).relu_();
  }

  // The gradient where the ReLU let values through, and its sum for each channel in float32.
  static std::pair<at::Tensor, at::Tensor> through_relu(const at::Tensor& gradient, const at::Tensor& y) {
    const Card* card = card_of(y);
    TORCH_CHECK(card != nullptr, "the kernels of this convolution's gradient are gone");
    const at::Tensor passed = at::empty_like(y);
    const int rows = static_cast<int>(rows_of(y)), vectors = static_cast<int>(y.size(1)) / vector_values(y);
    const at::Tensor partials = unwritten({NormShape(rows, vectors, *card).parts, y.size(1)}, at::kFloat, y);
    launch_relu_gradient(ReluBackward{gradient.const_data_ptr(), y.const_data_ptr(), passed.data_ptr(), partials.data_ptr<float>(), rows, vectors},
                         vector_values(y), *card);
    return {passed, partials.sum(0)};
  }
};

}  // namespace

char* st_conv_relu(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, st_tensor* out) {
  return caught([&] {
    at::Tensor x = tensor_of(input), w = tensor_of(weight);
    const at::Tensor& b = tensor_of(bias);
    if (const auto device = x.device().type(); at::autocast::is_autocast_enabled(device)) {
      x = x.to(at::autocast::get_autocast_dtype(device));
      w = w.to(x.scalar_type());
    }
    TORCH_CHECK(card_of(x) != nullptr, "this convolution with a ReLU takes images on a GPU whose kernels are loaded");
    TORCH_CHECK(x.dim() == 4 && w.dim() == 4 && w.size(1) == x.size(1) && w.size(0) % kCardMultiple == 0 && x.numel() > 0 && w.numel() > 0,
                "expected images and a weight [out, in, height, width], of which out is a multiple of 8, got ", x.sizes(), " and ", w.sizes());
    TORCH_CHECK(w.scalar_type() == x.scalar_type() && w.device() == x.device() && b.device() == x.device() && b.sizes() == at::IntArrayRef{w.size(0)},
                "expected a weight of the images' type and a bias for each output channel, beside the images");
    *out = new at::Tensor(ConvolutionRelu::apply(x, w, b, std::vector<int64_t>(geometry, geometry + 6)));
  });
}
