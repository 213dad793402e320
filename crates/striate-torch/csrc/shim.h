// The C interface of the shim: a tensor is torch-sys's pointer to a torch::Tensor; a function that can fail returns nullptr, or a message that
// st_free_message frees.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
typedef void* st_tensor;
typedef void* st_generator;
typedef void* st_stream;
typedef void* st_graph;
typedef void* st_store;
typedef void* st_group;
typedef void* st_reducer;
// What bytes stand for: step * (byte - zero_point).
typedef struct {
  double step;
  int64_t zero_point;
} st_scale;

// What of a picture becomes which other: of all of the picture the piece that is there, left, top, width and height; the part that is resized; the size that it
// gets; and the window of that which is computed.
typedef struct {
  int64_t piece[4], channels, part[4], size[2], window[4];
} st_resampling;
// The samples that are there of a JPEG's component, in rows that lie `stride` apart; the first is that of column `left` and row `top`. The component has
// `width` columns and `height` rows in all.
typedef struct {
  const uint8_t* samples;
  int64_t stride, left, top, width, height;
} st_plane;

// The level of instructions that kernels use, from 0 (src/cpu.rs).
int striate_cpu_level();

void st_free_message(char* message);
const char* st_torch_version();
// Ends the process: buffers of the C library are written, destructors of static objects are not run.
void st_exit(int code);
// Sets how many threads operators called by this thread use; gives the former number.
int st_thread_width(int width);
// Calls `body(context, number)` for each number in 0..count, on as many threads as libtorch's operators use; within such a call, on this thread alone.
// `body` throws nothing.
void st_parallel(void (*body)(void* context, int64_t number), void* context, int64_t count);
char* st_build_config();

// 0: contiguous (NCHW), 1: channels_last (NHWC), 2: neither.
int st_memory_format(st_tensor tensor);
char* st_to_memory_format(st_tensor tensor, int channels_last, st_tensor* out);

// Keeps freed memory in the process from now on: call it once.
void st_keep_memory(void);
// Gives the freed memory that is kept back to the system, where the C library can.
void st_release_memory(void);

// 1 if no gradients are recorded and nothing but this handle sees the tensor's memory.
int st_may_overwrite(st_tensor tensor);

st_generator st_generator_new(uint64_t seed);
void st_generator_free(st_generator generator);
char* st_uniform(st_generator generator, st_tensor tensor, double low, double high);
char* st_normal(st_generator generator, st_tensor tensor, double mean, double std);
char* st_randperm(st_generator generator, int64_t n, st_tensor* out);

// Sets the gradients of `n` tensors to undefined, as PyTorch's zero_grad(set_to_none=True).
char* st_clear_grads(const st_tensor* tensors, size_t n);
// The learning rate is `lr_tensor`, a float32 scalar on the parameters' device, or `lr` where that is nullptr.
char* st_fused_sgd(const st_tensor* params, const st_tensor* grads, const st_tensor* momenta, size_t n, double lr, st_tensor lr_tensor,
                   double momentum, double weight_decay, int nesterov, int first_step);
// Adam; with `decoupled`, AdamW.
char* st_fused_adam(const st_tensor* params, const st_tensor* grads, const st_tensor* exp_avgs, const st_tensor* exp_avg_sqs, const st_tensor* steps,
                    size_t n, double lr, st_tensor lr_tensor, double beta1, double beta2, double weight_decay, double eps, int decoupled);

// What is done to each tensor of a list, in place, with a value or with the tensors of the lists
// `a` and `b`.
typedef enum {
  ST_ADD,         // x + value * a
  ST_ADD_VALUE,   // x + value
  ST_MUL,         // x * a
  ST_MUL_VALUE,   // x * value
  ST_MUL_TENSOR,  // x * a[0], a scalar
  ST_DIV,         // x / a
  ST_LERP,        // x + value * (a - x)
  ST_ADDCMUL,     // x + value * a * b
  ST_ADDCDIV,     // x + value * a / b
  ST_SQRT,
  ST_SIGN,
  ST_CLAMP_MIN,
  ST_CLAMP_MAX,
  ST_COPY,        // a
} st_foreach_op;
char* st_foreach(st_foreach_op op, const st_tensor* tensors, const st_tensor* a, const st_tensor* b, size_t n, double value);
// The tensors, at least one and all of one type, in the type of that number, with gradients.
char* st_cast_all(const st_tensor* tensors, size_t n, int kind, st_tensor* out);
// The Euclidean norm of each tensor.
char* st_foreach_norm(const st_tensor* tensors, size_t n, st_tensor* out);

// oneDNN's operators that compute a layer with what follows it. `geometry` is padding, stride and dilation, each height and width. `bias` may be
// nullptr; `post` is "none", "relu", "tanh" or "sigmoid". A packed weight is opaque: only these operators read it.
int st_has_onednn();
int st_has_bf16();
char* st_pack_conv(st_tensor weight, const int64_t* geometry, int64_t groups, const int64_t* input_size, st_tensor* out);
char* st_conv(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, int64_t groups, const char* post, st_tensor* out);
// The convolution's output plus `other`; with `in_place` it is written over `other`, which `out` is then.
char* st_conv_add(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, int64_t groups, st_tensor other, int relu,
                  int in_place, st_tensor* out);
char* st_pack_linear(st_tensor weight, int64_t batch, st_tensor* out);
char* st_linear(st_tensor input, st_tensor weight, st_tensor bias, const char* post, st_tensor* out);

// A convolution of float32 or bfloat16 images as a product, or a linear layer, whose examples are images of one pixel (pointwise.cpp): with a weight
// [out, height * width * in] of their type, in bfloat16 of an even `width * in`, that is packed once, and a float32 bias with zeros up to a multiple of 16.
// `window` is its size, stride and padding, height and width each. `other` and `in_place` are as for st_winograd.
// Whether the level of instructions in use has products of bfloat16.
int st_has_bf16_products();
char* st_pointwise_weight(st_tensor weight, st_tensor* out);
char* st_pointwise(st_tensor input, st_tensor panels, st_tensor bias, const int64_t* window, int64_t out_channels, st_tensor other, int relu, int in_place,
                   st_tensor* out);

// Values as bytes, and oneDNN's operators that compute with them (int8.cpp): uint8 inputs, int8 weights with a scale for each output channel in
// `scales`, float32 biases. The output is uint8, or float32 where `output` is nullptr. A linear layer's input has the zero point 0.
int st_has_int8();
char* st_quantize(st_tensor values, st_scale scale, st_tensor* out);
char* st_dequantize(st_tensor bytes, st_scale scale, st_tensor* out);
// Adds the number of values in each of `bins` equal parts of low..high, zeros left out, to `counts`.
char* st_count(st_tensor values, double low, double high, int64_t* counts, int64_t bins);
char* st_int8_pack_conv(st_tensor weight, st_tensor scales, st_scale input, const int64_t* geometry, int64_t groups, const int64_t* input_size,
                        st_tensor* out);
char* st_int8_conv(st_tensor input, st_scale scale, st_tensor weight, st_tensor scales, st_tensor bias, const int64_t* geometry, int64_t groups,
                   int relu, const st_scale* output, st_tensor* out);
char* st_int8_conv_add(st_tensor input, st_scale scale, st_tensor weight, st_tensor scales, st_tensor bias, const int64_t* geometry, int64_t groups,
                       int relu, st_scale output, st_tensor other, st_scale other_scale, int in_place, st_tensor* out);
char* st_int8_pack_linear(st_tensor weight, int64_t batch, st_tensor* out);
char* st_int8_linear(st_tensor input, double step, st_tensor weight, st_tensor scales, st_tensor bias, int relu, const st_scale* output,
                     st_tensor* out);

// Channels-last feature maps of float32, bfloat16 or uint8 on the CPU, and for max pooling of float32, bfloat16 or float16 on a GPU whose kernels are loaded; 0 if a tensor is no such, and nothing is written then.
// Max pooling, of what a ReLU gives if there is one, with gradients (pool.cpp); `window` is the kernel's size, stride and padding, each height and width.
int st_max_pool(st_tensor input, const int64_t* window, int64_t out_height, int64_t out_width, int relu, st_tensor* out);
int st_concat_channels(const st_tensor* tensors, size_t n, st_tensor* out);

// A 3x3 convolution at stride 1 by Winograd's algorithm (winograd.cpp), of float32 or bfloat16: `weight` holds 36 float32 matrices [in, out] in panels
// of 64 columns, `bias` is float32; channels are multiples of 16. `other`, which may be nullptr, is added, and written over with `in_place`.
char* st_winograd(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* padding, int64_t out_channels, st_tensor other, int relu,
                  int in_place, st_tensor* out);
// Has CUDA multiply float32 in TF32, and cuDNN try its algorithms out.
void st_fast_cuda();
// Has CUDA multiply float32 in TF32, or not; and whether it does.
void st_set_tf32(int on);
int st_tf32();
// Multiplies gradients of one device by a float32 scalar; `found`, another, becomes 1 if a value of them is no number.
char* st_unscale(const st_tensor* grads, size_t n, st_tensor found, st_tensor inverse_scale);
// CUDA (cuda.cpp). A stream of its own on a device; `st_stream_switch` has this thread launch on it, after what was launched on the former one, which is
// given back to be switched to again.
// Why no device can be used, if libtorch has CUDA and there is none.
char* st_cuda_trouble();
char* st_stream_new(int device, st_stream* out);
void st_stream_free(st_stream stream);
char* st_stream_switch(st_stream stream, st_stream* former);
// Begins to copy a tensor of the CPU's to a device; what this thread launches may use the copy after st_await_copy.
char* st_copy_ahead(int device, st_tensor tensor, st_tensor* out);
char* st_await_copy(st_tensor copy);
// A new tensor of uint8 in memory of the CPU's that stays in its place; it takes a CUDA device.
char* st_pinned_bytes(const int64_t* size, size_t dimensions, st_tensor* out);
// What this thread launches between the two calls is recorded, not run: on `stream`, which it was switched to. A graph is to be freed only if both succeeded.
int st_has_graphs();
// `pool`, which may be nullptr, names memory that graphs share of which only one runs at a time; st_graph_pool makes such a name.
void st_graph_pool(uint64_t* pool);
char* st_graph_begin(st_stream stream, const uint64_t* pool, st_graph* out);
char* st_graph_end(st_stream stream, st_graph graph);
char* st_graph_replay(st_graph graph);
void st_graph_free(st_graph graph);
// Our kernels for NVIDIA GPUs (cuda_kernels.cpp). The device's compute capability: 90 is that of sm_90.
char* st_cuda_capability(int device, int* out);
// Has tensors on that device, of float32 (element 0), bfloat16 (1) or float16 (2), served by a compiled program.
char* st_cuda_load(int device, int element, const void* program);
// Has this thread run the kernels on the CPU, on tensors there, by a function of cuda/host.cpp, until it is called with nullptr: for tests.
typedef void (*st_host_launch)(int element, const void* launch);
void st_host_kernels(st_host_launch launch);
// Relu of a convolution in one group, of images and a weight on CUDA, by cuDNN (cudnn.cpp): `geometry` is as for st_conv; `bias`, and `other`, which is added
// before the ReLU, may be nullptr.
char* st_cudnn_conv_relu(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, st_tensor other, st_tensor* out);
// Relu of input weight^T + bias, in one operator on CUDA.
char* st_linear_relu(st_tensor input, st_tensor weight, st_tensor bias, st_tensor* out);
// The process's switches of CUDA, as bits: 1 and 2 for TF32 in products and in convolutions, 4 for cuDNN to try its algorithms out.
int st_cuda_switches();
void st_set_cuda_switches(int switches);
// Switches autocasting to bfloat16 (kind 15) or float16 (5) on, or off (kind -1), on this thread, for the CPU or CUDA; the former state is the result, to be
// given back.
int st_autocast(int cuda, int kind);
// Batch norm in training of channels-last images with a multiple of 16 channels (8 on a GPU), with what follows it (norm.cpp): `other`, which may be nullptr, is added,
// and a ReLU applied. `weight` and `bias` may be nullptr. The running statistics are moved, and batches counted in
// `counter`, which may be nullptr. `twin`, if it is no nullptr, gets the output for a second reader.
char* st_batch_norm(st_tensor x, st_tensor weight, st_tensor bias, st_tensor other, st_tensor running_mean, st_tensor running_var, st_tensor counter,
                    double momentum, double eps, int relu, st_tensor* out, st_tensor* twin);
// The matrices of a float32 weight [out, in, 3, 3].
char* st_winograd_weight(st_tensor weight, st_tensor* out);
// The same convolution, of weights that are transformed at each call, with gradients (winograd_train.cpp).
char* st_conv3x3(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* padding, st_tensor* out);
// A convolution in one group of float32 or bfloat16 images and a float32 weight, with gradients (conv_train.cpp); float32 images become bfloat16 while
// autocasting to it. `geometry` is as for st_conv, `bias` may be nullptr, channels are multiples of 16.
char* st_conv_train(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, st_tensor* out);
// Relu of a convolution in one group with a bias, with gradients, of images on a GPU whose kernels are loaded (conv_relu.cpp). Images and weight have one type,
// or get it from autocasting; the bias may be float32. `geometry` is as for st_conv, output channels are multiples of 8.
char* st_conv_relu(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, st_tensor* out);
// A window of a picture of bytes in another size as Pillow resizes it; all sizes are above 0. 0 if there is no memory, -1 if the piece lacks what the window is
// made of.
int st_resample(const uint8_t* from, const st_resampling* resampling, int cubic, uint8_t* to);
// The samples of `count` blocks of a JPEG that lie side by side, of their dequantised coefficients [count, 8, 8]; those of a `flat` one are 0 but the first.
void st_jpeg_blocks(const int16_t* from, const uint8_t* flat, int64_t count, int64_t stride, uint8_t* to);
// Red, green and blue of a region (left, top, width, height), of planes of luma, blue and red. The latter two have half of the columns (`across`) and of the
// rows (`down`). 0 if there is no memory.
int st_jpeg_pixels(const st_plane* planes, int across, int down, const int64_t* region, uint8_t* to);

// PyTorch's distributed engine (c10d.cpp). A store takes over the socket `listener`, if that is not -1, and connects
// to `host` at `port`, all its keys under `prefix`; times in milliseconds.
char* st_store_new(const char* host, uint16_t port, int listener, int64_t timeout, const char* prefix, st_store* out);
void st_store_free(st_store store);
char* st_store_set(st_store store, const char* key, const uint8_t* data, size_t len);
// Waits for a key; st_store_free_value frees its value.
char* st_store_get(st_store store, const char* key, int64_t timeout, uint8_t** data, size_t* len);
void st_store_free_value(uint8_t* data);
char* st_store_has(st_store store, const char* key, int* out);
char* st_store_add(st_store store, const char* key, int64_t value, int64_t* out);
// Has c10d write nothing to standard error, in the whole process.
void st_c10d_quiet();
int st_has_nccl();
// All processes of the store's: by NCCL or Gloo, which listens at `host`, or at this machine's own name if that is nullptr.
char* st_group_new(st_store store, int nccl, int rank, int size, int64_t timeout, const char* host, const char* name, st_group* out);
void st_group_free(st_group group);
char* st_group_all_reduce(st_group group, st_tensor tensor);
char* st_group_broadcast(st_group group, st_tensor tensor, int root);
// `out` has a tensor for each process.
char* st_group_all_gather(st_group group, st_tensor tensor, const st_tensor* out);
// Has gradients of `params` be the mean over all processes from now on; buckets in bytes. `half` is a number of c10::ScalarType, or -1.
char* st_reducer_new(st_group group, const st_tensor* params, size_t n, size_t first_bucket, size_t bucket, int find_unused, int static_graph, int half,
                     st_reducer* out);
void st_reducer_free(st_reducer reducer);
// Before a backward pass from these outputs whose gradients are to be reduced.
char* st_reducer_prepare(st_reducer reducer, const st_tensor* outputs, size_t n);
// Batch norm in training over the batch of all processes (sync_norm.cpp). `weight` and `bias` may be nullptr. The running statistics are moved.
char* st_sync_batch_norm(st_group group, st_tensor x, st_tensor weight, st_tensor bias, st_tensor running_mean, st_tensor running_var, double momentum,
                         double eps, st_tensor* out);
}
