// A matrix product of pixels and weights, together with what follows it. Of float32, or of bfloat16 where the processor multiplies pairs of it; sums are
// float32.
#include "lanes.h"

namespace LEVEL {

namespace {

// Blocks that a thread takes through all weights, so that their pixels stay in its cache.
constexpr int64_t kChunk = 10;
// Values of a pixel that such blocks take at a time where each weight is read once, so that all multiply it while it is in the cache.
constexpr int64_t kDepth = 512;

template <typename T>
int64_t blocks_of(const Product<T>& product) {
  return (product.count + kRows - 1) / kRows;
}

ALWAYS_INLINE void put(float* to, Lanes value) { store(to, value); }
#ifdef PAIRS
// The processor's own rounding, to the nearest as that of `store`.
ALWAYS_INLINE void put(uint16_t* to, Lanes value) {
  __m256i halves;
  asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"((__m512)value));
  memcpy(to, &halves, sizeof halves);
}
#endif

// Adds what follows to the sums of some pixels, which the bias is in, and writes them.
template <int64_t rows, int64_t vectors, typename T>
ALWAYS_INLINE void finish(Lanes (&sums)[rows][vectors], const Product<T>& product, int64_t first, int64_t column) {
  const int64_t channels = product.out_channels, at = first * channels + column, count = channels - column;
  const T* other = product.other == nullptr ? nullptr : product.other + at;
  T* to = product.output + at;
  if (count < vectors * kLanes) {
    // Not all of the last vector.
    for (int64_t r = 0; r < rows; ++r) {
      T values[vectors * kLanes] = {};
      if (other != nullptr) memcpy(values, other + r * channels, count * sizeof(T));
      for (int64_t v = 0; v < vectors; ++v) {
        Lanes value = sums[r][v] + load(values + v * kLanes);
        if (product.relu) value = value < 0.0f ? Lanes{} : value;
        put(values + v * kLanes, value);
      }
      memcpy(to + r * channels, values, count * sizeof(T));
    }
    return;
  }
  if (other != nullptr)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t v = 0; v < vectors; ++v) sums[r][v] += load(other + r * channels + v * kLanes);
  if (product.relu)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t v = 0; v < vectors; ++v) sums[r][v] = sums[r][v] < 0.0f ? Lanes{} : sums[r][v];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors; ++v) put(to + r * channels + v * kLanes, sums[r][v]);
}

// Products with the values begin..end of each pixel. What was summed up before is in `partial`, or is the bias; so is what is not yet all.
struct Part {
  int64_t begin, end;
  float* partial;
};

// At the end of a run, the pixels go on where the next one begins.
#define NEXT_RUN                            \
  if (k == end_of_run) {                    \
    end_of_run += product.run;              \
    EACH_ROW from[r] += product.gap;        \
  }

template <int64_t rows, int64_t vectors>
ALWAYS_INLINE void block(const Product<float>& product, int64_t first, int64_t column, const Part& part) {
  const float *panel = product.panels + column * product.depth + part.begin * vectors * kLanes, *from[rows];
  const int64_t runs_before = part.begin / product.run;
  EACH_ROW from[r] = product.input + product.reading.at(first + r) + runs_before * product.gap;
  const int64_t ahead = rows * product.reading.pixel, step = part.begin == 0 ? 0 : kPanel;
  const float* before = part.begin == 0 ? product.bias + column : part.partial;
  Lanes sums[rows][vectors];
  EACH_ROW EACH_VECTOR sums[r][v] = load(before + r * step + v * kLanes);
  int64_t end_of_run = (runs_before + 1) * product.run;
  for (int64_t k = part.begin; k < part.end;) {
    EACH_ROW __builtin_prefetch(from[r] + ahead + k);  // the pixels of the next block
    for (const int64_t end = std::min({k + kLine, end_of_run, part.end}); k < end; ++k, panel += vectors * kLanes) {
      Lanes weights[vectors];
      EACH_VECTOR weights[v] = load(panel + v * kLanes);
      EACH_LINE __builtin_prefetch(panel + v * kLanes + kAhead);
      EACH_ROW EACH_VECTOR sums[r][v] += from[r][k] * weights[v];
    }
    NEXT_RUN
  }
  if (part.end == product.depth) return finish(sums, product, first, column);
  EACH_ROW EACH_VECTOR store(part.partial + r * kPanel + v * kLanes, sums[r][v]);
}

#ifdef PAIRS
template <int64_t rows, int64_t vectors>
PAIRS ALWAYS_INLINE void block(const Product<uint16_t>& product, int64_t first, int64_t column, const Part& part) {
  const uint16_t *panel = product.panels + column * product.depth + part.begin * vectors * kLanes, *from[rows];
  const int64_t runs_before = part.begin / product.run;
  EACH_ROW from[r] = product.input + product.reading.at(first + r) + runs_before * product.gap;
  const int64_t ahead = rows * product.reading.pixel, step = part.begin == 0 ? 0 : kPanel;
  const float* before = part.begin == 0 ? product.bias + column : part.partial;
  __m512 sums[rows][vectors];
  EACH_ROW EACH_VECTOR sums[r][v] = _mm512_loadu_ps(before + r * step + v * kLanes);
  int64_t end_of_run = (runs_before + 1) * product.run;
  for (int64_t k = part.begin; k < part.end;) {
    EACH_ROW __builtin_prefetch(from[r] + ahead + k);
    for (const int64_t end = std::min({k + 2 * kLine, end_of_run, part.end}); k < end; k += 2, panel += 2 * vectors * kLanes) {
      __m512i weights[vectors];
      EACH_VECTOR weights[v] = _mm512_loadu_si512(panel + 2 * v * kLanes);
      EACH_VECTOR __builtin_prefetch(panel + 2 * v * kLanes + 2 * kAhead);
      EACH_ROW {
        int32_t pair;
        memcpy(&pair, from[r] + k, sizeof pair);
        const __m512i pairs = _mm512_set1_epi32(pair);
        // GCC 12 moves sums about when it is given the intrinsic.
        EACH_VECTOR asm("vdpbf16ps %2, %1, %0" : "+v"(sums[r][v]) : "v"(pairs), "v"(weights[v]));
      }
    }
    NEXT_RUN
  }
  Lanes values[rows][vectors];
  EACH_ROW EACH_VECTOR values[r][v] = (Lanes)sums[r][v];
  if (part.end == product.depth) return finish(values, product, first, column);
  EACH_ROW EACH_VECTOR store(part.partial + r * kPanel + v * kLanes, values[r][v]);
}
#endif

// Blocks first..last, of about equal height, in the output channels of a panel, through `depth` values of each pixel at a time.
#define BLOCKS(vectors)                                                                                                          \
  for (int64_t begin = 0; begin < product.depth; begin += depth)                                                                 \
    for (int64_t i = first; i < last; ++i) {                                                                                     \
      const int64_t row = i * product.count / all;                                                                               \
      const Part part{begin, std::min(begin + depth, product.depth), partials + (i - first) * kRows * kPanel};                   \
      switch ((i + 1) * product.count / all - row) {                                                                             \
        case 6: block<6, vectors>(product, row, column, part); break;                                                            \
        case 5: block<5, vectors>(product, row, column, part); break;                                                            \
        case 4: block<4, vectors>(product, row, column, part); break;                                                            \
        case 3: block<3, vectors>(product, row, column, part); break;                                                            \
        case 2: block<2, vectors>(product, row, column, part); break;                                                            \
        default: block<1, vectors>(product, row, column, part);                                                                  \
      }                                                                                                                          \
    }
#define PANEL                                                 \
  const int64_t all = blocks_of(product);                     \
  alignas(64) float partials[kChunk * kRows * kPanel];        \
  FOR_COLUMNS(std::min(kPanel, product.out_channels - column), BLOCKS)

// Macros, since a template that is called by functions of two targets has neither's.
TARGET void panel(const Product<float>& product, int64_t first, int64_t last, int64_t column, int64_t depth) { PANEL }
#ifdef PAIRS
PAIRS void panel(const Product<uint16_t>& product, int64_t first, int64_t last, int64_t column, int64_t depth) { PANEL }
#else
void panel(const Product<uint16_t>&, int64_t, int64_t, int64_t, int64_t) {}  // no weight is packed for it
#endif

template <typename T>
void pack_values(const Matrix<T>& matrix, int64_t begin, int64_t end, int64_t column, int64_t width, T* panel) {
  constexpr int64_t together = sizeof(T) == sizeof(float) ? 1 : 2;
  for (int64_t j = 0; j < width; ++j)
    for (int64_t k = begin; k < end; ++k) panel[(k / together * width + j) * together + k % together] = matrix.at(k, column + j);
}

// As many values, or pairs of such, as a vector has, of as many columns.
template <typename T>
constexpr int64_t kPacked = kLanes * sizeof(float) / sizeof(T);

TARGET void pack_block(const Matrix<float>& matrix, int64_t begin, int64_t column, int64_t width, float* to) {
  const float* from = matrix.values + begin * matrix.step + column * matrix.column_step;
  Lanes rows[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) rows[i] = load(from + i * (matrix.step == 1 ? matrix.column_step : matrix.step));
  if (matrix.step == 1) transpose(rows);
  for (int64_t i = 0; i < kLanes; ++i) store(to + i * width, rows[i]);
}
TARGET void pack_block(const Matrix<uint16_t>& matrix, int64_t begin, int64_t column, int64_t width, uint16_t* to) {
  const uint16_t* from = matrix.values + begin * matrix.step + column * matrix.column_step;
  Lanes rows[kLanes];
  if (matrix.step == 1) {
    for (int64_t i = 0; i < kLanes; ++i) memcpy(&rows[i], from + i * matrix.column_step, sizeof rows[i]);
    transpose(rows);
  } else {
    for (int64_t i = 0; i < kLanes; ++i) rows[i] = reinterpret_cast<Lanes>(paired(from + 2 * i * matrix.step, from + (2 * i + 1) * matrix.step));
  }
  for (int64_t i = 0; i < kLanes; ++i) memcpy(to + 2 * i * width, &rows[i], sizeof rows[i]);
}

}  // namespace

template <typename T>
void multiply(const Product<T>& product) {
  const int64_t panels = (product.out_channels + kPanel - 1) / kPanel, blocks = blocks_of(product);
  // Threads share out what is larger, weights or pixels, so that each reads but a part of it.
  if (product.out_channels > product.count) {
    return parallel(panels * blocks, 1, [&](int64_t first, int64_t last) {
      for (int64_t end; first < last; first = end) {
        const int64_t p = first / blocks;
        end = std::min({last, (p + 1) * blocks, first + kChunk});
        panel(product, first - p * blocks, end - p * blocks, p * kPanel, end - first > 1 ? kDepth : product.depth);
      }
    });
  }
  parallel(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t end; first < last; first = end) {
      end = std::min(last, first + kChunk);
      for (int64_t p = 0; p < panels; ++p) panel(product, first, end, p * kPanel, product.depth);
    }
  });
}
template void multiply(const Product<float>&);
template void multiply(const Product<uint16_t>&);

template <typename T>
void pack(const Matrix<T>& matrix, int64_t padded, T* panels) {
  const int64_t depth = matrix.depth, lines = (depth + kPacked<T> - 1) / kPacked<T>, all = (padded + kPanel - 1) / kPanel;
  parallel(all * lines, 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t column = i / lines * kPanel, width = std::min(kPanel, padded - column), begin = i % lines * kPacked<T>;
      const int64_t end = std::min(begin + kPacked<T>, depth);
      T* panel = panels + column * depth;
      if (end - begin < kPacked<T> || column + width > matrix.columns) {
        pack_values(matrix, begin, end, column, width, panel);
        continue;
      }
      for (int64_t c = 0; c < width; c += kLanes) pack_block(matrix, begin, column + c, width, panel + begin * width + c * kPacked<T> / kLanes);
    }
  });
}
template void pack(const Matrix<float>&, int64_t, float*);
template void pack(const Matrix<uint16_t>&, int64_t, uint16_t*);

}  // namespace LEVEL
