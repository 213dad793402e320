// Concatenation of channels-last feature maps, which libtorch copies value by value (kernels/pixels.cpp).
#include "kernels/kernels.h"
#include "pixels.h"

int st_concat_channels(const st_tensor* tensors, size_t n, st_tensor* out) {
  std::vector<Part> parts;
  const at::Tensor& first = tensor_of(tensors[0]);
  int64_t channels = 0, row = 0;
  for (size_t i = 0; i < n; ++i) {
    const at::Tensor& t = tensor_of(tensors[i]);
    int64_t pixel = 0;
    if (!t.is_cpu() || t.scalar_type() != first.scalar_type() || !rows_of_pixels(t, pixel) || t.size(0) != first.size(0) ||
        t.sizes().slice(2) != first.sizes().slice(2))
      return 0;
    int64_t size = t.element_size();
    parts.push_back({static_cast<const char*>(t.const_data_ptr()), t.size(1) * size, pixel * size});
    channels += t.size(1);
    row += t.size(1) * size;
  }
  try {
    at::Tensor output = channels_last({first.size(0), channels, first.size(2), first.size(3)}, first);
    concat_pixels(parts, first.size(0) * first.size(2) * first.size(3), row, static_cast<char*>(output.data_ptr()));
    *out = new at::Tensor(output);
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}
