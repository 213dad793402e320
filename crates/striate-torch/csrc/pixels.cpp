// Kernels over channels-last feature maps: what libtorch computes more slowly because it also keeps indices, or copies value by value.
// Compiled with optimisation in every profile.
#include "common.h"

#include <ATen/ops/empty.h>

namespace {

// A few values a task are not worth a thread.
constexpr int64_t kGrain = 16384;

at::Tensor channels_last(at::IntArrayRef size, const at::Tensor& like) {
  return at::empty(size, like.options().memory_format(at::MemoryFormat::ChannelsLast));
}

// Whether the channels of each pixel lie together and pixels follow each other at one distance, which `pixel` becomes.
bool rows_of_pixels(const at::Tensor& t, int64_t& pixel) {
  if (t.dim() != 4 || (t.size(1) > 1 && t.stride(1) != 1)) return false;
  pixel = t.size(3) > 1 ? t.stride(3) : t.size(2) > 1 ? t.stride(2) : t.size(0) > 1 ? t.stride(0) : t.size(1);
  return (t.size(2) <= 1 || t.stride(2) == pixel * t.size(3)) && (t.size(0) <= 1 || t.stride(0) == pixel * t.size(2) * t.size(3));
}

// A NaN stays.
FOR_EACH_PROCESSOR void larger(float* best, const float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float value = values[i], former = best[i];
    best[i] = (value > former) | (value != value) ? value : former;
  }
}

float widened(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

// Values in bfloat16, by their bits.
FOR_EACH_PROCESSOR void larger_bf16(uint16_t* best, const uint16_t* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float value = widened(values[i]), former = widened(best[i]);
    best[i] = (value > former) | (value != value) ? values[i] : best[i];
  }
}

template <typename T, typename Larger>
void max_pool(const T* input, T* output, at::IntArrayRef in, int64_t pixel, at::IntArrayRef out, const int64_t* window, Larger larger) {
  const int64_t channels = in[1], height = in[2], width = in[3], out_height = out[2], out_width = out[3];
  const int64_t rows = out[0] * out_height;
  parallel(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, out_width * channels)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* image = input + row / out_height * height * width * pixel;
      for (int64_t x = 0; x < out_width; ++x) {
        T* best = output + (row * out_width + x) * channels;
        bool first = true;
        for (int64_t i = 0; i < window[0]; ++i) {
          int64_t down = row % out_height * window[2] - window[4] + i * window[6];
          if (down < 0 || down >= height) continue;
          for (int64_t j = 0; j < window[1]; ++j) {
            int64_t across = x * window[3] - window[5] + j * window[7];
            if (across < 0 || across >= width) continue;
            const T* values = image + (down * width + across) * pixel;
            if (first) memcpy(best, values, channels * sizeof(T));
            else larger(best, values, channels);
            first = false;
          }
        }
      }
    }
  });
}

}  // namespace

int st_max_pool(st_tensor tensor, const int64_t* window, int64_t out_height, int64_t out_width, st_tensor* out) {
  const at::Tensor& input = tensor_of(tensor);
  int64_t pixel = 0;
  bool half = input.scalar_type() == at::kBFloat16;
  if (!input.is_cpu() || !(half || input.scalar_type() == at::kFloat) || !rows_of_pixels(input, pixel)) return 0;
  try {
    at::Tensor output = channels_last({input.size(0), input.size(1), out_height, out_width}, input);
    if (half)
      max_pool(static_cast<const uint16_t*>(input.const_data_ptr()), static_cast<uint16_t*>(output.data_ptr()), input.sizes(), pixel,
               output.sizes(), window, larger_bf16);
    else
      max_pool(static_cast<const float*>(input.const_data_ptr()), static_cast<float*>(output.data_ptr()), input.sizes(), pixel,
               output.sizes(), window, larger);
    *out = new at::Tensor(output);
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}

int st_concat_channels(const st_tensor* tensors, size_t n, st_tensor* out) {
  struct Part {
    const char* data;
    int64_t bytes, pixel;
  };
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
    char* to = static_cast<char*>(output.data_ptr());
    int64_t pixels = first.size(0) * first.size(2) * first.size(3);
    parallel(pixels, std::max<int64_t>(1, 4 * kGrain / std::max<int64_t>(1, row)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        char* at = to + i * row;
        for (const Part& part : parts) {
          memcpy(at, part.data + i * part.pixel, part.bytes);
          at += part.bytes;
        }
      }
    });
    *out = new at::Tensor(output);
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}
