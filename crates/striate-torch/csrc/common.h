// What the shim's files share.
#pragma once
#include "shim.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

// A program finds CUDA by what libtorch_cuda registers when it is loaded, and a linker drops a library that nothing names. So what all programs that compute
// reach names one of its functions.
#ifdef STRIATE_CUDA
namespace at::cuda {
int warp_size();
}
inline void name_cuda() { asm volatile("" : : "r"(&at::cuda::warp_size)); }
#else
inline void name_cuda() {}
#endif

inline at::Tensor& tensor_of(st_tensor tensor) { return *static_cast<at::Tensor*>(tensor); }

inline std::vector<at::Tensor> list_of(const st_tensor* tensors, size_t n) {
  std::vector<at::Tensor> list;
  list.reserve(n);
  for (size_t i = 0; i < n; ++i) list.push_back(tensor_of(tensors[i]));
  return list;
}

// libtorch's errors are told apart here, since a handler's types stay in a program that calls nothing which could throw them.
inline const char* message_of(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
}

inline bool is_lack_of_memory(const std::exception& error) { return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr; }

// Runs `body`; an exception becomes a message without libtorch's backtrace.
template <typename Body>
inline char* caught(Body body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(message_of(error));
  }
}

// Calls a registered operator by its name and gives its one result. No gradients: these have none.
inline at::Tensor call_operator(const char* name, const char* overload, torch::jit::Stack stack) {
  at::AutoDispatchBelowAutograd guard;
  c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).callBoxed(&stack);
  return stack.at(0).toTensor();
}

inline c10::IValue optional_tensor(st_tensor tensor) { return tensor == nullptr ? c10::IValue() : c10::IValue(tensor_of(tensor)); }

inline std::vector<int64_t> pair_of(const int64_t* geometry, int which) { return {geometry[2 * which], geometry[2 * which + 1]}; }

inline c10::List<std::optional<at::Scalar>> no_scalars() { return c10::List<std::optional<at::Scalar>>(); }

inline at::Tensor conv(const at::Tensor& input, const at::Tensor& weight, c10::IValue bias, const int64_t* geometry, int64_t groups,
                       const char* post) {
  return call_operator("mkldnn::_convolution_pointwise", "",
                       {input, weight, std::move(bias), pair_of(geometry, 0), pair_of(geometry, 1), pair_of(geometry, 2), groups,
                        std::string(post), no_scalars(), c10::IValue()});
}
