// Linear layers over a batch that read an ordinary weight once, and need no other of its layouts. Compiled with optimisation in every profile.
#include "lanes.h"

#include <ATen/ops/empty.h>

namespace {

// Rows of the weight that are multiplied side by side: enough sums for the processor to be busy, and few enough to be registers.
constexpr int64_t kRows = 8;
// Products that one sum takes; longer rows have several, which round less.
constexpr int64_t kDepth = 1024;

// Half as many examples: for batches that are no larger, and for processors whose registers would not hold the sums of more.
typedef float HalfLanes __attribute__((vector_size(kLanes / 2 * sizeof(float)), aligned(sizeof(float)), may_alias));

// `width` examples of [batch, in] as [in, width]; those that are missing are zero.
void panel_of(const float* x, int64_t examples, int64_t in, int64_t width, float* panel) {
  for (int64_t i = 0; i < in; ++i)
    for (int64_t n = 0; n < width; ++n) panel[i * width + n] = n < examples ? x[n * in + i] : 0;
}

struct Layer {
  const float *weight, *bias;
  int64_t batch, in, out;
  bool relu;
};

// Outputs first..last of all examples, whose panels follow one another.
template <typename Examples>
ALWAYS_INLINE void rows(const Layer& layer, const float* panels, int64_t first, int64_t last, float* y) {
  constexpr int64_t width = sizeof(Examples) / sizeof(float);
  const int64_t in = layer.in;
  for (int64_t row = first; row < last; row += kRows) {
    const float* weight[kRows];
    // Past the end, the last row again.
    for (int64_t r = 0; r < kRows; ++r) weight[r] = layer.weight + std::min(row + r, last - 1) * in;
    for (int64_t from = 0; from < layer.batch; from += width) {
      const float* panel = panels + from * in;
      Examples sums[kRows] = {};
      for (int64_t start = 0; start < in; start += kDepth) {
        Examples some[kRows] = {};
        for (int64_t i = start; i < std::min(in, start + kDepth); ++i) {
          const Examples value = *reinterpret_cast<const Examples*>(panel + i * width);
#pragma GCC unroll 8
          for (int64_t r = 0; r < kRows; ++r) some[r] += value * weight[r][i];
        }
        for (int64_t r = 0; r < kRows; ++r) sums[r] += some[r];
      }
      for (int64_t r = 0; r < std::min(kRows, last - row); ++r) {
        const float shift = layer.bias != nullptr ? layer.bias[row + r] : 0;
        for (int64_t n = 0; n < std::min(width, layer.batch - from); ++n) {
          const float value = sums[r][n] + shift;
          y[(from + n) * layer.out + row + r] = layer.relu && value < 0 ? 0 : value;
        }
      }
    }
  }
}

FOR_EACH_PROCESSOR void rows_of(const Layer& layer, bool few, const float* panels, int64_t first, int64_t last, float* y) {
  if (few) rows<HalfLanes>(layer, panels, first, last, y);
  else rows<Lanes>(layer, panels, first, last, y);
}

}  // namespace

char* st_linear_batch(st_tensor input, st_tensor weight, st_tensor bias, int relu, st_tensor* out) {
  return caught([&] {
    const at::Tensor x = tensor_of(input).contiguous(), &w = tensor_of(weight);
    const bool fits = x.dim() == 2 && w.dim() == 2 && x.size(1) == w.size(1) && w.is_contiguous() && x.is_cpu() && w.is_cpu() &&
        x.scalar_type() == at::kFloat && w.scalar_type() == at::kFloat;
    TORCH_CHECK(fits, "expected float32 [N, in] and a contiguous [out, in] on the CPU, got ", x.sizes(), " and ", w.sizes());
    const float* shifts = nullptr;
    if (bias != nullptr) {
      const at::Tensor& b = tensor_of(bias);
      TORCH_CHECK(b.is_contiguous() && b.numel() == w.size(0) && b.scalar_type() == at::kFloat && b.is_cpu(), "the bias does not fit");
      shifts = b.const_data_ptr<float>();
    }
    const Layer layer{w.const_data_ptr<float>(), shifts, x.size(0), x.size(1), w.size(0), relu != 0};
    const bool few = layer.batch <= kLanes / 2 || !st_has_wide_vectors();
    const int64_t width = few ? kLanes / 2 : kLanes, panels = (layer.batch + width - 1) / width;
    at::Tensor packed = at::empty({panels, layer.in, width}, x.options()), y = at::empty({layer.batch, layer.out}, x.options());
    const float* from = x.const_data_ptr<float>();
    float *panel = packed.data_ptr<float>(), *to = y.data_ptr<float>();
    for (int64_t p = 0; p < panels; ++p)
      panel_of(from + p * width * layer.in, std::min(width, layer.batch - p * width), layer.in, width, panel + p * width * layer.in);
    // Few rows a thread would read the panels more often than the weight.
    parallel(layer.out, 4 * kRows, [&](int64_t first, int64_t last) { rows_of(layer, few, panel, first, last, to); });
    *out = new at::Tensor(y);
  });
}
