// Sixteen channels at once, of float32 or bfloat16.
#pragma once
#include "kernels.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

// A block of products: pixels, or tiles of such, by vectors of output channels, as many as registers hold; and the output channels of a panel of weights.
constexpr int64_t kRows = 6, kVectors = 4, kPanel = kVectors * kLanes;

// The floats of a weight that are fetched ahead of those that are multiplied: with one image they come from memory.
constexpr int64_t kAhead = 2048;

// Over the `rows` and `vectors` of a block.
#define EACH_ROW _Pragma("GCC unroll 6") for (int64_t r = 0; r < rows; ++r)
#define EACH_VECTOR _Pragma("GCC unroll 4") for (int64_t v = 0; v < vectors; ++v)

// For kernels that only processors of st_has_wide_vectors are to run.
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE_VECTORS __attribute__((target("arch=x86-64-v4")))
#else
#define WIDE_VECTORS
#endif
// For those that only processors of st_has_bf16_products are to run.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define PAIRS __attribute__((target("arch=x86-64-v4,avx512bf16")))
#endif

// Sixteen channels: one instruction each where the processor has such, several where not.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(sizeof(uint32_t)), may_alias));
typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t)), aligned(sizeof(uint16_t)), may_alias));

typedef uint8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

static ALWAYS_INLINE Lanes load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
static ALWAYS_INLINE void store(float* to, Lanes value) { *reinterpret_cast<Lanes*>(to) = value; }
static ALWAYS_INLINE void store(uint8_t* to, Bytes values) { *reinterpret_cast<Bytes*>(to) = values; }

// Sixteen rows of sixteen become columns: pairs of rows exchange what lies across the diagonal, single values first, then blocks of 2, 4 and 8.
#define EXCHANGE(apart, first, second)                        \
  for (int64_t i = 0; i < kLanes; ++i)                        \
    if ((i & apart) == 0) {                                   \
      const Lanes a = rows[i], b = rows[i + apart];           \
      rows[i] = __builtin_shufflevector(a, b, EXPAND first);  \
      rows[i + apart] = __builtin_shufflevector(a, b, EXPAND second); \
    }
#define EXPAND(...) __VA_ARGS__
static ALWAYS_INLINE void transpose(Lanes (&rows)[kLanes]) {
  EXCHANGE(1, (0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30), (1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
  EXCHANGE(2, (0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), (2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  EXCHANGE(4, (0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), (4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  EXCHANGE(8, (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), (8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
}
#undef EXCHANGE
#undef EXPAND

// In two steps, each of which is an instruction; one step is sixteen.
static ALWAYS_INLINE Bytes narrow(Bits values) { return __builtin_convertvector(__builtin_convertvector(values, Halves), Bytes); }
static ALWAYS_INLINE Bits widen(Bytes values) { return __builtin_convertvector(__builtin_convertvector(values, Halves), Bits); }

// bfloat16, by its bits: the upper half of a float, rounded to the nearest, to even between two.
static ALWAYS_INLINE Lanes load(const uint16_t* from) {
  return reinterpret_cast<Lanes>(__builtin_convertvector(*reinterpret_cast<const Halves*>(from), Bits) << 16);
}
static ALWAYS_INLINE void store(uint16_t* to, Lanes value) {
  Bits bits = reinterpret_cast<Bits>(value);
  Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  rounded = value != value ? Bits{} + 0x7fc0u : rounded;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(rounded, Halves);
}
// The values of two, each beside the other's.
static ALWAYS_INLINE Bits paired(const uint16_t* first, const uint16_t* second) {
  const Bits lower = __builtin_convertvector(*reinterpret_cast<const Halves*>(first), Bits);
  return lower | __builtin_convertvector(*reinterpret_cast<const Halves*>(second), Bits) << 16;
}
