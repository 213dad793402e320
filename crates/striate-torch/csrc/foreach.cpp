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
