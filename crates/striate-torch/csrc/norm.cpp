// Batch norm in training, with the addition and the ReLU that follow it, of channels-last float32 or bfloat16 images: y = relu((x - mean) * scale + shift +
// other), each read and written once a pass. Compiled with optimisation in every profile.
#include "lanes.h"
#include "pixels.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

namespace {

// Channels that are added up together, and rows until their sums go to float64.
constexpr int64_t kVectors = 4, kRows = 128;

// Rows of pixels, [rows, channels].
struct Rows {
  int64_t rows, channels;
};

// Calls `body` with the number of vectors, up to `kVectors`, of each part of the channels, and where it begins.
template <typename Body>
ALWAYS_INLINE void for_parts(int64_t channels, Body body) {
  int64_t c = 0;
  for (; c + kVectors * kLanes <= channels; c += kVectors * kLanes) body(std::integral_constant<int64_t, kVectors>{}, c);
  for (; c < channels; c += kLanes) body(std::integral_constant<int64_t, 1>{}, c);
}

template <int64_t vectors>
ALWAYS_INLINE void add_to(double* totals, const Lanes* sums) {
  for (int64_t v = 0; v < vectors; ++v)
    for (int64_t lane = 0; lane < kLanes; ++lane) totals[v * kLanes + lane] += sums[v][lane];
}

// Adds x - origin, and its square, over rows first..last to totals [2, channels].
template <typename T>
ALWAYS_INLINE void moments_of(const T* x, const float* origin, int64_t first, int64_t last, int64_t channels, double* totals) {
  for (int64_t begin = first; begin < last; begin += kRows)
    for_parts(channels, [&](auto count, int64_t c) __attribute__((always_inline)) {
      constexpr int64_t vectors = decltype(count)::value;
      Lanes sums[vectors] = {}, squares[vectors] = {}, from[vectors];
      for (int64_t v = 0; v < vectors; ++v) from[v] = load(origin + c + v * kLanes);
      for (int64_t row = begin; row < std::min(begin + kRows, last); ++row)
        for (int64_t v = 0; v < vectors; ++v) {
          Lanes value = load(x + row * channels + c + v * kLanes) - from[v];
          sums[v] += value;
          squares[v] += value * value;
        }
      add_to<vectors>(totals + c, sums);
      add_to<vectors>(totals + channels + c, squares);
    });
}

// y = relu((x - mean) * scale + shift + other) for rows first..last.
template <typename T>
ALWAYS_INLINE void normalise_rows(const T* x, const T* other, bool relu, const float* mean, const float* scale, const float* shift, int64_t first,
                                  int64_t last, int64_t channels, T* y) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t at = row * channels + c;
      Lanes value = (load(x + at) - load(mean + c)) * load(scale + c) + load(shift + c);
      if (other != nullptr) value += load(other + at);
      if (relu) value = value < 0.0f ? Lanes{} : value;
      store(y + at, value);
    }
}

// dy where the ReLU let y through.
template <typename T>
ALWAYS_INLINE Lanes through(const T* gradient, const T* y, int64_t at) {
  Lanes value = load(gradient + at);
  return y == nullptr ? value : load(y + at) > 0.0f ? value : Lanes{};
}

// Adds the gradient, and its product with x - mean, over rows first..last to totals [2, channels].
template <typename T>
ALWAYS_INLINE void gradient_sums_of(const T* gradient, const T* y, const T* x, const float* mean, int64_t first, int64_t last, int64_t channels,
                                    double* totals) {
  for (int64_t begin = first; begin < last; begin += kRows)
    for_parts(channels, [&](auto count, int64_t c) __attribute__((always_inline)) {
      constexpr int64_t vectors = decltype(count)::value;
      Lanes sums[vectors] = {}, products[vectors] = {}, from[vectors];
      for (int64_t v = 0; v < vectors; ++v) from[v] = load(mean + c + v * kLanes);
      for (int64_t row = begin; row < std::min(begin + kRows, last); ++row)
        for (int64_t v = 0; v < vectors; ++v) {
          const int64_t at = row * channels + c + v * kLanes;
          Lanes value = through(gradient, y, at);
          sums[v] += value;
          products[v] += value * (load(x + at) - from[v]);
        }
      add_to<vectors>(totals + c, sums);
      add_to<vectors>(totals + channels + c, products);
    });
}

// dx = dy * scale - (x - mean) * slope - level for rows first..last; `other` gets dy where that is not nullptr.
template <typename T>
ALWAYS_INLINE void gradient_rows(const T* gradient, const T* y, const T* x, const float* mean, const float* scale, const float* slope,
                                 const float* level, int64_t first, int64_t last, int64_t channels, T* to, T* other) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t at = row * channels + c;
      Lanes value = through(gradient, y, at);
      if (other != nullptr) store(other + at, value);
      store(to + at, value * load(scale + c) - (load(x + at) - load(mean + c)) * load(slope + c) - load(level + c));
    }
}

#define FOR_BOTH(T)                                                                                                                                    \
  FOR_EACH_PROCESSOR void moments(const T* x, const float* origin, int64_t first, int64_t last, int64_t channels, double* totals) {                    \
    moments_of(x, origin, first, last, channels, totals);                                                                                              \
  }                                                                                                                                                    \
  FOR_EACH_PROCESSOR void normalise(const T* x, const T* other, bool relu, const float* mean, const float* scale, const float* shift, int64_t first,   \
                                    int64_t last, int64_t channels, T* y) {                                                                            \
    normalise_rows(x, other, relu, mean, scale, shift, first, last, channels, y);                                                                      \
  }                                                                                                                                                    \
  FOR_EACH_PROCESSOR void gradient_sums(const T* gradient, const T* y, const T* x, const float* mean, int64_t first, int64_t last, int64_t channels,   \
                                        double* totals) {                                                                                              \
    gradient_sums_of(gradient, y, x, mean, first, last, channels, totals);                                                                             \
  }                                                                                                                                                    \
  FOR_EACH_PROCESSOR void input_gradient(const T* gradient, const T* y, const T* x, const float* mean, const float* scale, const float* slope,         \
                                         const float* level, int64_t first, int64_t last, int64_t channels, T* to, T* other) {                         \
    gradient_rows(gradient, y, x, mean, scale, slope, level, first, last, channels, to, other);                                                        \
  }
FOR_BOTH(float)
FOR_BOTH(uint16_t)

// Adds up [2, channels] over all rows in parts, one a thread: `body(first, last, totals)`.
template <typename Body>
std::vector<double> totals_of(const Rows& rows, Body body) {
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), rows.rows / kRows)), width = 2 * rows.channels;
  std::vector<double> parts(threads * width);
  parallel(threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) body(rows.rows * i / threads, rows.rows * (i + 1) / threads, parts.data() + i * width);
  });
  for (int64_t i = 1; i < threads; ++i)
    for (int64_t c = 0; c < width; ++c) parts[c] += parts[i * width + c];
  return parts;
}

Rows rows_of(const at::Tensor& x) { return {x.size(0) * x.size(2) * x.size(3), x.size(1)}; }

template <typename T>
const T* values(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

at::Tensor laid_out(const at::Tensor& tensor) { return tensor.contiguous(at::MemoryFormat::ChannelsLast); }

bool is_channels(const at::Tensor& tensor, int64_t channels) {
  return tensor.scalar_type() == at::kFloat && tensor.is_cpu() && tensor.is_contiguous() && tensor.numel() == channels;
}

class BatchNorm : public torch::autograd::Function<BatchNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& other, at::Tensor running_mean,
                            at::Tensor running_var, double momentum, double eps, bool relu) {
    const int64_t channels = x.dim() == 4 ? x.size(1) : 0;
    TORCH_CHECK(x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && channels > 0 && channels % kLanes == 0,
                "this batch norm takes float32 or bfloat16 images with a multiple of 16 channels, on the CPU");
    TORCH_CHECK(!other.has_value() || (other->sizes() == x.sizes() && other->scalar_type() == x.scalar_type() && other->is_cpu()),
                "what is added has another shape or type");
    TORCH_CHECK(is_channels(running_mean, channels) && is_channels(running_var, channels) && (!weight.has_value() || is_channels(*weight, channels)) &&
                    (!bias.has_value() || is_channels(*bias, channels)),
                "batch norm takes float32 parameters, one for each channel");
    x = laid_out(x);
    const Rows rows = rows_of(x);
    TORCH_CHECK(rows.rows > 1, "batch norm needs more than one value for each channel");
    const at::Tensor added = other.has_value() ? laid_out(*other) : at::Tensor();
    at::Tensor y = at::empty_like(x);
    // Mean, inverse standard deviation and scale by channel, which the backward pass takes, and the shift.
    at::Tensor statistics = at::empty({4, channels}, x.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous));
    float *mean = statistics.data_ptr<float>(), *inverse = mean + channels, *scale = inverse + channels, *shift = scale + channels;
    with_type(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = values<T>(x);
      // Sums of differences from the first pixel lose nothing to a mean far from zero.
      for (int64_t c = 0; c < channels; c += kLanes) store(mean + c, load(from + c));
      const auto totals =
          totals_of(rows, [&](int64_t first, int64_t last, double* totals) { moments(from, mean, first, last, channels, totals); });
      float *running = running_mean.data_ptr<float>(), *running_variance = running_var.data_ptr<float>();
      for (int64_t c = 0; c < channels; ++c) {
        const double offset = totals[c] / rows.rows, variance = std::max(totals[channels + c] / rows.rows - offset * offset, 0.0);
        mean[c] += static_cast<float>(offset);
        inverse[c] = static_cast<float>(1 / std::sqrt(variance + eps));
        scale[c] = inverse[c] * (weight.has_value() ? weight->const_data_ptr<float>()[c] : 1.0f);
        shift[c] = bias.has_value() ? bias->const_data_ptr<float>()[c] : 0.0f;
        running[c] += static_cast<float>(momentum * (mean[c] - running[c]));
        running_variance[c] += static_cast<float>(momentum * (variance * rows.rows / (rows.rows - 1) - running_variance[c]));
      }
      T* to = static_cast<T*>(y.data_ptr());
      parallel(rows.rows, 64, [&](int64_t first, int64_t last) {
        normalise(from, values<T>(added), relu, mean, scale, shift, first, last, channels, to);
      });
    });
    context->save_for_backward({x, relu ? y : at::Tensor(), statistics});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this batch norm has no second derivative: derive libtorch's for that");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &y = saved[1], &statistics = saved[2];
    const at::Tensor gradient = laid_out(gradients[0].to(x.scalar_type()));
    const Rows rows = rows_of(x);
    const int64_t channels = rows.channels;
    const float *mean = statistics.const_data_ptr<float>(), *inverse = mean + channels, *scale = inverse + channels;
    torch::autograd::variable_list result(9);
    const auto options = statistics.options();
    at::Tensor of_weight = at::empty({channels}, options), of_bias = at::empty({channels}, options), terms = at::empty({2, channels}, options);
    float *slope = terms.data_ptr<float>(), *level = slope + channels;
    at::Tensor of_x = at::empty_like(x), of_other = context->needs_input_grad(3) ? at::empty_like(x) : at::Tensor();
    with_type(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T *dy = values<T>(gradient), *passed = values<T>(y), *from = values<T>(x);
      const auto totals = totals_of(
          rows, [&](int64_t first, int64_t last, double* totals) { gradient_sums(dy, passed, from, mean, first, last, channels, totals); });
      for (int64_t c = 0; c < channels; ++c) {
        const double sum = totals[c], product = totals[channels + c] * inverse[c];
        of_bias.data_ptr<float>()[c] = static_cast<float>(sum);
        of_weight.data_ptr<float>()[c] = static_cast<float>(product);
        level[c] = static_cast<float>(scale[c] * sum / rows.rows);
        slope[c] = static_cast<float>(scale[c] * inverse[c] * product / rows.rows);
      }
      T *to = static_cast<T*>(of_x.data_ptr()), *to_other = of_other.defined() ? static_cast<T*>(of_other.data_ptr()) : nullptr;
      parallel(rows.rows, 64, [&](int64_t first, int64_t last) {
        input_gradient(dy, passed, from, mean, scale, slope, level, first, last, channels, to, to_other);
      });
    });
    result[0] = of_x;
    if (context->needs_input_grad(1)) result[1] = of_weight;
    if (context->needs_input_grad(2)) result[2] = of_bias;
    result[3] = of_other;
    return result;
  }
};

}  // namespace

char* st_batch_norm(st_tensor x, st_tensor weight, st_tensor bias, st_tensor other, st_tensor running_mean, st_tensor running_var, double momentum,
                    double eps, int relu, st_tensor* out) {
  return caught([&] {
    const auto optional = [](st_tensor tensor) { return tensor == nullptr ? std::optional<at::Tensor>() : std::optional<at::Tensor>(tensor_of(tensor)); };
    *out = new at::Tensor(BatchNorm::apply(tensor_of(x), optional(weight), optional(bias), optional(other), tensor_of(running_mean),
                                           tensor_of(running_var), momentum, eps, relu != 0));
  });
}
