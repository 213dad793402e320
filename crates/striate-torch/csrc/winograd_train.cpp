// Winograd's convolution with its gradients. With y = A^T ((G g G^T) * (B^T d B)) A for a tile, the gradient of the kernel g is
// G^T (sum over tiles of (B^T d B) * (A dy A^T)) G: again 36 matrix products, of values by tiles. The gradient of the input is the convolution of dy with
// the kernel turned around, inputs and outputs exchanged.
#include "outer.h"
#include "winograd.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

// Tiles that are multiplied at once, so that a panel of them stays in the nearest cache.
constexpr int64_t kTiles = 64;

// G g for three values.
ALWAYS_INLINE void weight_to_points(const Lanes* g, int64_t step, Lanes* t, int64_t to) {
  Lanes g0 = g[0], g1 = g[step], g2 = g[2 * step];
  Lanes ends = (g0 + g2) * (-1.0f / 6), middle = g1 * (1.0f / 6), ends2 = g0 * (1.0f / 24) + g2 * (1.0f / 6), middle2 = g1 * (1.0f / 12);
  t[0] = g0 * 0.25f;
  t[to] = ends - middle;
  t[2 * to] = ends + middle;
  t[3 * to] = ends2 + middle2;
  t[4 * to] = ends2 - middle2;
  t[5 * to] = g2;
}

// G^T p for six values.
ALWAYS_INLINE void weight_from_points(const Lanes* p, int64_t step, Lanes* g, int64_t to) {
  Lanes sum = p[step] + p[2 * step], difference = p[2 * step] - p[step];
  Lanes sum2 = p[3 * step] + p[4 * step], difference2 = p[3 * step] - p[4 * step];
  g[0] = p[0] * 0.25f - sum * (1.0f / 6) + sum2 * (1.0f / 24);
  g[to] = difference * (1.0f / 6) + difference2 * (1.0f / 12);
  g[2 * to] = (sum2 - sum) * (1.0f / 6) + p[5 * step];
}

// A y for four values.
ALWAYS_INLINE void gradient_to_points(const Lanes* y, int64_t step, Lanes* t, int64_t to) {
  Lanes y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
  Lanes even = y0 + y2, odd = y1 + y3, even2 = y0 + 4.0f * y2, odd2 = 2.0f * y1 + 8.0f * y3;
  t[0] = y0;
  t[to] = even + odd;
  t[2 * to] = even - odd;
  t[3 * to] = even2 + odd2;
  t[4 * to] = even2 - odd2;
  t[5 * to] = y3;
}

// The values of a weight [out, in, 3, 3] by what a product sums over (`depth`) and what it gives (`column`).
struct Kernels {
  float* values;
  int64_t depth_step, column_step, row_step, step;

  // For the convolution, or, turned around, for the gradient of its input.
  Kernels(const at::Tensor& weight, bool around)
      : values(weight.data_ptr<float>()), depth_step(weight.stride(around ? 0 : 1)), column_step(weight.stride(around ? 1 : 0)),
        row_step(around ? -weight.stride(2) : weight.stride(2)), step(around ? -weight.stride(3) : weight.stride(3)) {
    if (around) values += 2 * weight.stride(2) + 2 * weight.stride(3);
  }

  float* at(int64_t depth, int64_t column) const { return values + depth * depth_step + column * column_step; }
};

// Transforms sixteen rows of a panel: what the values from `depth` on add to `width` columns from `column` on. Rows lie `width` apart, points `point_step`.
FOR_EACH_PROCESSOR void transform_weight(const Kernels& kernels, int64_t depth, int64_t column, int64_t width, float* to, int64_t point_step) {
  for (int64_t c = 0; c < width; c += kLanes) {
    Lanes g[9][kLanes];  // of each place, the rows
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        Lanes(&rows)[kLanes] = g[3 * i + j];
        const float* from = kernels.at(depth, column + c) + i * kernels.row_step + j * kernels.step;
        if (kernels.column_step == 1) {
          for (int64_t r = 0; r < kLanes; ++r) rows[r] = load(from + r * kernels.depth_step);
        } else if (kernels.depth_step == 1) {
          for (int64_t lane = 0; lane < kLanes; ++lane) rows[lane] = load(from + lane * kernels.column_step);
          transpose(rows);
        } else {
          for (int64_t r = 0; r < kLanes; ++r)
            for (int64_t lane = 0; lane < kLanes; ++lane) rows[r][lane] = from[r * kernels.depth_step + lane * kernels.column_step];
        }
      }
    for (int64_t r = 0; r < kLanes; ++r) {
      Lanes t[18], points[kPoints];
      for (int64_t j = 0; j < 3; ++j) weight_to_points(&g[j][r], 3 * kLanes, t + j, 3);
      for (int64_t i = 0; i < kIn; ++i) weight_to_points(t + 3 * i, 1, points + i * kIn, 1);
      for (int64_t p = 0; p < kPoints; ++p) store(to + p * point_step + r * width + c, points[p]);
    }
  }
}

// A weight [out, in, 3, 3] transformed and packed in panels: [36, in * out].
at::Tensor transformed(const at::Tensor& weight, bool around) {
  const int64_t depth = weight.size(around ? 0 : 1), columns = weight.size(around ? 1 : 0), points = depth * columns;
  at::Tensor packed = at::empty({kPoints, points}, weight.options().memory_format(at::MemoryFormat::Contiguous));
  const Kernels kernels(weight, around);
  float* to = packed.data_ptr<float>();
  const int64_t panels = (columns + kPanel - 1) / kPanel, blocks = depth / kLanes;
  parallel(panels * blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t column = i / blocks * kPanel, width = std::min(kPanel, columns - column), row = i % blocks * kLanes;
      transform_weight(kernels, row, column, width, to + column * depth + row * width, points);
    }
  });
  return packed;
}

// Transforms tile number `tile` of a gradient of the output into `points`, which lie `step` apart.
template <typename T>
ALWAYS_INLINE void gradient_tile(const T* gradient, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  const int64_t image = tile / (tiles.down * tiles.across), place = tile % (tiles.down * tiles.across);
  const int64_t y = place / tiles.across * kOut, x = place % tiles.across * kOut;
  const T* from = gradient + image * tiles.out_height * tiles.out_width * channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes d[kOut * kOut], t[kIn * kOut];
    for (int64_t i = 0; i < kOut; ++i)
      for (int64_t j = 0; j < kOut; ++j) {
        bool within = y + i < tiles.out_height && x + j < tiles.out_width;
        d[i * kOut + j] = within ? load(from + ((y + i) * tiles.out_width + x + j) * channels + c) : Lanes{};
      }
    for (int64_t j = 0; j < kOut; ++j) gradient_to_points(d + j, kOut, t + j, kOut);
    for (int64_t i = 0; i < kIn; ++i) {
      Lanes row[kIn];
      gradient_to_points(t + i * kOut, 1, row, 1);
      for (int64_t j = 0; j < kIn; ++j) store(points + (i * kIn + j) * step + c, row[j]);
    }
  }
}

FOR_EACH_PROCESSOR void transform_gradient(const float* gradient, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  gradient_tile(gradient, channels, tiles, tile, points, step);
}
FOR_EACH_PROCESSOR void transform_gradient(const uint16_t* gradient, int64_t channels, const Tiles& tiles, int64_t tile, float* points, int64_t step) {
  gradient_tile(gradient, channels, tiles, tile, points, step);
}

// Transforms the sums for one output channel, [36, in] with points `step` apart, into the gradient of its kernels.
FOR_EACH_PROCESSOR void finish_weight(const float* sums, int64_t step, int64_t channels, const Kernels& kernels, int64_t column) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes p[kPoints], t[18], g[9];
    for (int64_t i = 0; i < kPoints; ++i) p[i] = load(sums + i * step + c);
    for (int64_t j = 0; j < kIn; ++j) weight_from_points(p + j, kIn, t + j, kIn);
    for (int64_t i = 0; i < 3; ++i) weight_from_points(t + i * kIn, 1, g + 3 * i, 1);
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        float* to = kernels.at(c, column) + i * kernels.row_step + j * kernels.step;
        if (kernels.depth_step == 1) {
          store(to, g[3 * i + j]);
          continue;
        }
        for (int64_t lane = 0; lane < kLanes; ++lane) to[lane * kernels.depth_step] = g[3 * i + j][lane];
      }
  }
}

// The gradient of a weight, which lies as the weight does.
template <typename T>
at::Tensor weight_gradient(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& weight, const Tiles& tiles) {
  const int64_t channels = input.size(1), out_channels = gradient.size(1), points = channels * out_channels, count = tiles.count();
  if (count == 0) return at::zeros_like(weight);
  // Apart by other than a power of two, or the rows of a panel would share a few places of the cache.
  const int64_t x_step = channels + kLanes, y_step = out_channels + kLanes;
  const int64_t most = std::max(kSharedCache / (kPoints * (x_step + y_step) * int64_t{sizeof(float)}), kTiles);
  const int64_t parts = std::max<int64_t>((count + most - 1) / most, 1), each = (count + parts - 1) / parts;
  const int64_t panels = (channels + kPanel - 1) / kPanel;
  const auto options = weight.options().memory_format(at::MemoryFormat::Contiguous);
  at::Tensor sums = at::empty({kPoints, points}, options), values = at::empty({kPoints * each * (x_step + y_step)}, options);
  float *all = sums.data_ptr<float>(), *x = values.data_ptr<float>(), *y = x + kPoints * each * x_step;
  const T *images = static_cast<const T*>(input.const_data_ptr()), *gradients = static_cast<const T*>(gradient.const_data_ptr());
  for (int64_t begin = 0; begin == 0 || begin < count; begin += each) {
    const int64_t here = std::min(each, count - begin);
    parallel(here, 2, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        transform(images, channels, tiles, begin + t, x + t * x_step, each * x_step);
        transform_gradient(gradients, out_channels, tiles, begin + t, y + t * y_step, each * y_step);
      }
    });
    parallel(kPoints * panels, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t point = i / panels, column = i % panels * kPanel;
        for (int64_t t = 0; t == 0 || t < here; t += kTiles)
          multiply_outer(Outer<float>{y + (point * each + t) * y_step, x + (point * each + t) * x_step + column, y_step, x_step, std::min(kTiles, here - t),
                                      all + point * points + column, channels, begin + t == 0, nullptr},
                         out_channels, std::min(kPanel, channels - column));
      }
    });
  }
  at::Tensor result = at::empty_like(weight);
  const Kernels kernels(result, false);
  parallel(out_channels, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) finish_weight(all + c * channels, points, channels, kernels, c);
  });
  return result;
}

class Convolution3x3 : public torch::autograd::Function<Convolution3x3> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            int64_t top, int64_t left) {
    TORCH_CHECK(input.dim() == 4 && weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 && weight.size(1) == input.size(1),
                "Winograd's convolution takes images and a weight [out, in, 3, 3], got ", input.sizes(), " and ", weight.sizes());
    TORCH_CHECK(weight.size(0) % kLanes == 0 && weight.size(1) % kLanes == 0, "Winograd's convolution takes multiples of ", kLanes, " channels, got ",
                weight.sizes());
    TORCH_CHECK(top >= 0 && top <= 2 && left >= 0 && left <= 2, "Winograd's convolution takes a padding of at most 2");
    TORCH_CHECK(weight.scalar_type() == at::kFloat && weight.is_cpu(), "Winograd's convolution takes a float32 weight on the CPU");
    const float* bias_values = nullptr;
    if (bias.has_value()) {
      TORCH_CHECK(bias->is_contiguous() && bias->scalar_type() == at::kFloat && bias->is_cpu() && bias->numel() == weight.size(0),
                  "Winograd's convolution takes a float32 bias for each output channel, on the CPU");
      bias_values = bias->const_data_ptr<float>();
    }
    input = input.contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor output = winograd(input, transformed(weight, false), bias_values, top, left, weight.size(0), at::Tensor(), false, false);
    context->save_for_backward({input, weight});
    context->saved_data["top"] = top;
    context->saved_data["left"] = left;
    context->saved_data["bias"] = bias.has_value();
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "Winograd's convolution has no second derivative: derive libtorch's (conv2d) for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1];
    const int64_t top = context->saved_data["top"].toInt(), left = context->saved_data["left"].toInt();
    const at::Tensor gradient = gradients[0].to(input.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    torch::autograd::variable_list result(5);
    if (context->needs_input_grad(0))
      result[0] = winograd(gradient, transformed(weight, true), nullptr, 2 - top, 2 - left, weight.size(1), at::Tensor(), false, false);
    if (context->needs_input_grad(1)) {
      const Tiles tiles(input, top, left);
      result[1] = input.scalar_type() == at::kFloat ? weight_gradient<float>(input, gradient, weight, tiles)
                                                    : weight_gradient<uint16_t>(input, gradient, weight, tiles);
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) result[2] = gradient.sum({0, 2, 3}, false, at::kFloat);
    return result;
  }
};

}  // namespace

char* st_winograd_weight(st_tensor weight, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(transformed(tensor_of(weight), false)); });
}

char* st_conv3x3(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* padding, st_tensor* out) {
  return caught([&] {
    const auto optional = bias == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(bias));
    // Autocasting has convolutions read bfloat16; the weight stays what it is.
    const bool half = at::autocast::is_autocast_enabled(at::kCPU) && at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16;
    const at::Tensor images = half ? tensor_of(input).to(at::kBFloat16) : tensor_of(input);
    *out = new at::Tensor(Convolution3x3::apply(images, tensor_of(weight), optional, padding[0], padding[1]));
  });
}
