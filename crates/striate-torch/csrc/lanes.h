// Sixteen channels at once, of float32 or bfloat16.
#pragma once
#include "common.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;
// A block of products: pixels, or tiles of such, by vectors of output channels, as many as registers hold; and the output channels of a panel of weights.
constexpr int64_t kRows = 6, kVectors = 4, kPanel = kVectors * kLanes;

// The floats of a weight that are fetched ahead of those that are multiplied: with one image they come from memory.
constexpr int64_t kAhead = 2048;

// For kernels that only processors of st_has_wide_vectors are to run.
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE_VECTORS __attribute__((target("arch=x86-64-v4")))
#else
#define WIDE_VECTORS
#endif

// Sixteen channels: one instruction each where the processor has such, several where not.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(sizeof(uint32_t)), may_alias));
typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t)), aligned(sizeof(uint16_t)), may_alias));

typedef uint8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

static ALWAYS_INLINE Lanes load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
static ALWAYS_INLINE void store(float* to, Lanes value) { *reinterpret_cast<Lanes*>(to) = value; }
static ALWAYS_INLINE void store(uint8_t* to, Bytes values) { *reinterpret_cast<Bytes*>(to) = values; }

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
