// What kernels.cu takes from the card: how a kernel is declared, and the conversions of half types. Nothing may be included here: NVRTC has no headers.
#pragma once

#define KERNEL extern "C" __global__ void
#define SHARED_FLOATS(name) extern __shared__ float name[]

__device__ __forceinline__ float half_to_float(unsigned half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)half));
  return value;
}

__device__ __forceinline__ unsigned float_to_half(float value) {
  unsigned short half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

// The first is the lower half of the word.
__device__ __forceinline__ unsigned two_bfloats(float first, float second) {
#if __CUDA_ARCH__ >= 800
  unsigned both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
#else
  const auto rounded = [](float value) {
    const unsigned bits = __float_as_uint(value);
    // To the nearest, of two as near to the even one; a NaN stays one.
    return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return rounded(first) | rounded(second) << 16;
#endif
}
