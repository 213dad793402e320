// Batch norm in training by the statistics of the batch of all processes, exact whatever part of it each has.
#include "common.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/var_mean.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace {

using Processes = c10::intrusive_ptr<c10d::ProcessGroup>;

at::Tensor of_channels(const at::Tensor& values) { return values.view({1, -1, 1, 1}); }

// Count, mean and sum of squared distances from it, of all parts, by the formulas of Chan, Golub and LeVeque (1979), in the order of the ranks:
// each process has the same.
struct Moments {
  double count = 0;
  at::Tensor mean, squares;

  void add(const at::Tensor& part, int64_t channels) {
    const double n = part[2 * channels].item<double>();
    if (n == 0) return;
    const at::Tensor of_mean = part.narrow(0, 0, channels), of_squares = part.narrow(0, channels, channels);
    if (count == 0) {
      mean = of_mean.clone();
      squares = of_squares.clone();
    } else {
      const at::Tensor apart = of_mean - mean;
      mean += apart * (n / (count + n));
      squares += of_squares + apart * apart * (count * n / (count + n));
    }
    count += n;
  }
};

class SyncBatchNorm : public torch::autograd::Function<SyncBatchNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, at::Tensor running_mean, at::Tensor running_var, double momentum, double eps,
                            const Processes& group) {
    TORCH_CHECK(x.dim() == 4, "batch norm takes images");
    const int64_t channels = x.size(1);
    const at::ScalarType kind = running_mean.scalar_type();
    const double own = static_cast<double>(x.size(0) * x.size(2) * x.size(3));
    const at::Tensor values = x.scalar_type() == kind ? x : x.to(kind);
    const auto [variance, average] = at::var_mean(values, at::IntArrayRef{0, 2, 3}, /*unbiased=*/false, /*keepdim=*/false);
    const at::Tensor sent = at::cat({average.to(at::kDouble), variance.to(at::kDouble) * own, at::full({1}, own, average.options().dtype(at::kDouble))});
    std::vector<std::vector<at::Tensor>> parts(1);
    for (int rank = 0; rank < group->getSize(); ++rank) parts[0].push_back(at::empty_like(sent));
    std::vector<at::Tensor> inputs = {sent};
    group->allgather(parts, inputs)->wait();
    Moments all;
    for (const at::Tensor& part : parts[0]) all.add(part, channels);
    TORCH_CHECK(all.count > 1, "batch norm has no variance over one value per channel: train with a larger batch or image");
    const at::Tensor mean = all.mean.to(kind), var = (all.squares / all.count).to(kind);
    running_mean.lerp_(mean, momentum);
    running_var.lerp_((all.squares / (all.count - 1)).to(kind), momentum);
    const at::Tensor y = std::get<0>(at::native_batch_norm(values, weight, bias, mean, var, /*training=*/false, 0.0, eps));
    context->save_for_backward({x, weight.value_or(at::Tensor()), mean, var});
    context->saved_data["eps"] = eps;
    context->saved_data["count"] = all.count;
    context->saved_data["group"] = group;
    return y.to(x.scalar_type());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "synchronised batch norm has no second derivative");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &var = saved[3];
    const double eps = context->saved_data["eps"].toDouble(), count = context->saved_data["count"].toDouble();
    const auto group = context->saved_data["group"].toCustomClass<c10d::ProcessGroup>();
    const at::ScalarType kind = mean.scalar_type();
    const at::Tensor values = x.to(kind), gradient = gradients[0].to(kind);
    const std::optional<at::Tensor> scale = weight.defined() ? std::optional<at::Tensor>(weight) : std::nullopt;
    // As if the statistics were given.
    auto [of_x, of_weight, of_bias] =
        at::native_batch_norm_backward(gradient, values, scale, mean, var, std::nullopt, std::nullopt, /*train=*/false, eps, {true, true, true});
    std::vector<at::Tensor> sums = {at::cat({of_bias, of_weight}).to(at::kDouble)};
    group->allreduce(sums)->wait();
    // And what they are to each value.
    const int64_t channels = mean.numel();
    const at::Tensor wide = mean.to(at::kDouble), inverse = (var.to(at::kDouble) + eps).rsqrt();
    at::Tensor factor = inverse / count;
    if (weight.defined()) factor = factor * weight.to(at::kDouble);
    const at::Tensor slope = factor * inverse * sums[0].narrow(0, channels, channels);
    const at::Tensor offset = factor * sums[0].narrow(0, 0, channels) - wide * slope;
    of_x.sub_(of_channels(offset.to(kind))).sub_(values * of_channels(slope.to(kind)));
    torch::autograd::variable_list result(8);
    result[0] = of_x.to(x.scalar_type());
    if (context->needs_input_grad(1)) result[1] = of_weight;
    if (context->needs_input_grad(2)) result[2] = of_bias;
    return result;
  }
};

}  // namespace

char* st_sync_batch_norm(st_group group, st_tensor x, st_tensor weight, st_tensor bias, st_tensor running_mean, st_tensor running_var, double momentum,
                         double eps, st_tensor* out) {
  return caught([&] {
    const auto optional = [](st_tensor tensor) { return tensor == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(tensor)); };
    *out = new at::Tensor(SyncBatchNorm::apply(tensor_of(x), optional(weight), optional(bias), tensor_of(running_mean), tensor_of(running_var), momentum, eps,
                                               *static_cast<Processes*>(group)));
  });
}
