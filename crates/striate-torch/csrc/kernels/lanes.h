// Several channels at once, of float32 or bfloat16. What includes this is compiled once for each level of instructions (build.rs), in a namespace of its own.
#pragma once
#include "kernels.h"

#include <utility>

#define ALWAYS_INLINE inline __attribute__((always_inline))

// The namespace; what functions are compiled for, unless they become part of others; and the floats of a vector and the vectors of a block of products.
#if STRIATE_LEVEL == 2
#define LEVEL avx512
#define TARGET __attribute__((target("arch=x86-64-v4")))
#define LANES 16
#define VECTORS 4
#elif STRIATE_LEVEL == 1
#define LEVEL avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define VECTORS 2
#else
#define LEVEL baseline
#define TARGET
#define LANES 4
#define VECTORS 2
#endif

// For kernels that only processors of st_has_bf16_products are to run.
#if STRIATE_LEVEL == 2
#include <immintrin.h>
#define PAIRS __attribute__((target("arch=x86-64-v4,avx512bf16")))
#endif

namespace LEVEL {

constexpr int64_t kLanes = LANES, kVectors = VECTORS;

// A block of products: pixels, or tiles of such, by vectors of output channels; and the output channels of a panel of weights.
constexpr int64_t kRows = 6, kPanel = kVectors * kLanes;

// The floats of a line of the cache, and of a weight those that are fetched ahead of those that are multiplied: with one image they come from memory.
constexpr int64_t kLine = 16, kAhead = 2048;

// Over the `rows` and `vectors` of a block, and over each vector that begins a line.
#define EACH_ROW _Pragma("GCC unroll 6") for (int64_t r = 0; r < rows; ++r)
#define EACH_VECTOR _Pragma("GCC unroll 4") for (int64_t v = 0; v < vectors; ++v)
#define EACH_LINE _Pragma("GCC unroll 4") for (int64_t v = 0; v < vectors; v += std::max<int64_t>(kLine / kLanes, 1))

// BODY(vectors) for a panel of so many columns. The last one has fewer vectors only where a panel is wider than the multiples that channels come in.
static_assert(kLanes == kMultiple || kMultiple % kPanel == 0);
#if VECTORS == 4
#define FOR_COLUMNS(columns, BODY)                \
  switch (((columns) + kLanes - 1) / kLanes) {    \
    case 4: BODY(4) break;                        \
    case 3: BODY(3) break;                        \
    case 2: BODY(2) break;                        \
    default: BODY(1)                              \
  }
#else
#define FOR_COLUMNS(columns, BODY) BODY(VECTORS)
#endif

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(sizeof(uint32_t)), may_alias));
typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t)), aligned(sizeof(uint16_t)), may_alias));

typedef uint8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

static ALWAYS_INLINE Lanes load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
static ALWAYS_INLINE void store(float* to, Lanes value) { *reinterpret_cast<Lanes*>(to) = value; }
static ALWAYS_INLINE void store(uint8_t* to, Bytes values) { *reinterpret_cast<Bytes*>(to) = values; }

template <int count>
struct OrderOf {
  typedef int32_t Type __attribute__((vector_size(count * sizeof(int32_t))));
};

// Pairs of rows exchange what lies across the diagonal, in blocks of `apart`. GCC 11 has but one of the functions that shuffle, Clang but the other.
template <int apart, typename Vector, int... i>
static ALWAYS_INLINE void exchange(Vector* rows, std::integer_sequence<int, i...>) {
  constexpr int count = sizeof...(i);
  for (int r = 0; r < count; ++r)
    if ((r & apart) == 0) {
      const Vector a = rows[r], b = rows[r + apart];
#ifdef __clang__
      rows[r] = __builtin_shufflevector(a, b, ((i & apart) == 0 ? i : count + i - apart)...);
      rows[r + apart] = __builtin_shufflevector(a, b, ((i & apart) == 0 ? i + apart : count + i)...);
#else
      using Order = typename OrderOf<count>::Type;
      rows[r] = __builtin_shuffle(a, b, Order{((i & apart) == 0 ? i : count + i - apart)...});
      rows[r + apart] = __builtin_shuffle(a, b, Order{((i & apart) == 0 ? i + apart : count + i)...});
#endif
    }
}
// As many rows as a vector has values become columns.
template <typename Vector, size_t count>
static ALWAYS_INLINE void transpose(Vector (&rows)[count]) {
  constexpr auto order = std::make_integer_sequence<int, count>{};
  exchange<1>(rows, order);
  exchange<2>(rows, order);
  if constexpr (count > 4) exchange<4>(rows, order);
  if constexpr (count > 8) exchange<8>(rows, order);
}

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

}  // namespace LEVEL
