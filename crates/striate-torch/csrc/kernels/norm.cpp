// Batch norm in training, with what follows it: y = relu((x - mean) * scale + shift + other), each read and written once a pass.
#include "lanes.h"

#include <cmath>

namespace LEVEL {

namespace {

// Channels that are added up together, and rows until their sums go to float64.
constexpr int64_t kVectorsAtOnce = 4, kRowsAtOnce = 128;

// Calls `body` with the number of vectors, up to `kVectorsAtOnce`, of each part of the channels, and where it begins.
template <typename Body>
ALWAYS_INLINE void for_parts(int64_t channels, Body body) {
  int64_t c = 0;
  for (; c + kVectorsAtOnce * kLanes <= channels; c += kVectorsAtOnce * kLanes) body(std::integral_constant<int64_t, kVectorsAtOnce>{}, c);
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
  for (int64_t begin = first; begin < last; begin += kRowsAtOnce)
    for_parts(channels, [&](auto count, int64_t c) __attribute__((always_inline)) {
      constexpr int64_t vectors = decltype(count)::value;
      Lanes sums[vectors] = {}, squares[vectors] = {}, from[vectors];
      for (int64_t v = 0; v < vectors; ++v) from[v] = load(origin + c + v * kLanes);
      for (int64_t row = begin; row < std::min(begin + kRowsAtOnce, last); ++row)
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
  for (int64_t begin = first; begin < last; begin += kRowsAtOnce)
    for_parts(channels, [&](auto count, int64_t c) __attribute__((always_inline)) {
      constexpr int64_t vectors = decltype(count)::value;
      Lanes sums[vectors] = {}, products[vectors] = {}, from[vectors];
      for (int64_t v = 0; v < vectors; ++v) from[v] = load(mean + c + v * kLanes);
      for (int64_t row = begin; row < std::min(begin + kRowsAtOnce, last); ++row)
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
  TARGET void moments(const T* x, const float* origin, int64_t first, int64_t last, int64_t channels, double* totals) {                    \
    moments_of(x, origin, first, last, channels, totals);                                                                                              \
  }                                                                                                                                                    \
  TARGET void normalise(const T* x, const T* other, bool relu, const float* mean, const float* scale, const float* shift, int64_t first,   \
                                    int64_t last, int64_t channels, T* y) {                                                                            \
    normalise_rows(x, other, relu, mean, scale, shift, first, last, channels, y);                                                                      \
  }                                                                                                                                                    \
  TARGET void gradient_sums(const T* gradient, const T* y, const T* x, const float* mean, int64_t first, int64_t last, int64_t channels,   \
                                        double* totals) {                                                                                              \
    gradient_sums_of(gradient, y, x, mean, first, last, channels, totals);                                                                             \
  }                                                                                                                                                    \
  TARGET void input_gradient(const T* gradient, const T* y, const T* x, const float* mean, const float* scale, const float* slope,         \
                                         const float* level, int64_t first, int64_t last, int64_t channels, T* to, T* other) {                         \
    gradient_rows(gradient, y, x, mean, scale, slope, level, first, last, channels, to, other);                                                        \
  }
FOR_BOTH(float)
FOR_BOTH(uint16_t)

// Adds up [2, channels] over all rows in parts, one a thread: `body(first, last, totals)`.
template <typename Body>
std::vector<double> totals_of(int64_t rows, int64_t channels, Body body) {
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(thread_count(), rows / kRowsAtOnce)), width = 2 * channels;
  std::vector<double> parts(threads * width);
  parallel(threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) body(rows * i / threads, rows * (i + 1) / threads, parts.data() + i * width);
  });
  for (int64_t i = 1; i < threads; ++i)
    for (int64_t c = 0; c < width; ++c) parts[c] += parts[i * width + c];
  return parts;
}

}  // namespace

template <typename T>
void batch_norm(const Norm<T>& norm) {
  const int64_t rows = norm.rows, channels = norm.channels;
  float *mean = norm.statistics, *inverse = mean + channels, *scale = inverse + channels, *shift = scale + channels;
  // Sums of differences from the first pixel lose nothing to a mean far from zero.
  for (int64_t c = 0; c < channels; c += kLanes) store(mean + c, load(norm.x + c));
  const auto totals = totals_of(rows, channels, [&](int64_t first, int64_t last, double* totals) { moments(norm.x, mean, first, last, channels, totals); });
  for (int64_t c = 0; c < channels; ++c) {
    const double offset = totals[c] / rows, variance = std::max(totals[channels + c] / rows - offset * offset, 0.0);
    mean[c] += static_cast<float>(offset);
    inverse[c] = static_cast<float>(1 / std::sqrt(variance + norm.eps));
    scale[c] = inverse[c] * (norm.weight != nullptr ? norm.weight[c] : 1.0f);
    shift[c] = norm.bias != nullptr ? norm.bias[c] : 0.0f;
    norm.running_mean[c] += static_cast<float>(norm.momentum * (mean[c] - norm.running_mean[c]));
    norm.running_var[c] += static_cast<float>(norm.momentum * (variance * rows / (rows - 1) - norm.running_var[c]));
  }
  parallel(rows, 64, [&](int64_t first, int64_t last) {
    normalise(norm.x, norm.other, norm.relu, mean, scale, shift, first, last, channels, norm.y);
  });
}
template void batch_norm(const Norm<float>&);
template void batch_norm(const Norm<uint16_t>&);

template <typename T>
void batch_norm_gradient(const NormGradient<T>& norm) {
  const int64_t rows = norm.rows, channels = norm.channels;
  const float *mean = norm.statistics, *inverse = mean + channels, *scale = inverse + channels;
  const Floats terms(2 * channels);
  float *slope = terms.data(), *level = slope + channels;
  const auto totals = totals_of(rows, channels, [&](int64_t first, int64_t last, double* totals) {
    gradient_sums(norm.gradient, norm.y, norm.x, mean, first, last, channels, totals);
  });
  for (int64_t c = 0; c < channels; ++c) {
    const double sum = totals[c], product = totals[channels + c] * inverse[c];
    norm.of_bias[c] = static_cast<float>(sum);
    norm.of_weight[c] = static_cast<float>(product);
    level[c] = static_cast<float>(scale[c] * sum / rows);
    slope[c] = static_cast<float>(scale[c] * inverse[c] * product / rows);
  }
  parallel(rows, 64, [&](int64_t first, int64_t last) {
    input_gradient(norm.gradient, norm.y, norm.x, mean, scale, slope, level, first, last, channels, norm.of_x, norm.of_other);
  });
}
template void batch_norm_gradient(const NormGradient<float>&);
template void batch_norm_gradient(const NormGradient<uint16_t>&);

}  // namespace LEVEL
