// The C interface of the shim: a tensor is torch-sys's pointer to a torch::Tensor; a function that can fail returns nullptr, or a message that
// st_free_message frees.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
typedef void* st_tensor;
typedef void* st_generator;

void st_free_message(char* message);
const char* st_torch_version();

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
char* st_fused_sgd(const st_tensor* params, const st_tensor* grads, const st_tensor* momenta, size_t n, double lr, double momentum,
                   double weight_decay, int nesterov, int first_step);
char* st_fused_adamw(const st_tensor* params, const st_tensor* grads, const st_tensor* exp_avgs, const st_tensor* exp_avg_sqs,
                     const st_tensor* steps, size_t n, double lr, double beta1, double beta2, double weight_decay, double eps);
}
