// Batch norm in training, of channels-last images: float32 or bfloat16 on the CPU (kernels/norm.cpp), those and float16 on a GPU (cuda/kernels.cu).
#include "cuda_kernels.h"
#include "kernels/kernels.h"
#include "pixels.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

template <typename T>
const T* values(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

bool is_channels(const at::Tensor& tensor, int64_t channels, at::Device device) {
  return tensor.scalar_type() == at::kFloat && tensor.device() == device && tensor.is_contiguous() && tensor.numel() == channels;
}

// What normalises, and what follows.
struct Arguments {
  std::optional<at::Tensor> weight, bias;
  at::Tensor added, running_mean, running_var, counter;
  double momentum, eps;
  bool relu;

  static const float* parameter(const std::optional<at::Tensor>& tensor) { return tensor.has_value() ? tensor->const_data_ptr<float>() : nullptr; }
};

// Writes `y` and `statistics`; gives what the gradient needs to know which values the ReLU let through.
at::Tensor forward_on_cpu(const Arguments& with, const at::Tensor& x, const at::Tensor& statistics, const at::Tensor& y) {
  if (with.counter.defined()) with.counter.add_(1);
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    batch_norm(Norm<T>{values<T>(x), values<T>(with.added), with.parameter(with.weight), with.parameter(with.bias), with.running_mean.data_ptr<float>(),
                       with.running_var.data_ptr<float>(), with.momentum, with.eps, with.relu, rows_of(x), x.size(1), statistics.data_ptr<float>(),
                       static_cast<T*>(y.data_ptr())});
  });
  return with.relu ? y : at::Tensor();
}

at::Tensor forward_on(const Card& card, const Arguments& with, const at::Tensor& x, const at::Tensor& statistics, const at::Tensor& y) {
  TORCH_CHECK(x.numel() / vector_values(x) < kMost, "this batch norm takes fewer values on a GPU");
  const int rows = static_cast<int>(rows_of(x)), vectors = static_cast<int>(x.size(1)) / vector_values(x);
  const NormShape shape(rows, vectors, card);
  const at::Tensor partials = unwritten({shape.parts, 2, x.size(1)}, at::kFloat, x);
  at::Tensor mask;
  if (with.relu && with.added.defined()) mask = unwritten({static_cast<int64_t>(shape.mask(rows))}, at::kByte, x);
  const NormForward norm{.x = x.const_data_ptr(),
                         .other = with.added.defined() ? with.added.const_data_ptr() : nullptr,
                         .weight = with.parameter(with.weight),
                         .bias = with.parameter(with.bias),
                         .running_mean = with.running_mean.data_ptr<float>(),
                         .running_var = with.running_var.data_ptr<float>(),
                         .counter = reinterpret_cast<long long*>(with.counter.defined() ? with.counter.data_ptr<int64_t>() : nullptr),
                         .partials = partials.data_ptr<float>(),
                         .statistics = statistics.data_ptr<float>(),
                         .y = y.data_ptr(),
                         .mask = mask.defined() ? mask.data_ptr<uint8_t>() : nullptr,
                         .momentum = with.momentum,
                         .eps = with.eps,
                         .rows = rows,
                         .vectors = vectors,
                         .parts = shape.parts};
  launch_norm(norm, with.relu, vector_values(x), card);
  return mask;
}

// Gradients; `of_other` is undefined where nobody wants it.
struct Gradients {
  at::Tensor of_x, of_weight, of_bias, of_other;
};

void backward_on_cpu(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& y, const at::Tensor& statistics, const Gradients& to) {
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    batch_norm_gradient(NormGradient<T>{values<T>(gradient), values<T>(y), values<T>(x), statistics.const_data_ptr<float>(), rows_of(x), x.size(1),
                                        to.of_weight.data_ptr<float>(), to.of_bias.data_ptr<float>(), static_cast<T*>(to.of_x.data_ptr()),
                                        to.of_other.defined() ? static_cast<T*>(to.of_other.data_ptr()) : nullptr});
  });
}

// `second` may be undefined; with `mask`, `to.of_other` is not.
void backward_on(const Card& card, const at::Tensor& gradient, const at::Tensor& second, const at::Tensor& x, const at::Tensor& mask, bool relu,
                 const at::Tensor& statistics, const Gradients& to) {
  const int rows = static_cast<int>(rows_of(x)), vectors = static_cast<int>(x.size(1)) / vector_values(x);
  const NormShape shape(rows, vectors, card);
  const at::Tensor partials = unwritten({shape.parts, 2, x.size(1)}, at::kFloat, x);
  const NormBackward norm{.gradient = gradient.const_data_ptr(),
                          .second = second.defined() ? second.const_data_ptr() : nullptr,
                          .x = x.const_data_ptr(),
                          .mask = mask.defined() ? mask.const_data_ptr<uint8_t>() : nullptr,
                          .statistics = statistics.const_data_ptr<float>(),
                          .partials = partials.data_ptr<float>(),
                          .of_weight = to.of_weight.data_ptr<float>(),
                          .of_bias = to.of_bias.data_ptr<float>(),
                          .of_x = to.of_x.data_ptr(),
                          .of_other = to.of_other.defined() ? to.of_other.data_ptr() : nullptr,
                          .rows = rows,
                          .vectors = vectors,
                          .parts = shape.parts};
  launch_norm_gradient(norm, relu, vector_values(x), card);
}

class BatchNorm : public torch::autograd::Function<BatchNorm> {
 public:
  // With `twice`, the output is given a second time, for another reader: their gradients come apart and are added on the way.
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, at::Tensor x, const std::optional<at::Tensor>& weight,
                                                const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& other, at::Tensor running_mean,
                                                at::Tensor running_var, const std::optional<at::Tensor>& counter, double momentum, double eps, bool relu, bool twice) {
    const int64_t channels = x.dim() == 4 ? x.size(1) : 0;
    const Card* card = card_of(x);
    const bool half = x.scalar_type() == at::kBFloat16;
    TORCH_CHECK(card != nullptr || (x.is_cpu() && (x.scalar_type() == at::kFloat || half)),
                "this batch norm takes float32 or bfloat16 images on the CPU, and images on a GPU whose kernels are loaded");
    TORCH_CHECK(channels > 0 && channels % (card != nullptr ? kCardMultiple : kMultiple) == 0,
                "this batch norm takes images with a multiple of 16 channels, or 8 on a GPU");
    TORCH_CHECK(!other.has_value() || (other->sizes() == x.sizes() && other->scalar_type() == x.scalar_type() && other->device() == x.device()),
                "what is added has another shape or type");
    const auto fits = [&](const at::Tensor& tensor) { return is_channels(tensor, channels, x.device()); };
    TORCH_CHECK(fits(running_mean) && fits(running_var) && (!weight.has_value() || fits(*weight)) && (!bias.has_value() || fits(*bias)),
                "batch norm takes float32 parameters, one for each channel");
    TORCH_CHECK(!counter.has_value() || (counter->scalar_type() == at::kLong && counter->device() == x.device() && counter->numel() == 1),
                "batch norm counts batches in one int64");
    x = laid_out(x);
    TORCH_CHECK(rows_of(x) > 1, "batch norm needs more than one value for each channel");
    const Arguments with{weight, bias, other.has_value() ? laid_out(*other) : at::Tensor(), running_mean, running_var, counter.value_or(at::Tensor()), momentum, eps, relu};
    const at::Tensor y = at::empty_like(x), statistics = unwritten({4, channels}, at::kFloat, x);
    const at::Tensor let_through = card != nullptr ? forward_on(*card, with, x, statistics, y) : forward_on_cpu(with, x, statistics, y);
    context->saved_data["relu"] = relu;
    context->saved_data["given"] = std::vector<int64_t>{weight.has_value(), bias.has_value(), other.has_value()};
    context->save_for_backward({x, let_through, statistics});
    context->set_materialize_grads(false);
    if (!twice) return {y};
    // The same memory, and for the autograd engine another tensor.
    const at::AutoDispatchBelowADInplaceOrView guard;
    return {y, y.alias()};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this batch norm has no second derivative: derive libtorch's for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &let_through = saved[1], &statistics = saved[2];
    torch::autograd::variable_list result(11);
    std::vector<at::Tensor> given_back;
    for (const at::Tensor& gradient : gradients)
      if (gradient.defined()) given_back.push_back(laid_out(gradient.to(x.scalar_type())));
    if (given_back.empty()) return result;
    const Card* card = card_of(x);
    // Where sums are taken of what the ReLU let through, they take both.
    const bool both = card != nullptr && let_through.defined();
    const at::Tensor second = both && given_back.size() > 1 ? given_back[1] : at::Tensor();
    const at::Tensor gradient = given_back.size() > 1 && !both ? given_back[0] + given_back[1] : given_back[0];
    const bool relu = context->saved_data["relu"].toBool();
    // Inputs that were not given have no number.
    const std::vector<int64_t> given = context->saved_data["given"].toIntVector();
    size_t number = 1;
    const auto wants = [&](int64_t is_given) { return is_given != 0 && context->needs_input_grad(number++); };
    const bool wants_weight = wants(given[0]), wants_bias = wants(given[1]), wants_other = wants(given[2]);
    at::Tensor of_weight = at::empty({x.size(1)}, statistics.options()), of_bias = at::empty_like(of_weight);
    // On a GPU without a ReLU, what was added has the gradient itself.
    const bool passes = card != nullptr && !relu;
    const Gradients to{at::empty_like(x), of_weight, of_bias, both || (wants_other && !passes) ? at::empty_like(x) : at::Tensor()};
    if (card != nullptr) backward_on(*card, gradient, second, x, let_through, relu, statistics, to);
    else backward_on_cpu(gradient, x, let_through, statistics, to);
    result[0] = to.of_x;
    if (wants_weight) result[1] = of_weight;
    if (wants_bias) result[2] = of_bias;
    if (wants_other) result[3] = passes ? gradient : to.of_other;
    return result;
  }
};

}  // namespace

char* st_batch_norm(st_tensor x, st_tensor weight, st_tensor bias, st_tensor other, st_tensor running_mean, st_tensor running_var, st_tensor counter,
                    double momentum, double eps, int relu, st_tensor* out, st_tensor* twin) {
  return caught([&] {
    const auto optional = [](st_tensor tensor) { return tensor == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(tensor)); };
    const auto outputs = BatchNorm::apply(tensor_of(x), optional(weight), optional(bias), optional(other), tensor_of(running_mean), tensor_of(running_var),
                                          optional(counter), momentum, eps, relu != 0, twin != nullptr);
    *out = new at::Tensor(outputs[0]);
    if (twin != nullptr) *twin = new at::Tensor(outputs[1]);
  });
}
