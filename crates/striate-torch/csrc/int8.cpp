// Values as bytes, and oneDNN's convolutions and linear layers of them.
#include "kernels/kernels.h"
#include "pixels.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

namespace {

// As it lies, or, if it is a part of other memory, as a copy.
at::Tensor dense(const at::Tensor& t) { return t.is_non_overlapping_and_dense() ? t : t.contiguous(t.suggest_memory_format()); }

// Step, zero point and type of an output: float32 where there is no scale.
void push_output(torch::jit::Stack& stack, const st_scale* scale) {
  stack.emplace_back(scale != nullptr ? scale->step : 1.0);
  stack.emplace_back(scale != nullptr ? scale->zero_point : 0);
  stack.emplace_back(scale != nullptr ? at::kByte : at::kFloat);
}

c10::IValue zeros_for(st_tensor scales) { return at::zeros(tensor_of(scales).sizes(), at::TensorOptions().dtype(at::kLong)); }

template <typename... Values>
void push(torch::jit::Stack& stack, Values&&... values) {
  (stack.emplace_back(std::forward<Values>(values)), ...);
}

}  // namespace

int st_has_int8() {
  return st_has_onednn() && multiplies_bytes() && c10::Dispatcher::singleton().findSchema({"onednn::qconv2d_pointwise", "binary"}).has_value();
}

char* st_quantize(st_tensor values, st_scale scale, st_tensor* out) {
  return caught([&] {
    const at::Tensor x = dense(tensor_of(values));
    TORCH_CHECK(x.is_cpu() && x.scalar_type() == at::kFloat, "expected float32 on the CPU");
    at::Tensor bytes = at::empty_like(x, x.options().dtype(at::kByte));
    quantize(x.const_data_ptr<float>(), x.numel(), scale, bytes.data_ptr<uint8_t>());
    *out = new at::Tensor(bytes);
  });
}

char* st_dequantize(st_tensor bytes, st_scale scale, st_tensor* out) {
  return caught([&] {
    const at::Tensor x = dense(tensor_of(bytes));
    TORCH_CHECK(x.is_cpu() && x.scalar_type() == at::kByte, "expected uint8 on the CPU");
    at::Tensor values = at::empty_like(x, x.options().dtype(at::kFloat));
    dequantize(x.const_data_ptr<uint8_t>(), x.numel(), scale, values.data_ptr<float>());
    *out = new at::Tensor(values);
  });
}

char* st_count(st_tensor values, double low, double high, int64_t* counts, int64_t bins) {
  return caught([&] {
    const at::Tensor x = dense(tensor_of(values));
    TORCH_CHECK(x.is_cpu() && x.scalar_type() == at::kFloat, "expected float32 on the CPU");
    const float* from = x.const_data_ptr<float>();
    const double parts = static_cast<double>(bins) / (high - low);
    for (int64_t i = 0; i < x.numel(); ++i)
      if (from[i] >= low && from[i] <= high && from[i] != 0) ++counts[std::min(static_cast<int64_t>((from[i] - low) * parts), bins - 1)];
  });
}

char* st_int8_pack_conv(st_tensor weight, st_tensor scales, st_scale input, const int64_t* geometry, int64_t groups, const int64_t* input_size,
                        st_tensor* out) {
  return caught([&] {
    *out = new at::Tensor(call_operator("onednn::qconv_prepack", "",
                                        {tensor_of(weight), tensor_of(scales), input.step, input.zero_point, pair_of(geometry, 1),
                                         pair_of(geometry, 0), pair_of(geometry, 2), groups, std::vector<int64_t>(input_size, input_size + 4)}));
  });
}

char* st_int8_conv(st_tensor input, st_scale scale, st_tensor weight, st_tensor scales, st_tensor bias, const int64_t* geometry, int64_t groups,
                   int relu, const st_scale* output, st_tensor* out) {
  return caught([&] {
    torch::jit::Stack stack;
    push(stack, tensor_of(input), scale.step, scale.zero_point, tensor_of(weight), tensor_of(scales), zeros_for(scales), optional_tensor(bias),
         pair_of(geometry, 1), pair_of(geometry, 0), pair_of(geometry, 2), groups);
    push_output(stack, output);
    push(stack, std::string(relu ? "relu" : "none"), no_scalars(), std::string());
    *out = new at::Tensor(call_operator("onednn::qconv2d_pointwise", "", std::move(stack)));
  });
}

char* st_int8_conv_add(st_tensor input, st_scale scale, st_tensor weight, st_tensor scales, st_tensor bias, const int64_t* geometry, int64_t groups,
                       int relu, st_scale output, st_tensor other, st_scale other_scale, int in_place, st_tensor* out) {
  return caught([&] {
    const at::Tensor& added = tensor_of(other);
    // The operator writes over what it adds, and gives a copy of that.
    const bool over = in_place && added.is_contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor sum = over ? added : added.clone(at::MemoryFormat::ChannelsLast);
    torch::jit::Stack stack;
    push(stack, tensor_of(input), scale.step, scale.zero_point, tensor_of(weight), tensor_of(scales), zeros_for(scales), sum, optional_tensor(bias),
         pair_of(geometry, 1), pair_of(geometry, 0), pair_of(geometry, 2), groups);
    push_output(stack, &output);
    push(stack, other_scale.step, other_scale.zero_point, std::string("sum"), 1.0, std::string(relu ? "relu" : "none"), no_scalars(), std::string());
    call_operator("onednn::qconv2d_pointwise", "binary", std::move(stack));
    *out = new at::Tensor(sum);
  });
}

char* st_int8_pack_linear(st_tensor weight, int64_t batch, st_tensor* out) {
  return caught([&] {
    const at::Tensor& w = tensor_of(weight);
    *out = new at::Tensor(call_operator("onednn::qlinear_prepack", "", {w, std::vector<int64_t>{batch, w.size(1)}}));
  });
}

char* st_int8_linear(st_tensor input, double step, st_tensor weight, st_tensor scales, st_tensor bias, int relu, const st_scale* output,
                     st_tensor* out) {
  return caught([&] {
    torch::jit::Stack stack;
    push(stack, tensor_of(input), step, int64_t{0}, tensor_of(weight), tensor_of(scales), zeros_for(scales), optional_tensor(bias));
    push_output(stack, output);
    push(stack, std::string(relu ? "relu" : "none"), no_scalars(), std::string());
    *out = new at::Tensor(call_operator("onednn::qlinear_pointwise", "", std::move(stack)));
  });
}
