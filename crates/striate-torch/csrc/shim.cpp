#include "shim.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Version.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/randperm.h>
#include <torch/types.h>
#include <torch/version.h>

#include <cstring>
#include <vector>

namespace {

at::Tensor& tensor_of(st_tensor tensor) { return *static_cast<at::Tensor*>(tensor); }
at::Generator& generator_of(st_generator generator) { return *static_cast<at::Generator*>(generator); }

std::vector<at::Tensor> list_of(const st_tensor* tensors, size_t n) {
  std::vector<at::Tensor> list;
  list.reserve(n);
  for (size_t i = 0; i < n; ++i) list.push_back(tensor_of(tensors[i]));
  return list;
}

// Runs `body`; an exception becomes a message without libtorch's backtrace.
template <typename Body>
char* caught(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  }
}

}  // namespace

void st_free_message(char* message) { free(message); }

const char* st_torch_version() { return TORCH_VERSION; }

int st_memory_format(st_tensor tensor) {
  const at::Tensor& t = tensor_of(tensor);
  if (t.is_contiguous()) return 0;
  return t.dim() == 4 && t.is_contiguous(at::MemoryFormat::ChannelsLast) ? 1 : 2;
}

char* st_to_memory_format(st_tensor tensor, int channels_last, st_tensor* out) {
  return caught([&] {
    if (!channels_last) {
      *out = new at::Tensor(tensor_of(tensor).contiguous());
      return;
    }
    at::Tensor result = tensor_of(tensor).contiguous(at::MemoryFormat::ChannelsLast);
    // With one channel, or images of one pixel, both formats lie alike in memory and only the strides of dimensions of size 1
    // tell them apart. Convolutions choose their kernel by these, so they are made to say channels-last.
    auto strides = c10::get_channels_last_strides_2d(result.sizes());
    if (result.strides() != at::IntArrayRef(strides)) result = result.as_strided(result.sizes(), strides);
    *out = new at::Tensor(result);
  });
}

int st_may_overwrite(st_tensor tensor) {
  const at::Tensor& t = tensor_of(tensor);
  return !at::GradMode::is_enabled() && !t.requires_grad() && t.use_count() == 1 && t.has_storage() &&
      t.storage().use_count() == 1 && t.is_non_overlapping_and_dense();
}

st_generator st_generator_new(uint64_t seed) { return new at::Generator(at::detail::createCPUGenerator(seed)); }

void st_generator_free(st_generator generator) { delete &generator_of(generator); }

char* st_uniform(st_generator generator, st_tensor tensor, double low, double high) {
  return caught([&] {
    at::NoGradGuard no_grad;
    tensor_of(tensor).uniform_(low, high, generator_of(generator));
  });
}

char* st_normal(st_generator generator, st_tensor tensor, double mean, double std) {
  return caught([&] {
    at::NoGradGuard no_grad;
    tensor_of(tensor).normal_(mean, std, generator_of(generator));
  });
}

char* st_randperm(st_generator generator, int64_t n, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(at::randperm(n, generator_of(generator), at::TensorOptions().dtype(at::kLong))); });
}

char* st_clear_grads(const st_tensor* tensors, size_t n) {
  return caught([&] {
    for (size_t i = 0; i < n; ++i) tensor_of(tensors[i]).mutable_grad() = at::Tensor();
  });
}

char* st_fused_sgd(const st_tensor* params, const st_tensor* grads, const st_tensor* momenta, size_t n, double lr, double momentum,
                   double weight_decay, int nesterov, int first_step) {
  return caught([&] {
    at::NoGradGuard no_grad;
    auto momentum_list = momentum != 0.0 ? list_of(momenta, n) : std::vector<at::Tensor>();
    at::_fused_sgd_(list_of(params, n), list_of(grads, n), momentum_list, weight_decay, momentum, lr, /*dampening=*/0.0,
                    nesterov != 0, /*maximize=*/false, first_step != 0);
  });
}

char* st_fused_adamw(const st_tensor* params, const st_tensor* grads, const st_tensor* exp_avgs, const st_tensor* exp_avg_sqs,
                     const st_tensor* steps, size_t n, double lr, double beta1, double beta2, double weight_decay, double eps) {
  return caught([&] {
    at::NoGradGuard no_grad;
    at::_fused_adamw_(list_of(params, n), list_of(grads, n), list_of(exp_avgs, n), list_of(exp_avg_sqs, n), {}, list_of(steps, n), lr,
                      beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}
