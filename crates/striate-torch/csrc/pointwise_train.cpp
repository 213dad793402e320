// 1x1 convolutions of float32 with their gradients: that of the input is the product with the weight turned around, that of the weight the sum over pixels of
// the outer product of the output's gradient and the input.
#include "outer.h"
#include "pixels.h"
#include "pointwise.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

// Pixels that are multiplied at once, so that a panel of them stays in the nearest cache, and the channels of them that stay in the next one.
constexpr int64_t kPixels = 96, kStrip = 512;
// The sums that each thread can have for itself, if threads share out pixels and not sums.
constexpr int64_t kOwnSums = int64_t{1} << 17;
constexpr int64_t kOneStep[2] = {1, 1};

// Rows of pixels, `step` apart.
struct Pixels {
  const float* values;
  int64_t step;
};

// Copies `width` values of each of `count` pixels, whole panels of them one after the other if `panels`.
FOR_EACH_PROCESSOR void gather(const Pixels& from, int64_t begin, int64_t count, int64_t column, int64_t width, float* to, int64_t to_step, bool panels) {
  for (int64_t i = 0; i < count; ++i) {
    const float* pixel = from.values + (begin + i) * from.step + column;
    for (int64_t c = 0; c < width; c += kLanes) store(to + i * to_step + (panels ? c / kPanel * kPixels * kPanel + c % kPanel : c), load(pixel + c));
  }
}

// The gradient of a weight.
struct Sums {
  Pixels gradient, input;
  int64_t out_channels, channels;

  // Of the pixels begin..end, in the columns first..last, into `sums` [out, in].
  void add(int64_t begin, int64_t end, int64_t first, int64_t last, float* sums, float* scratch) const {
    // Other than a power of two, or the values of a channel would share a few places of the cache.
    constexpr int64_t y_step = kStrip + kLanes;
    float *x = scratch, *y = scratch + kPixels * kStrip;
    for (int64_t at = begin; at < end; at += kPixels) {
      const int64_t count = std::min(kPixels, end - at);
      for (int64_t start = first; start < last; start += kStrip) {
        const int64_t width = std::min(kStrip, last - start);
        gather(input, at, count, start, width, x, kPanel, true);
        for (int64_t row = 0; row < out_channels; row += kStrip) {
          const int64_t rows = std::min(kStrip, out_channels - row);
          gather(gradient, at, count, row, rows, y, y_step, false);
          for (int64_t c = 0; c < width; c += kPanel)
            multiply_outer({y, x + c * kPixels, y_step, kPanel, count, sums + row * channels + start + c, channels, at == begin}, rows, std::min(kPanel, width - c));
        }
      }
    }
  }

  static constexpr int64_t scratch() { return kPixels * (kStrip + kStrip + kLanes); }
};

at::Tensor weight_gradient(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& weight) {
  const Sums sums{{gradient.const_data_ptr<float>(), weight.size(0)}, {input.const_data_ptr<float>(), weight.size(1)}, weight.size(0), weight.size(1)};
  const int64_t pixels = input.size(0) * input.size(2) * input.size(3), size = sums.out_channels * sums.channels;
  const int64_t panels = (sums.channels + kPanel - 1) / kPanel, threads = at::get_num_threads();
  // Contiguous by either name.
  at::Tensor result = at::empty_like(weight, weight.is_contiguous() ? at::MemoryFormat::Preserve : at::MemoryFormat::Contiguous);
  const auto options = result.options().memory_format(at::MemoryFormat::Contiguous);
  at::Tensor scratch = at::empty({threads, Sums::scratch()}, options);
  float *to = result.data_ptr<float>(), *apart = scratch.data_ptr<float>();
  if (pixels == 0) return result.zero_();
  if (size > kOwnSums) {
    const int64_t parts = std::min(threads, panels);
    parallel(parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part)
        sums.add(0, pixels, part * panels / parts * kPanel, std::min((part + 1) * panels / parts * kPanel, sums.channels), to,
                 apart + part * Sums::scratch());
    });
    return result;
  }
  const int64_t parts = std::min(threads, (pixels + kPixels - 1) / kPixels);
  at::Tensor others = at::empty({parts - 1, size}, options);
  float* more = others.data_ptr<float>();
  parallel(parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      sums.add(part * pixels / parts, (part + 1) * pixels / parts, 0, sums.channels, part == 0 ? to : more + (part - 1) * size, apart + part * Sums::scratch());
  });
  for (int64_t part = 1; part < parts; ++part) result.add_(others.select(0, part - 1).view(result.sizes()));
  return result;
}

class Convolution1x1 : public torch::autograd::Function<Convolution1x1> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor input, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    const at::Tensor shifts = bias.has_value() ? bias->contiguous() : zeros(weight.size(0), weight);
    input = input.contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor output = pointwise(input, pointwise_panels(matrix(weight), false), shifts, kOneStep, weight.size(0), at::Tensor(), false, false);
    context->save_for_backward({input, weight});
    context->saved_data["bias"] = bias.has_value();
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this convolution has no second derivative: derive libtorch's (conv2d) for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1];
    const at::Tensor gradient = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    torch::autograd::variable_list result(3);
    if (context->needs_input_grad(0))
      result[0] = pointwise(gradient, pointwise_panels(matrix(weight), true), zeros(weight.size(1), weight), kOneStep, weight.size(1), at::Tensor(), false, false);
    if (context->needs_input_grad(1)) result[1] = weight_gradient(input, gradient, weight);
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) result[2] = gradient.sum({0, 2, 3});
    return result;
  }

 private:
  static at::Tensor zeros(int64_t count, const at::Tensor& like) { return at::zeros({count}, like.options().memory_format(at::MemoryFormat::Contiguous)); }
  static at::Tensor matrix(const at::Tensor& weight) { return weight.contiguous().view({weight.size(0), weight.size(1)}); }
};

}  // namespace

char* st_conv1x1(st_tensor input, st_tensor weight, st_tensor bias, st_tensor* out) {
  return caught([&] {
    const at::Tensor &x = tensor_of(input), &w = tensor_of(weight);
    const auto optional = bias == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(bias));
    TORCH_CHECK(x.dim() == 4 && w.dim() == 4 && w.size(2) == 1 && w.size(3) == 1 && w.size(1) == x.size(1), "expected images and a weight [out, in, 1, 1], got ",
                x.sizes(), " and ", w.sizes());
    TORCH_CHECK(w.size(0) % kLanes == 0 && w.size(1) % kLanes == 0 && w.numel() > 0, "expected multiples of ", kLanes, " channels, got ", w.sizes());
    // Autocasting has convolutions read bfloat16.
    if (at::autocast::is_autocast_enabled(at::kCPU)) {
      *out = new at::Tensor(at::conv2d(x, w, optional));
      return;
    }
    const auto floats = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
    TORCH_CHECK(floats(x) && floats(w) && (!optional.has_value() || (floats(*optional) && optional->sizes() == at::IntArrayRef{w.size(0)})),
                "expected images, a weight and a bias for each output channel of float32 on the CPU");
    *out = new at::Tensor(Convolution1x1::apply(x, w, optional));
  });
}
