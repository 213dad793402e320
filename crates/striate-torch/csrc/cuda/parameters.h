// What each kernel takes: one struct. The host fills it (launch.h), the device reads it (kernels.cu). Feature maps are channels-last: `rows` pixels of
// `channels` values, which are read in vectors of 16 bytes. Nothing may be included here: NVRTC has no headers.
#pragma once

// What kernels.cu is compiled for, and launched with.
#ifndef STRIATE_THREADS
#define STRIATE_THREADS 512  // of a block of batch norm's, at most
#endif
#ifndef STRIATE_BLOCKS
#define STRIATE_BLOCKS 2  // of a multiprocessor
#endif
#ifndef STRIATE_AHEAD
#define STRIATE_AHEAD 4  // vectors that a thread reads before it uses the first
#endif
#ifndef STRIATE_BATCH
#define STRIATE_BATCH 8  // partial results that a thread reads before it adds up the first
#endif
#define STRIATE_POOL_THREADS 256

#define FOR_KERNELS(X)                                                                                                        \
  X(norm_moments) X(norm_forward) X(norm_forward_relu) X(norm_forward_add) X(norm_forward_add_relu)                          \
  X(norm_sums) X(norm_sums_relu) X(norm_sums_add_relu) X(norm_sums_two_add_relu) X(norm_backward) X(norm_backward_relu)       \
  X(pool_any) X(pool_2) X(pool_3) X(spread_any) X(spread_1) X(spread_2)                                               \
  X(relu_sums)

// Batch norm in training: y = relu((x - mean) * scale + shift + other).
struct NormForward {
  const void *x, *other;        // `other` may be nullptr
  const float *weight, *bias;   // may be nullptr
  float *running_mean, *running_var;
  long long* counter;  // of batches, or nullptr
  float* partials;    // [parts, 2, channels]: mean and sum of squared deviations of the rows of each part
  float* statistics;  // [4, channels]: mean, inverse standard deviation, scale, shift
  void* y;
  unsigned char* mask;  // [tiles, rows, vectors of a tile]: a bit for each value that the ReLU let through, or nullptr
  double momentum, eps;
  int rows, vectors;  // of a row
  int parts;          // that the first pass had
};

struct NormBackward {
  const void *gradient, *second;  // `second`, which may be nullptr, is added to the gradient where there is a mask
  const void* x;
  const unsigned char* mask;
  const float* statistics;
  float* partials;  // [parts, 2, channels]: sums of the gradient and of its products with x - mean
  float *of_weight, *of_bias;
  void *of_x, *of_other;  // `of_other` is written where there is a mask
  int rows, vectors, parts;
};

// Max pooling; pairs are height and width.
struct MaxPooling {
  const void* x;
  void* y;
  unsigned char* index;  // the place within its window of each value of y, or nullptr
  int items;             // vectors of y
  int vectors;           // of a pixel
  int in[2], out[2], kernel[2], stride[2], padding[2];
  int relu;
};

struct MaxPoolingGradient {
  const void* gradient;
  const unsigned char* index;
  void* of_x;
  int items;  // vectors of of_x
  int vectors;
  int in[2], out[2], kernel[2], stride[2], padding[2];
};

// A ReLU's gradient, and its sums: the gradient of the bias before the ReLU.
struct ReluBackward {
  const void *gradient, *y;
  void* of_x;
  float* partials;  // [parts, channels]
  int rows, vectors;
};

// In place of the place: the ReLU let nothing through.
enum { kNothing = 255 };
