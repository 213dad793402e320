// Each kernel at the level of instructions in use (striate-cpu).
#include "kernels.h"

namespace {

int level() {
  static const int level = striate_cpu_level();
  return level;
}

}  // namespace

#if defined(__x86_64__)
#define AT_LEVEL(call)              \
  switch (level()) {                \
    case 2: return avx512::call;    \
    case 1: return avx2::call;      \
    default: return baseline::call; \
  }
#else
#define AT_LEVEL(call) return baseline::call;
#endif

#define FOR_TYPE(T)                                                                                  \
  template <>                                                                                        \
  void max_pool(const T* x, int64_t pixel, const Pool& pool, T* y, uint8_t* index) {                 \
    AT_LEVEL(max_pool(x, pixel, pool, y, index))                                                     \
  }
FOR_TYPE(float)
FOR_TYPE(uint16_t)
FOR_TYPE(uint8_t)
#undef FOR_TYPE

#define FOR_TYPE(T)                                                                                  \
  template <>                                                                                        \
  void max_pool_gradient(const T* gradient, const uint8_t* index, const Pool& pool, T* to) {         \
    AT_LEVEL(max_pool_gradient(gradient, index, pool, to))                                           \
  }                                                                                                  \
  template <>                                                                                        \
  void batch_norm(const Norm<T>& norm) {                                                             \
    AT_LEVEL(batch_norm(norm))                                                                       \
  }                                                                                                  \
  template <>                                                                                        \
  void batch_norm_gradient(const NormGradient<T>& norm) {                                            \
    AT_LEVEL(batch_norm_gradient(norm))                                                              \
  }                                                                                                  \
  template <>                                                                                        \
  void multiply(const Product<T>& product) {                                                         \
    AT_LEVEL(multiply(product))                                                                      \
  }                                                                                                  \
  template <>                                                                                        \
  void pack(const Matrix<T>& matrix, int64_t padded, T* panels) {                                    \
    AT_LEVEL(pack(matrix, padded, panels))                                                           \
  }                                                                                                  \
  template <>                                                                                        \
  void weight_gradient(const Sums<T>& sums, float* to) {                                             \
    AT_LEVEL(weight_gradient(sums, to))                                                              \
  }                                                                                                  \
  template <>                                                                                        \
  void winograd(const Winograd<T>& convolution) {                                                    \
    AT_LEVEL(winograd(convolution))                                                                  \
  }                                                                                                  \
  template <>                                                                                        \
  void winograd_weight_gradient(const WinogradGradient<T>& convolution, const Kernels& result) {     \
    AT_LEVEL(winograd_weight_gradient(convolution, result))                                          \
  }
FOR_TYPE(float)
FOR_TYPE(uint16_t)
#undef FOR_TYPE

void winograd_weight(const Kernels& kernels, int64_t depth, int64_t columns, float* to) { AT_LEVEL(winograd_weight(kernels, depth, columns, to)) }
void quantize(const float* from, int64_t count, st_scale scale, uint8_t* to) { AT_LEVEL(quantize(from, count, scale, to)) }
void dequantize(const uint8_t* from, int64_t count, st_scale scale, float* to) { AT_LEVEL(dequantize(from, count, scale, to)) }

void st_jpeg_blocks(const int16_t* from, const uint8_t* flat, int64_t count, int64_t stride, uint8_t* to) {
  AT_LEVEL(jpeg_blocks(from, flat, count, stride, to))
}
int st_jpeg_pixels(const st_plane* planes, int across, int down, const int64_t* region, uint8_t* to) {
  AT_LEVEL(jpeg_pixels(planes, across, down, region, to))
}
int st_resample(const uint8_t* from, const st_resampling* resampling, int cubic, uint8_t* to) { AT_LEVEL(resample(from, resampling, cubic, to)) }

int st_has_bf16_products() {
#if defined(__x86_64__)
  return level() == 2 && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return 0;
#endif
}

bool multiplies_bytes() {
#if defined(__x86_64__)
  return (level() == 2 && __builtin_cpu_supports("avx512vnni") != 0) || (level() >= 1 && __builtin_cpu_supports("avxvnni") != 0);
#else
  return false;
#endif
}

// Here, since kernels are compiled with OpenMP.
int st_thread_width(int width) {
#ifdef _OPENMP
  const int former = static_cast<int>(thread_count());  // settles libtorch's own first choice for this thread
  omp_set_num_threads(width);
  return former;
#else
  return width;
#endif
}

// Unlike `parallel`, it leaves denormal numbers as they are: `body` is not of these kernels.
void st_parallel(void (*body)(void* context, int64_t number), void* context, int64_t count) {
#ifdef _OPENMP
  const int64_t threads = omp_in_parallel() ? 1 : std::max<int64_t>(1, std::min(thread_count(), count));
#pragma omp parallel for if (threads > 1) num_threads(static_cast<int>(threads))
#endif
  for (int64_t number = 0; number < count; ++number) body(context, number);
}
