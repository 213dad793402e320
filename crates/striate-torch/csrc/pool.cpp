// Max pooling, with the ReLU before it, of channels-last float32 or bfloat16 images, and of bytes (kernels/pool.cpp); on a GPU of float32, bfloat16 or float16
// (cuda/kernels.cu).
#include "cuda_kernels.h"
#include "kernels/kernels.h"
#include "pixels.h"

#include <torch/csrc/autograd/custom_function.h>

namespace {

// The geometry as the kernels of a GPU take it.
template <typename Pooling>
Pooling geometry_of(const Pool& pool, const at::Tensor& items) {
  Pooling geometry = {};
  geometry.items = static_cast<int>(items.numel() / vector_values(items));
  geometry.vectors = static_cast<int>(pool.channels) / vector_values(items);
  for (int i = 0; i < 2; ++i) {
    const Axis& axis = i == 0 ? pool.down : pool.across;
    geometry.in[i] = static_cast<int>(axis.in);
    geometry.out[i] = static_cast<int>(axis.out);
    geometry.kernel[i] = static_cast<int>(axis.kernel);
    geometry.stride[i] = static_cast<int>(axis.stride);
    geometry.padding[i] = static_cast<int>(axis.padding);
  }
  return geometry;
}

at::Tensor pool_forward(const at::Tensor& x, int64_t pixel, const Pool& pool, uint8_t* index) {
  at::Tensor y = channels_last({pool.images, pool.channels, pool.down.out, pool.across.out}, x);
  if (const Card* card = card_of(x)) {
    MaxPooling on_card = geometry_of<MaxPooling>(pool, y);
    on_card.x = x.const_data_ptr();
    on_card.y = y.data_ptr();
    on_card.index = index;
    on_card.relu = pool.relu;
    launch_pool(on_card, *card);
    return y;
  }
  const auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    max_pool(static_cast<const T*>(x.const_data_ptr()), pixel, pool, static_cast<T*>(y.data_ptr()), index);
  };
  if (x.scalar_type() == at::kByte) run(static_cast<uint8_t*>(nullptr));
  else with_type(x, run);
  return y;
}

class MaxPool : public torch::autograd::Function<MaxPool> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, int64_t pixel, const Pool& pool) {
    at::Tensor index = at::empty({pool.images * pool.down.out * pool.across.out * pool.channels + kMultiple}, x.options().dtype(at::kByte));
    at::Tensor y = pool_forward(x, pixel, pool, index.data_ptr<uint8_t>());
    context->save_for_backward({index});
    const Axis &down = pool.down, &across = pool.across;
    context->saved_data["pool"] = std::vector<int64_t>{pool.images, pool.channels, down.in,   down.out,   down.kernel,   down.stride,
                                                       down.padding, across.in, across.out, across.kernel, across.stride, across.padding};
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this max pooling has no second derivative: derive libtorch's for that");
    const auto n = context->saved_data["pool"].toIntVector();
    const Pool pool{n[0], n[1], {n[2], n[3], n[4], n[5], n[6]}, {n[7], n[8], n[9], n[10], n[11]}, false};
    const at::Tensor index = context->get_saved_variables()[0], gradient = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor of_x = channels_last({pool.images, pool.channels, pool.down.in, pool.across.in}, gradient);
    if (const Card* card = card_of(gradient)) {
      const at::Tensor aligned = is_aligned(gradient) ? gradient : gradient.clone();
      MaxPoolingGradient on_card = geometry_of<MaxPoolingGradient>(pool, of_x);
      on_card.gradient = aligned.const_data_ptr();
      on_card.index = index.const_data_ptr<uint8_t>();
      on_card.of_x = of_x.data_ptr();
      launch_pool_gradient(on_card, *card);
      return {of_x, at::Tensor(), at::Tensor()};
    }
    with_type(gradient, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      max_pool_gradient(static_cast<const T*>(gradient.const_data_ptr()), index.const_data_ptr<uint8_t>(), pool, static_cast<T*>(of_x.data_ptr()));
    });
    return {of_x, at::Tensor(), at::Tensor()};
  }
};

// Whether a card takes it: whole pixels of whole vectors.
bool suits_card(const at::Tensor& x, int64_t pixel) {
  return pixel == x.size(1) && pixel % kCardMultiple == 0 && is_aligned(x) && x.numel() / vector_values(x) < kMost;
}

}  // namespace

int st_max_pool(st_tensor tensor, const int64_t* window, int64_t out_height, int64_t out_width, int relu, st_tensor* out) {
  try {
    const at::Tensor& x = tensor_of(tensor);
    int64_t pixel = 0;
    const auto type = x.scalar_type();
    if (!rows_of_pixels(x, pixel) || x.numel() == 0) return 0;
    const bool on_cpu = x.is_cpu() && (type == at::kBFloat16 || type == at::kFloat || type == at::kByte);
    if (card_of(x) != nullptr ? !suits_card(x, pixel) : !on_cpu) return 0;
    const auto axis = [&](int which, int64_t size) { return Axis{x.size(2 + which), size, window[which], window[2 + which], window[4 + which]}; };
    const Pool pool{x.size(0), x.size(1), axis(0, out_height), axis(1, out_width), relu != 0};
    const bool derived = at::GradMode::is_enabled() && x.requires_grad();
    if (derived && pool.down.kernel * pool.across.kernel > kNone) return 0;
    *out = new at::Tensor(derived ? MaxPool::apply(x, pixel, pool) : pool_forward(x, pixel, pool, nullptr));
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}
