#include "winograd.h"

#include "pixels.h"

Tiles tiles_of(const at::Tensor& input, int64_t top, int64_t left) {
  const Tiles tiles(input.size(0), input.size(2), input.size(3), top, left);
  TORCH_CHECK(tiles.out_height > 0 && tiles.out_width > 0, "the input is too small for a window of 3x3");
  return tiles;
}

at::Tensor winograd(at::Tensor input, const WinogradWeight& weight, const float* bias, int64_t top, int64_t left, int64_t out_channels, at::Tensor added,
                    bool relu, bool in_place) {
  const auto kind = input.scalar_type();
  TORCH_CHECK(input.dim() == 4 && input.is_cpu() && (kind == at::kFloat || kind == at::kBFloat16),
              "Winograd's convolution takes float32 or bfloat16 images on the CPU");
  input = input.contiguous(at::MemoryFormat::ChannelsLast);
  const int64_t channels = input.size(1);
  TORCH_CHECK(channels > 0 && out_channels > 0 && channels % kMultiple == 0 && out_channels % kMultiple == 0,
              "Winograd's convolution takes multiples of 16 channels");
  const Tiles tiles = tiles_of(input, top, left);
  std::vector<int64_t> size{tiles.images, out_channels, tiles.out_height, tiles.out_width};
  TORCH_CHECK(!added.defined() || (added.sizes() == size && added.scalar_type() == kind && added.is_cpu()), "what is added has another shape");
  if (added.defined()) added = added.contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor output = in_place && added.defined() ? added : at::empty(size, input.options().memory_format(at::MemoryFormat::ChannelsLast));
  if (tiles.images == 0) return output;
  with_type(input, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* other = added.defined() ? static_cast<const T*>(added.const_data_ptr()) : nullptr;
    winograd(Winograd<T>{static_cast<const T*>(input.const_data_ptr()), weight, {bias, other, relu},
                         static_cast<T*>(output.data_ptr()), tiles, channels, out_channels});
  });
  return output;
}

char* st_winograd(st_tensor input, st_tensor weights, st_tensor bias, const int64_t* padding, int64_t out_channels, st_tensor other, int relu,
                  int in_place, st_tensor* out) {
  return caught([&] {
    const at::Tensor &images = tensor_of(input), &panels = tensor_of(weights);
    TORCH_CHECK(images.dim() == 4 && panels.is_contiguous() && panels.numel() == kPoints * images.size(1) * out_channels, "the weight has another shape");
    const float* bias_values = nullptr;
    if (bias != nullptr) {
      TORCH_CHECK(tensor_of(bias).is_contiguous() && tensor_of(bias).numel() == out_channels, "the bias has another shape");
      bias_values = tensor_of(bias).const_data_ptr<float>();
    }
    *out = new at::Tensor(winograd(images, {panels.const_data_ptr<float>(), {}}, bias_values, padding[0], padding[1], out_channels,
                                   other == nullptr ? at::Tensor() : tensor_of(other), relu != 0, in_place != 0));
  });
}
