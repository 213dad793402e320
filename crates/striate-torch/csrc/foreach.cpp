// Operators over lists of tensors: a GPU computes a list in one kernel or a few.
#include "common.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_clamp_max.h>
#include <ATen/ops/_foreach_clamp_min.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sign.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

std::vector<at::Tensor> cast_all(at::TensorList tensors, at::ScalarType type) {
  std::vector<at::Tensor> cast;
  cast.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) cast.push_back(at::empty_like(tensor, tensor.options().dtype(type)));
  at::_foreach_copy_(cast, tensors);
  return cast;
}

// Another type for a list of tensors of one type, with gradients of theirs.
class CastAll : public torch::autograd::Function<CastAll> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, at::TensorList tensors, at::ScalarType type) {
    context->saved_data["type"] = static_cast<int64_t>(tensors[0].scalar_type());
    context->set_materialize_grads(false);
    return cast_all(tensors, type);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    std::vector<at::Tensor> given;
    for (const at::Tensor& gradient : gradients)
      if (gradient.defined()) given.push_back(gradient);
    auto next = given.begin();
    if (!given.empty()) {
      given = cast_all(given, static_cast<at::ScalarType>(context->saved_data["type"].toInt()));
      next = given.begin();
    }
    torch::autograd::variable_list result(gradients.size() + 1);
    for (size_t i = 0; i < gradients.size(); ++i)
      if (gradients[i].defined()) result[i] = *next++;
    return result;
  }
};

}  // namespace

char* st_cast_all(const st_tensor* tensors, size_t n, int kind, st_tensor* out) {
  return caught([&] {
    const auto list = list_of(tensors, n);
    const auto cast = CastAll::apply(at::TensorList(list), static_cast<at::ScalarType>(kind));
    for (size_t i = 0; i < n; ++i) out[i] = new at::Tensor(cast[i]);
  });
}

char* st_foreach(st_foreach_op op, const st_tensor* tensors, const st_tensor* a, const st_tensor* b, size_t n, double value) {
  return caught([&] {
    at::NoGradGuard no_grad;
    const auto x = list_of(tensors, n);
    const auto list = [n](const st_tensor* of) { return list_of(of, n); };
    switch (op) {
      case ST_ADD: return at::_foreach_add_(x, list(a), value);
      case ST_ADD_VALUE: return at::_foreach_add_(x, value);
      case ST_MUL: return at::_foreach_mul_(x, list(a));
      case ST_MUL_VALUE: return at::_foreach_mul_(x, value);
      case ST_MUL_TENSOR: return at::_foreach_mul_(x, tensor_of(*a));
      case ST_DIV: return at::_foreach_div_(x, list(a));
      case ST_LERP: return at::_foreach_lerp_(x, list(a), value);
      case ST_ADDCMUL: return at::_foreach_addcmul_(x, list(a), list(b), value);
      case ST_ADDCDIV: return at::_foreach_addcdiv_(x, list(a), list(b), value);
      case ST_SQRT: return at::_foreach_sqrt_(x);
      case ST_SIGN: return at::_foreach_sign_(x);
      case ST_CLAMP_MIN: return at::_foreach_clamp_min_(x, value);
      case ST_CLAMP_MAX: return at::_foreach_clamp_max_(x, value);
      case ST_COPY: return at::_foreach_copy_(x, list(a));
    }
  });
}

char* st_foreach_norm(const st_tensor* tensors, size_t n, st_tensor* out) {
  return caught([&] {
    at::NoGradGuard no_grad;
    const auto norms = at::_foreach_norm(list_of(tensors, n), 2);
    for (size_t i = 0; i < n; ++i) out[i] = new at::Tensor(norms[i]);
  });
}
