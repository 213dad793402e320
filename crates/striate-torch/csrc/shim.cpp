#include "common.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/randperm.h>
#include <torch/types.h>
#include <torch/version.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

at::Generator& generator_of(st_generator generator) { return *static_cast<at::Generator*>(generator); }

}  // namespace

void st_free_message(char* message) { free(message); }

const char* st_torch_version() { return TORCH_VERSION; }

void st_exit(int code) {
  fflush(nullptr);
  std::_Exit(code);
}

void st_set_tf32(int on) {
  at::globalContext().setAllowTF32CuBLAS(on != 0);
  at::globalContext().setAllowTF32CuDNN(on != 0);
}

int st_tf32() { return at::globalContext().allowTF32CuBLAS(); }

void st_fast_cuda() {
  st_set_tf32(1);
  at::globalContext().setBenchmarkCuDNN(true);
}

int st_autocast(int cuda, int kind) {
  const at::DeviceType device = cuda ? at::kCUDA : at::kCPU;
  const int former = at::autocast::is_autocast_enabled(device) ? static_cast<int>(at::autocast::get_autocast_dtype(device)) : -1;
  at::autocast::set_autocast_enabled(device, kind >= 0);
  // What was cast is kept for further uses until autocasting ends.
  if (kind < 0) at::autocast::clear_cache();
  if (kind >= 0) at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(kind));
  return former;
}

char* st_build_config() { return strdup(at::show_config().c_str()); }

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

st_generator st_generator_new(uint64_t seed) {
  name_cuda();
  return new at::Generator(at::detail::createCPUGenerator(seed));
}

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

char* st_unscale(const st_tensor* grads, size_t n, st_tensor found, st_tensor inverse_scale) {
  return caught([&] {
    at::NoGradGuard no_grad;
    at::_amp_foreach_non_finite_check_and_unscale_(list_of(grads, n), tensor_of(found), tensor_of(inverse_scale));
  });
}

char* st_fused_sgd(const st_tensor* params, const st_tensor* grads, const st_tensor* momenta, size_t n, double lr, st_tensor lr_tensor,
                   double momentum, double weight_decay, int nesterov, int first_step) {
  return caught([&] {
    at::NoGradGuard no_grad;
    auto momentum_list = momentum != 0.0 ? list_of(momenta, n) : std::vector<at::Tensor>();
    auto step = [&](const auto& rate) {
      at::_fused_sgd_(list_of(params, n), list_of(grads, n), momentum_list, weight_decay, momentum, rate, /*dampening=*/0.0, nesterov != 0,
                      /*maximize=*/false, first_step != 0);
    };
    lr_tensor != nullptr ? step(tensor_of(lr_tensor)) : step(lr);
  });
}

char* st_fused_adam(const st_tensor* params, const st_tensor* grads, const st_tensor* exp_avgs, const st_tensor* exp_avg_sqs, const st_tensor* steps,
                    size_t n, double lr, st_tensor lr_tensor, double beta1, double beta2, double weight_decay, double eps, int decoupled) {
  return caught([&] {
    at::NoGradGuard no_grad;
    auto step = [&](const auto& rate) {
      const auto p = list_of(params, n), g = list_of(grads, n), m = list_of(exp_avgs, n), v = list_of(exp_avg_sqs, n), t = list_of(steps, n);
      decoupled ? at::_fused_adamw_(p, g, m, v, {}, t, rate, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false)
                : at::_fused_adam_(p, g, m, v, {}, t, rate, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
    };
    lr_tensor != nullptr ? step(tensor_of(lr_tensor)) : step(lr);
  });
}

int st_has_onednn() {
  return at::globalContext().userEnabledMkldnn() && at::globalContext().hasMKLDNN() &&
         c10::Dispatcher::singleton().findSchema({"mkldnn::_convolution_pointwise", ""}).has_value();
}

int st_has_bf16() {
  try {
    torch::jit::Stack stack;
    c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_is_mkldnn_bf16_supported", "").callBoxed(&stack);
    return stack.at(0).toBool();
  } catch (const std::exception&) {
    return 0;
  }
}

char* st_pack_conv(st_tensor weight, const int64_t* geometry, int64_t groups, const int64_t* input_size, st_tensor* out) {
  return caught([&] {
    std::vector<int64_t> size(input_size, input_size + 4);
    *out = new at::Tensor(call_operator(
        "mkldnn::_reorder_convolution_weight", "",
        {tensor_of(weight), pair_of(geometry, 0), pair_of(geometry, 1), pair_of(geometry, 2), groups, std::move(size)}));
  });
}

char* st_conv(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, int64_t groups, const char* post, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(conv(tensor_of(input), tensor_of(weight), optional_tensor(bias), geometry, groups, post)); });
}

char* st_conv_add(st_tensor input, st_tensor weight, st_tensor bias, const int64_t* geometry, int64_t groups, st_tensor other, int relu,
                  int in_place, st_tensor* out) {
  return caught([&] {
    const at::Tensor& added = tensor_of(other);
    if (added.dim() == 4 && added.size(2) == 1 && added.size(3) == 1) {
      // libtorch 2.11 cannot add maps of one pixel within its convolution ("could not create a memory").
      at::Tensor sum = conv(tensor_of(input), tensor_of(weight), optional_tensor(bias), geometry, groups, "none");
      at::AutoDispatchBelowAutograd guard;
      sum.add_(added);
      *out = new at::Tensor(relu ? sum.relu_() : sum);
      return;
    }
    c10::IValue unary = relu ? c10::IValue(std::string("relu")) : c10::IValue();
    torch::jit::Stack stack;
    if (in_place) stack.emplace_back(tensor_of(other));
    stack.emplace_back(tensor_of(input));
    if (!in_place) stack.emplace_back(tensor_of(other));
    for (c10::IValue value : {c10::IValue(tensor_of(weight)), optional_tensor(bias), c10::IValue(pair_of(geometry, 0)),
                              c10::IValue(pair_of(geometry, 1)), c10::IValue(pair_of(geometry, 2)), c10::IValue(groups),
                              c10::IValue(std::string("add")), c10::IValue(), unary, c10::IValue(no_scalars()), c10::IValue()})
      stack.push_back(std::move(value));
    *out = new at::Tensor(call_operator(in_place ? "mkldnn::_convolution_pointwise_" : "mkldnn::_convolution_pointwise", "binary", std::move(stack)));
  });
}

char* st_pack_linear(st_tensor weight, int64_t batch, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(call_operator("mkldnn::_reorder_linear_weight", "", {tensor_of(weight), batch})); });
}

char* st_linear(st_tensor input, st_tensor weight, st_tensor bias, const char* post, st_tensor* out) {
  return caught([&] {
    *out = new at::Tensor(call_operator("mkldnn::_linear_pointwise", "",
                                        {tensor_of(input), tensor_of(weight), optional_tensor(bias), std::string(post), no_scalars(),
                                         std::string()}));
  });
}
