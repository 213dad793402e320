// 1x1 convolutions of channels-last images, and linear layers, whose examples are images of one pixel (kernels/pointwise.cpp).
#include "pointwise.h"

#include "kernels/kernels.h"
#include "pixels.h"

at::Tensor pointwise_panels(const at::Tensor& weight, bool around) {
  const bool pairs = weight.scalar_type() == at::kBFloat16;
  TORCH_CHECK(weight.dim() == 2 && weight.is_cpu() && weight.is_contiguous() && (pairs || weight.scalar_type() == at::kFloat),
              "expected a weight [out, in] on the CPU");
  const int64_t rows = weight.size(0), width = weight.size(1), depth = around ? rows : width, columns = around ? width : rows;
  TORCH_CHECK(depth > 0, "the weight is empty");
  TORCH_CHECK(!pairs || (depth % 2 == 0 && st_has_bf16_products() != 0), "there are no products of pairs of ", depth, " channels");
  const int64_t padded = (columns + kMultiple - 1) / kMultiple * kMultiple;
  at::Tensor panels = at::empty({padded * depth}, weight.options());
  with_type(weight, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* values = static_cast<const T*>(weight.const_data_ptr());
    pack(Matrix<T>{values, depth, around ? width : 1, columns, around ? 1 : width}, padded, static_cast<T*>(panels.data_ptr()));
  });
  return panels;
}

at::Tensor pointwise(at::Tensor x, const at::Tensor& weight, const at::Tensor& shifts, const int64_t* stride, int64_t out_channels,
                     at::Tensor added, bool relu, bool in_place) {
  const int64_t columns = shifts.numel(), down = stride[0], across = stride[1];
  TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.scalar_type() == weight.scalar_type(), "expected images of the weight's type on the CPU");
  TORCH_CHECK(weight.numel() == x.size(1) * columns, "the weight is for other channels");
  int64_t pixel = x.size(1);
  if (!rows_of_pixels(x, pixel)) {
    x = x.contiguous(at::MemoryFormat::ChannelsLast);
    pixel = x.size(1);
  }
  const auto steps = [](int64_t size, int64_t step) { return size == 0 ? 0 : (size - 1) / step + 1; };
  const std::vector<int64_t> size{x.size(0), out_channels, steps(x.size(2), down), steps(x.size(3), across)};
  if (added.defined()) {
    added = added.contiguous(at::MemoryFormat::ChannelsLast);
    TORCH_CHECK(added.sizes() == size && added.scalar_type() == x.scalar_type() && added.is_cpu(), "what is added has another shape");
  }
  // What is read again after some of it is written is not written over.
  at::Tensor output = in_place && added.defined() && !added.is_alias_of(x) ? added : channels_last(size, x);
  const int64_t row = x.size(3) * pixel, count = size[0] * size[2] * size[3];
  const Reading reading{size[2], size[3], x.size(2) * row, row * down, pixel * across, down == 1 && across == 1};
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* plus = added.defined() ? static_cast<const T*>(added.const_data_ptr()) : nullptr;
    multiply(Product<T>{static_cast<const T*>(x.const_data_ptr()), reading, static_cast<const T*>(weight.const_data_ptr()),
                        shifts.const_data_ptr<float>(), plus, static_cast<T*>(output.data_ptr()), count, x.size(1), out_channels, relu});
  });
  return output;
}

char* st_pointwise_weight(st_tensor weight, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(pointwise_panels(tensor_of(weight), false)); });
}

char* st_pointwise(st_tensor input, st_tensor panels, st_tensor bias, const int64_t* stride, int64_t out_channels, st_tensor other, int relu, int in_place,
                   st_tensor* out) {
  return caught([&] {
    const at::Tensor added = other == nullptr ? at::Tensor() : tensor_of(other);
    *out = new at::Tensor(pointwise(tensor_of(input), tensor_of(panels), tensor_of(bias), stride, out_channels, added, relu != 0, in_place != 0));
  });
}
