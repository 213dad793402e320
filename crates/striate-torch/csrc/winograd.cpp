// 3x3 convolutions at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308): tiles of 6x6 input values are
// transformed, multiplied with transformed weights as 36 matrix products, and transformed into tiles of 4x4 output values, with a quarter of the
// multiplications. Each thread takes some tiles through all three, so that what lies between stays in its cache. Compiled with optimisation in
// every profile.
#include "common.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace {

constexpr int64_t kIn = 6, kOut = 4, kPoints = kIn * kIn;
constexpr int64_t kLanes = 16;
// A block of products: rows of tiles by vectors of channels, as many as registers hold.
constexpr int64_t kRows = 6, kVectors = 4, kPanel = kVectors * kLanes;

// Sixteen channels: one instruction each where the processor has such, several where not.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float))));

struct Tiles {
  int64_t images, height, width;            // of the input
  int64_t out_height, out_width, top, left; // of the output; zeros before the input
  int64_t down, across;                     // tiles of an image
};

// B^T d for six values.
inline __attribute__((always_inline)) void to_points(const Lanes* d, int64_t step, Lanes* t, int64_t to) {
  Lanes d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  Lanes even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, even2 = d4 - d2, odd2 = 2.0f * (d3 - d1);
  t[0] = 4.0f * d0 - 5.0f * d2 + d4;
  t[to] = even + odd;
  t[2 * to] = even - odd;
  t[3 * to] = even2 + odd2;
  t[4 * to] = even2 - odd2;
  t[5 * to] = 4.0f * d1 - 5.0f * d3 + d5;
}

// A^T m for six values.
inline __attribute__((always_inline)) void from_points(const Lanes* m, int64_t step, Lanes* t, int64_t to) {
  Lanes m0 = m[0], m5 = m[5 * step];
  Lanes sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
  Lanes sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
  t[0] = m0 + sum + sum2;
  t[to] = difference + 2.0f * difference2;
  t[2 * to] = sum + 4.0f * sum2;
  t[3 * to] = difference + 8.0f * difference2 + m5;
}

// Transforms tile number `tile` of all channels into `points`, which lie `step` apart.
FOR_EACH_PROCESSOR void transform_input(const float* input, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  const int64_t image = tile / (tiles.down * tiles.across), place = tile % (tiles.down * tiles.across);
  const int64_t y = place / tiles.across * kOut - tiles.top, x = place % tiles.across * kOut - tiles.left;
  const float* from = input + image * tiles.height * tiles.width * channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes d[kPoints], t[kPoints];
    for (int64_t i = 0; i < kIn; ++i)
      for (int64_t j = 0; j < kIn; ++j) {
        bool within = y + i >= 0 && y + i < tiles.height && x + j >= 0 && x + j < tiles.width;
        d[i * kIn + j] = within ? *reinterpret_cast<const Lanes*>(from + ((y + i) * tiles.width + x + j) * channels + c) : Lanes{};
      }
    for (int64_t j = 0; j < kIn; ++j) to_points(d + j, kIn, t + j, kIn);
    for (int64_t i = 0; i < kIn; ++i) to_points(t + i * kIn, 1, d + i * kIn, 1);
    for (int64_t p = 0; p < kPoints; ++p) *reinterpret_cast<Lanes*>(points + p * step + c) = d[p];
  }
}

// Transforms `points`, which lie `step` apart, into tile number `tile` of the output, with what follows the convolution.
FOR_EACH_PROCESSOR void transform_output(const float* points, int64_t step, const float* bias, const float* other, bool relu, int64_t channels,
                                         const Tiles& tiles, int64_t tile, float* output) {
  const int64_t image = tile / (tiles.down * tiles.across), place = tile % (tiles.down * tiles.across);
  const int64_t y = place / tiles.across * kOut, x = place % tiles.across * kOut;
  const int64_t start = image * tiles.out_height * tiles.out_width;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes m[kPoints], t[kPoints];
    for (int64_t p = 0; p < kPoints; ++p) m[p] = *reinterpret_cast<const Lanes*>(points + p * step + c);
    for (int64_t j = 0; j < kIn; ++j) from_points(m + j, kIn, t + j, kIn);
    for (int64_t i = 0; i < kOut; ++i) from_points(t + i * kIn, 1, m + i * kOut, 1);
    Lanes add = bias == nullptr ? Lanes{} : *reinterpret_cast<const Lanes*>(bias + c);
    for (int64_t i = 0; i < kOut && y + i < tiles.out_height; ++i)
      for (int64_t j = 0; j < kOut && x + j < tiles.out_width; ++j) {
        int64_t at = (start + (y + i) * tiles.out_width + x + j) * channels + c;
        Lanes value = m[i * kOut + j] + add;
        if (other != nullptr) value += *reinterpret_cast<const Lanes*>(other + at);
        if (relu) value = value < 0.0f ? Lanes{} : value;
        *reinterpret_cast<Lanes*>(output + at) = value;
      }
  }
}

// rows x (vectors * 16) products of `values` [rows, depth] and `panel` [depth, vectors * 16].
template <int64_t rows, int64_t vectors>
inline __attribute__((always_inline)) void block(const float* values, int64_t depth, const float* panel, float* products, int64_t width) {
  Lanes sums[rows][vectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Lanes weights[vectors];
    for (int64_t v = 0; v < vectors; ++v) weights[v] = *reinterpret_cast<const Lanes*>(panel + (k * vectors + v) * kLanes);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t v = 0; v < vectors; ++v) sums[r][v] += values[r * depth + k] * weights[v];
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors; ++v) *reinterpret_cast<Lanes*>(products + r * width + v * kLanes) = sums[r][v];
}

template <int64_t vectors>
inline __attribute__((always_inline)) void column(const float* values, int64_t rows, int64_t depth, const float* panel, float* products,
                                                  int64_t width) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) block<kRows, vectors>(values + r * depth, depth, panel, products + r * width, width);
  for (; r < rows; ++r) block<1, vectors>(values + r * depth, depth, panel, products + r * width, width);
}

// products [rows, width] = values [rows, depth] times weights [depth, width], which lie in panels of 64 columns, the last one narrower.
FOR_EACH_PROCESSOR void multiply(const float* values, int64_t rows, int64_t depth, const float* weights, float* products, int64_t width) {
  for (int64_t c = 0; c < width; c += kPanel, weights += depth * kPanel) {
    switch (std::min(kPanel, width - c) / kLanes) {
      case 4: column<4>(values, rows, depth, weights, products + c, width); break;
      case 3: column<3>(values, rows, depth, weights, products + c, width); break;
      case 2: column<2>(values, rows, depth, weights, products + c, width); break;
      default: column<1>(values, rows, depth, weights, products + c, width);
    }
  }
}

}  // namespace

char* st_winograd(st_tensor input_tensor, st_tensor weight, st_tensor bias, const int64_t* padding, int64_t out_channels, st_tensor other, int relu,
                  int in_place, int64_t chunk, st_tensor* out) {
  return caught([&] {
    at::Tensor input = tensor_of(input_tensor).contiguous(at::MemoryFormat::ChannelsLast);
    int64_t channels = input.size(1);
    TORCH_CHECK(input.dim() == 4 && input.is_cpu() && input.scalar_type() == at::kFloat, "Winograd's convolution takes float32 images on the CPU");
    TORCH_CHECK(channels % kLanes == 0 && out_channels % kLanes == 0, "Winograd's convolution takes multiples of 16 channels");
    Tiles tiles{input.size(0), input.size(2), input.size(3), input.size(2) + 2 * padding[0] - 2, input.size(3) + 2 * padding[1] - 2,
                padding[0], padding[1], 0, 0};
    TORCH_CHECK(tiles.out_height > 0 && tiles.out_width > 0, "the input is too small for a window of 3x3");
    tiles.down = (tiles.out_height + kOut - 1) / kOut;
    tiles.across = (tiles.out_width + kOut - 1) / kOut;
    std::vector<int64_t> size{tiles.images, out_channels, tiles.out_height, tiles.out_width};
    at::Tensor added = other == nullptr ? at::Tensor() : tensor_of(other);
    TORCH_CHECK(!added.defined() || (added.sizes() == size && added.scalar_type() == at::kFloat && added.is_cpu()), "what is added has another shape");
    if (added.defined()) added = added.contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor output = in_place && added.defined() ? added : at::empty(size, input.options().memory_format(at::MemoryFormat::ChannelsLast));
    const float* bias_values = nullptr;
    if (bias != nullptr) {
      TORCH_CHECK(tensor_of(bias).is_contiguous() && tensor_of(bias).numel() == out_channels, "the bias has another shape");
      bias_values = tensor_of(bias).const_data_ptr<float>();
    }
    const float* other_values = added.defined() ? added.const_data_ptr<float>() : nullptr;
    const float* from = input.const_data_ptr<float>();
    float* to = output.data_ptr<float>();
    const float* weights = tensor_of(weight).const_data_ptr<float>();
    TORCH_CHECK(tensor_of(weight).is_contiguous() && tensor_of(weight).numel() == kPoints * channels * out_channels, "the weight has another shape");
    // Blocks of equal size, a multiple of kRows where there are enough tiles, and some for each thread.
    const int64_t count = tiles.images * tiles.down * tiles.across;
    int64_t blocks = (count + chunk - 1) / chunk;
    const int64_t threads = at::get_num_threads();
    blocks = std::min((blocks + threads - 1) / threads * threads, (count + kRows - 1) / kRows);
    const int64_t each = ((count + blocks - 1) / blocks + kRows - 1) / kRows * kRows;
    blocks = (count + each - 1) / each;
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
      at::Tensor scratch = at::empty({kPoints * each * (channels + out_channels)}, input.options().memory_format(at::MemoryFormat::Contiguous));
      float* values = scratch.data_ptr<float>();
      float* products = values + kPoints * each * channels;
      for (int64_t b = first; b < last; ++b) {
        const int64_t begin = b * each, now = std::min(each, count - begin);
        for (int64_t t = 0; t < now; ++t) transform_input(from, channels, tiles, begin + t, values + t * channels, each * channels);
        for (int64_t p = 0; p < kPoints; ++p)
          multiply(values + p * each * channels, now, channels, weights + p * channels * out_channels, products + p * each * out_channels, out_channels);
        for (int64_t t = 0; t < now; ++t)
          transform_output(products + t * out_channels, each * out_channels, bias_values, other_values, relu != 0, out_channels, tiles, begin + t, to);
      }
    });
    *out = new at::Tensor(output);
  });
}

int st_has_wide_vectors() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512f");
#else
  return 0;
#endif
}
