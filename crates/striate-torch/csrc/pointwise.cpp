// Convolutions of channels-last images as products of what each window reads and weights, and linear layers, whose examples are images of one pixel
// (kernels/pointwise.cpp).
#include "pointwise.h"

#include "kernels/kernels.h"
#include "pixels.h"

#include <ATen/Parallel.h>

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

namespace {

// What one thread copies sooner than it hands on.
constexpr int64_t kFewBytes = int64_t{1} << 18;

// The images with zeros around them: dense pixels.
at::Tensor with_zeros(const at::Tensor& x, const int64_t* padding) {
  const int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3), top = padding[0], left = padding[1];
  const int64_t pixel = channels * x.element_size(), inner = width * pixel, side = left * pixel, row = inner + 2 * side, rows = height + 2 * top;
  at::Tensor padded = channels_last({images, channels, rows, width + 2 * left}, x);
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(padded.data_ptr());
  at::parallel_for(0, images * rows, std::max<int64_t>(1, kFewBytes / std::max<int64_t>(1, row)), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      char* line = to + i * row;
      const int64_t h = i % rows - top;
      if (h < 0 || h >= height) {
        memset(line, 0, row);
        continue;
      }
      memset(line, 0, side);
      memcpy(line + side, from + (i / rows * height + h) * inner, inner);
      memset(line + side + inner, 0, side);
    }
  });
  return padded;
}

}  // namespace

at::Tensor pointwise(at::Tensor x, const at::Tensor& weight, const at::Tensor& shifts, const SizedWindow& window, int64_t out_channels,
                     at::Tensor added, bool relu, bool in_place) {
  const int64_t columns = shifts.numel(), places = window.size[0] * window.size[1];
  TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.scalar_type() == weight.scalar_type(), "expected images of the weight's type on the CPU");
  TORCH_CHECK(weight.numel() == x.size(1) * places * columns, "the weight is for other channels");
  int64_t pixel = x.size(1);
  if (!rows_of_pixels(x, pixel) || (places > 1 && pixel != x.size(1))) {
    x = x.contiguous(at::MemoryFormat::ChannelsLast);
    pixel = x.size(1);
  }
  if (window.padding[0] > 0 || window.padding[1] > 0) {
    x = with_zeros(x.contiguous(at::MemoryFormat::ChannelsLast), window.padding);
    pixel = x.size(1);
  }
  const auto steps = [&](int axis) {
    const int64_t last = x.size(2 + axis) - window.size[axis];
    return last < 0 ? 0 : last / window.stride[axis] + 1;
  };
  const std::vector<int64_t> size{x.size(0), out_channels, steps(0), steps(1)};
  if (added.defined()) {
    added = added.contiguous(at::MemoryFormat::ChannelsLast);
    TORCH_CHECK(added.sizes() == size && added.scalar_type() == x.scalar_type() && added.is_cpu(), "what is added has another shape");
  }
  // What is read again after some of it is written is not written over.
  at::Tensor output = in_place && added.defined() && !added.is_alias_of(x) ? added : channels_last(size, x);
  const int64_t row = x.size(3) * pixel, count = size[0] * size[2] * size[3], run = window.size[1] * x.size(1);
  const int64_t down = window.stride[0], across = window.stride[1];
  const Reading reading{size[2], size[3], x.size(2) * row, row * down, pixel * across, places == 1 && down == 1 && across == 1};
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* plus = added.defined() ? static_cast<const T*>(added.const_data_ptr()) : nullptr;
    multiply(Product<T>{static_cast<const T*>(x.const_data_ptr()), reading, static_cast<const T*>(weight.const_data_ptr()),
                        shifts.const_data_ptr<float>(), plus, static_cast<T*>(output.data_ptr()), count, x.size(1) * places, out_channels, relu, run, row - run});
  });
  return output;
}

char* st_pointwise_weight(st_tensor weight, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(pointwise_panels(tensor_of(weight), false)); });
}

char* st_pointwise(st_tensor input, st_tensor panels, st_tensor bias, const int64_t* window, int64_t out_channels, st_tensor other, int relu, int in_place,
                   st_tensor* out) {
  return caught([&] {
    const at::Tensor added = other == nullptr ? at::Tensor() : tensor_of(other);
    SizedWindow sized;
    memcpy(&sized, window, sizeof sized);
    *out = new at::Tensor(pointwise(tensor_of(input), tensor_of(panels), tensor_of(bias), sized, out_channels, added, relu != 0, in_place != 0));
  });
}
