// Training's kernels for NVIDIA GPUs, compiled by NVRTC for the card that is there, once for each type of values: STRIATE_ELEMENT is 0 for float32, 1 for
// bfloat16, 2 for float16. No headers and no shuffles, so that a C++ compiler takes it too: tests run it on the CPU (host.cpp).
//
// Each kernel is bound by memory. A thread reads 16 bytes of a row at a time, several rows ahead, and adds up its channels in registers. Blocks take rows in
// turns, so that all of them move through memory together. Sums over blocks are partial results in memory, which each block of the next kernel adds up
// for its own channels in one order: no atomics, so that equal inputs give equal bits. The next kernel goes through the rows backwards: what was read last is still in the cache.

#define NORM_KERNEL KERNEL __launch_bounds__(STRIATE_THREADS, STRIATE_BLOCKS)
#define POOL_KERNEL KERNEL __launch_bounds__(STRIATE_POOL_THREADS)

typedef unsigned int Word;
typedef unsigned char Byte;

struct alignas(16) Vector {
  Word words[4];
};

// Values of a vector.
#if STRIATE_ELEMENT == 0
enum { kValues = 4 };
#else
enum { kValues = 8 };
#endif

struct alignas(kValues) Bytes {
  Byte bytes[kValues];
};

__device__ __forceinline__ void unpack(const Vector& vector, float* values) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#if STRIATE_ELEMENT == 0
    values[i] = __uint_as_float(vector.words[i]);
#elif STRIATE_ELEMENT == 1
    values[2 * i] = __uint_as_float(vector.words[i] << 16);
    values[2 * i + 1] = __uint_as_float(vector.words[i] & 0xffff0000u);
#else
    values[2 * i] = half_to_float(vector.words[i] & 0xffffu);
    values[2 * i + 1] = half_to_float(vector.words[i] >> 16);
#endif
  }
}

__device__ __forceinline__ Vector pack(const float* values) {
  Vector vector;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#if STRIATE_ELEMENT == 0
    vector.words[i] = __float_as_uint(values[i]);
#elif STRIATE_ELEMENT == 1
    vector.words[i] = two_bfloats(values[2 * i], values[2 * i + 1]);
#else
    vector.words[i] = float_to_half(values[2 * i]) | float_to_half(values[2 * i + 1]) << 16;
#endif
  }
  return vector;
}

__device__ __forceinline__ void load_floats(const float* from, float* to) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) to[i] = from[i];
}

// Where a thread stands: blocks are [tile, part], threads [vector of the tile, row].
struct Place {
  int vector, first, step;
  bool inside;

  __device__ __forceinline__ Place(int vectors)
      : vector(blockIdx.x * blockDim.x + threadIdx.x), first(blockIdx.y * blockDim.y + threadIdx.y), step(gridDim.y * blockDim.y), inside(vector < vectors) {}
};

__device__ __forceinline__ int thread_number() { return threadIdx.y * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int thread_count() { return blockDim.x * blockDim.y; }

// Goes through the rows of this thread, kAhead at a time while there are so many: `body.load(slot, row)` reads, and `body.use(slot, row)` computes. All
// reads come before the first use.
template <int kAhead, typename Body>
__device__ __forceinline__ void for_rows(Body& body, int first, int rows, int step) {
  int row = first;
  for (; row + (kAhead - 1) * step < rows; row += kAhead * step) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) body.load(i, row + i * step);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) body.use(i, row + i * step);
  }
  for (; row < rows; row += step) {
    body.load(0, row);
    body.use(0, row);
  }
}

// Count, mean and sum of squared deviations.
struct Moments {
  float count, mean, squares;

  // Chan's formula: the moments of both.
  __device__ __forceinline__ void add(const Moments& other) {
    const float total = count + other.count;
    if (total == 0.0f) return;
    const float share = other.count / total, delta = other.mean - mean;
    mean += delta * share;
    squares += other.squares + delta * delta * (count * share);
    count = total;
  }
};

// Rows that part `part` of `parts` adds up, with `lanes` rows at a time.
__device__ __forceinline__ int rows_of(int part, int parts, int lanes, int rows) {
  const int whole = rows / lanes, rest = rows % lanes;
  return (whole / parts + (part < whole % parts)) * lanes + (part == whole % parts ? rest : 0);
}

SHARED_FLOATS(shared);

// ---- batch norm, forward ----

struct AddMoments {
  const Vector* x;
  int vectors;
  Vector read[STRIATE_AHEAD];
  float origin[kValues], sum[kValues], square[kValues];

  __device__ __forceinline__ void load(int slot, int row) { read[slot] = x[(size_t)row * vectors]; }
  __device__ __forceinline__ void use(int slot, int) {
    float values[kValues];
    unpack(read[slot], values);
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      const float value = values[k] - origin[k];
      sum[k] += value;
      square[k] += value * value;
    }
  }
};

// The moments of each part. Sums are of differences from a thread's first row, so that they lose nothing to a mean far from zero.
NORM_KERNEL norm_moments(const NormForward p) {
  const Place place(p.vectors);
  AddMoments add = {};
  int count = 0;
  if (place.inside && place.first < p.rows) {
    add.x = static_cast<const Vector*>(p.x) + place.vector;
    add.vectors = p.vectors;
    unpack(add.x[(size_t)place.first * p.vectors], add.origin);
    count = (p.rows - 1 - place.first) / place.step + 1;
    for_rows<STRIATE_AHEAD>(add, place.first, p.rows, place.step);
  }
  Moments own[kValues];
#pragma unroll
  for (int k = 0; k < kValues; ++k) {
    const float offset = count > 0 ? add.sum[k] / count : 0.0f;
    own[k].count = count;
    own[k].mean = add.origin[k] + offset;
    own[k].squares = fmaxf(add.square[k] - add.sum[k] * offset, 0.0f);
  }
  // The rows of the block, half of them at a time.
  const int threads = thread_count(), number = thread_number();
  float *counts = shared, *means = counts + threads, *squares = means + threads * kValues;
  for (int lanes = blockDim.y; lanes > 1;) {
    const int half = (lanes + 1) / 2, y = threadIdx.y;
    if (y >= half && y < lanes) {
      counts[number] = own[0].count;
#pragma unroll
      for (int k = 0; k < kValues; ++k) {
        means[k * threads + number] = own[k].mean;
        squares[k * threads + number] = own[k].squares;
      }
    }
    __syncthreads();
    if (y + half < lanes) {
      const int other = number + half * blockDim.x;
#pragma unroll
      for (int k = 0; k < kValues; ++k) own[k].add(Moments{counts[other], means[k * threads + other], squares[k * threads + other]});
    }
    lanes = half;
  }
  if (threadIdx.y == 0 && place.inside) {
    const int channels = p.vectors * kValues;
    float* to = p.partials + (size_t)blockIdx.y * 2 * channels + place.vector * kValues;
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      to[k] = own[k].mean;
      to[channels + k] = own[k].squares;
    }
  }
}

// Adds up the parts' results for the channels of this block's tile: each channel by `groups` threads, of which the first has the result. `Sum` has
// `of(part, channel)` and `add`.
template <typename Sum, typename Partials>
__device__ __forceinline__ Sum over_parts(const Partials& partials, int parts, int channel, int group, int groups, int width, bool inside) {
  Sum sum = {};
  if (inside && group < groups)
    for (int part = group; part < parts; part += 4 * groups) {
      Sum four[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (part + i * groups < parts) four[i] = partials.of(part + i * groups, channel);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum.add(four[i]);
    }
  Sum* sums = reinterpret_cast<Sum*>(shared);
  for (int left = groups; left > 1;) {
    const int half = (left + 1) / 2;
    if (group >= half && group < left) sums[thread_number()] = sum;
    __syncthreads();
    if (group + half < left) sum.add(sums[thread_number() + half * width]);
    left = half;
  }
  __syncthreads();
  return sum;
}

struct PartialMoments {
  const float* partials;
  int channels, parts, lanes, rows;

  __device__ __forceinline__ Moments of(int part, int channel) const {
    const float* from = partials + (size_t)part * 2 * channels + channel;
    return Moments{(float)rows_of(part, parts, lanes, rows), from[0], from[channels]};
  }
};

// What a thread is in the adding up of parts: `width` channels of the tile, several threads for each.
struct Adder {
  int width, group, groups, channel;
  bool inside;

  __device__ __forceinline__ Adder(int vectors)
      : width(blockDim.x * kValues), group(thread_number() / width), groups(thread_count() / width),
        channel(blockIdx.x * width + thread_number() % width), inside(channel < vectors * kValues) {}
};

// A half type has lost more to a mean far from zero than folding the mean into the shift loses, and folding saves registers.
enum { kFolds = STRIATE_ELEMENT != 0 };

// (x - mean) * scale + shift, the same in both directions, so that the ReLU's sign is the same. Where the mean is folded, it is so in `statistics`.
struct Affine {
  float mean[kValues], scale[kValues], shift[kValues];

  __device__ __forceinline__ void load(const float* means, const float* scales, const float* shifts) {
    if (!kFolds) load_floats(means, mean);
    load_floats(scales, scale);
    load_floats(shifts, shift);
  }
  __device__ __forceinline__ float of(float x, int k) const { return fmaf(kFolds ? x : x - mean[k], scale[k], shift[k]); }
};

template <bool kAdd, bool kRelu>
struct Normalise {
  static constexpr int kAhead = kAdd ? STRIATE_AHEAD / 2 : STRIATE_AHEAD;
  const Vector *x, *other;
  Vector* y;
  Byte* mask;
  int vectors, lanes, last;  // the last row: rows come backwards
  Vector read[kAhead], added[kAhead];
  Affine affine;

  __device__ __forceinline__ void load(int slot, int row) {
    const size_t at = (size_t)(last - row) * vectors;
    read[slot] = x[at];
    if (kAdd) added[slot] = other[at];
  }
  __device__ __forceinline__ void use(int slot, int row) {
    float values[kValues], others[kValues];
    unpack(read[slot], values);
    if (kAdd) unpack(added[slot], others);
    Word bits = 0;
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      float value = affine.of(values[k], k);
      if (kAdd) value += others[k];
      if (kAdd && kRelu && value > 0.0f) bits |= 1u << k;
      values[k] = kRelu && value < 0.0f ? 0.0f : value;
    }
    y[(size_t)(last - row) * vectors] = pack(values);
    if (kAdd && kRelu && mask != nullptr) mask[(size_t)(last - row) * lanes] = bits;
  }
};

template <bool kAdd, bool kRelu>
__device__ __forceinline__ void normalise(const NormForward& p) {
  const int channels = p.vectors * kValues;
  const Adder adder(p.vectors);
  const PartialMoments partials = {p.partials, channels, p.parts, (int)blockDim.y, p.rows};
  const Moments all = over_parts<Moments>(partials, p.parts, adder.channel, adder.group, adder.groups, adder.width, adder.inside);
  float *means = shared, *scales = means + adder.width, *shifts = scales + adder.width;
  if (adder.group == 0 && adder.inside) {
    const int c = adder.channel, at = thread_number();
    const float variance = all.squares / p.rows, inverse = (float)(1.0 / sqrt((double)variance + p.eps));
    means[at] = all.mean;
    scales[at] = inverse * (p.weight != nullptr ? p.weight[c] : 1.0f);
    const float bias = p.bias != nullptr ? p.bias[c] : 0.0f;
    shifts[at] = kFolds ? fmaf(-all.mean, scales[at], bias) : bias;
    if (blockIdx.y == 0) {
      p.statistics[c] = all.mean;
      p.statistics[channels + c] = inverse;
      p.statistics[2 * channels + c] = scales[at];
      p.statistics[3 * channels + c] = shifts[at];
      const float momentum = (float)p.momentum;
      p.running_mean[c] = momentum * all.mean + (1 - momentum) * p.running_mean[c];
      p.running_var[c] = momentum * (all.squares / (p.rows - 1)) + (1 - momentum) * p.running_var[c];
    }
  }
  __syncthreads();
  const Place place(p.vectors);
  if (!place.inside) return;
  Normalise<kAdd, kRelu> body;
  body.x = static_cast<const Vector*>(p.x) + place.vector;
  body.other = static_cast<const Vector*>(p.other) + place.vector;
  body.y = static_cast<Vector*>(p.y) + place.vector;
  body.mask = p.mask == nullptr ? nullptr : p.mask + (size_t)blockIdx.x * p.rows * blockDim.x + threadIdx.x;
  body.vectors = p.vectors;
  body.lanes = blockDim.x;
  body.last = p.rows - 1;
  const int c = threadIdx.x * kValues;
  body.affine.load(means + c, scales + c, shifts + c);
  for_rows<body.kAhead>(body, place.first, p.rows, place.step);
}

NORM_KERNEL norm_forward(const NormForward p) { normalise<false, false>(p); }
NORM_KERNEL norm_forward_relu(const NormForward p) { normalise<false, true>(p); }
NORM_KERNEL norm_forward_add(const NormForward p) { normalise<true, false>(p); }
NORM_KERNEL norm_forward_add_relu(const NormForward p) { normalise<true, true>(p); }

// ---- batch norm, backward ----

// How the ReLU's sign is known: there was none; from x, as the forward pass computed it; from the bits that it kept.
enum Sign { kNone, kFromInput, kFromMask };

// A row of the gradient, where the ReLU let it through, and of x - mean.
template <Sign kSign>
struct GradientRows {
  static constexpr int kAhead = STRIATE_AHEAD / 2;
  const Vector *gradient, *x;
  const Byte* mask;
  int vectors, lanes;
  Vector gradients[kAhead], read[kAhead];
  Byte bits[kAhead];
  Affine affine;  // of the ReLU's input

  __device__ __forceinline__ GradientRows(const NormBackward& p, const Place& place) {
    gradient = static_cast<const Vector*>(p.gradient) + place.vector;
    x = static_cast<const Vector*>(p.x) + place.vector;
    mask = kSign == kFromMask ? p.mask + (size_t)blockIdx.x * p.rows * blockDim.x + threadIdx.x : nullptr;
    vectors = p.vectors;
    lanes = blockDim.x;
    const int channels = p.vectors * kValues;
    const float* own = p.statistics + place.vector * kValues;
    affine.load(own, own + 2 * channels, own + 3 * channels);
  }

  __device__ __forceinline__ void read_row(int slot, int row) {
    const size_t at = (size_t)row * vectors;
    gradients[slot] = gradient[at];
    read[slot] = x[at];
    if (kSign == kFromMask) bits[slot] = mask[(size_t)row * lanes];
  }

  __device__ __forceinline__ void unpack_row(int slot, float* values, float* inputs) const {
    unpack(gradients[slot], values);
    unpack(read[slot], inputs);
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      if (kSign == kFromInput && !(affine.of(inputs[k], k) > 0.0f)) values[k] = 0.0f;
      if (kSign == kFromMask && !(bits[slot] >> k & 1)) values[k] = 0.0f;
    }
  }
};

template <Sign kSign>
struct AddGradients : GradientRows<kSign> {
  float mean[kValues], sum[kValues] = {}, product[kValues] = {};

  __device__ __forceinline__ AddGradients(const NormBackward& p, const Place& place) : GradientRows<kSign>(p, place) {
    load_floats(p.statistics + place.vector * kValues, mean);
  }
  __device__ __forceinline__ void load(int slot, int row) { this->read_row(slot, row); }
  __device__ __forceinline__ void use(int slot, int) {
    float values[kValues], inputs[kValues];
    this->unpack_row(slot, values, inputs);
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      sum[k] += values[k];
      product[k] += values[k] * (inputs[k] - mean[k]);
    }
  }
};

template <Sign kSign>
__device__ __forceinline__ void gradient_sums(const NormBackward& p) {
  const Place place(p.vectors);
  float sum[kValues] = {}, product[kValues] = {};
  if (place.inside) {
    AddGradients<kSign> add(p, place);
    for_rows<add.kAhead>(add, place.first, p.rows, place.step);
    load_floats(add.sum, sum);
    load_floats(add.product, product);
  }
  const int threads = thread_count(), number = thread_number();
  float *sums = shared, *products = sums + threads * kValues;
  for (int lanes = blockDim.y; lanes > 1;) {
    const int half = (lanes + 1) / 2, y = threadIdx.y;
    if (y >= half && y < lanes) {
#pragma unroll
      for (int k = 0; k < kValues; ++k) {
        sums[k * threads + number] = sum[k];
        products[k * threads + number] = product[k];
      }
    }
    __syncthreads();
    if (y + half < lanes) {
      const int other = number + half * blockDim.x;
#pragma unroll
      for (int k = 0; k < kValues; ++k) {
        sum[k] += sums[k * threads + other];
        product[k] += products[k * threads + other];
      }
    }
    lanes = half;
  }
  if (threadIdx.y == 0 && place.inside) {
    const int channels = p.vectors * kValues;
    float* to = p.partials + (size_t)blockIdx.y * 2 * channels + place.vector * kValues;
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      to[k] = sum[k];
      to[channels + k] = product[k];
    }
  }
}

NORM_KERNEL norm_sums(const NormBackward p) { gradient_sums<kNone>(p); }
NORM_KERNEL norm_sums_relu(const NormBackward p) { gradient_sums<kFromInput>(p); }
NORM_KERNEL norm_sums_add_relu(const NormBackward p) { gradient_sums<kFromMask>(p); }

struct Sums {
  float sum, product;

  __device__ __forceinline__ void add(const Sums& other) {
    sum += other.sum;
    product += other.product;
  }
};

struct PartialSums {
  const float* partials;
  int channels;

  __device__ __forceinline__ Sums of(int part, int channel) const {
    const float* from = partials + (size_t)part * 2 * channels + channel;
    return Sums{from[0], from[channels]};
  }
};

template <Sign kSign>
struct InputGradient : GradientRows<kSign> {
  Vector *of_x, *of_other;
  int last;
  float slope[kValues], level[kValues];

  __device__ __forceinline__ InputGradient(const NormBackward& p, const Place& place) : GradientRows<kSign>(p, place) {
    of_x = static_cast<Vector*>(p.of_x) + place.vector;
    of_other = p.of_other == nullptr ? nullptr : static_cast<Vector*>(p.of_other) + place.vector;
    last = p.rows - 1;
  }
  __device__ __forceinline__ void load(int slot, int row) { this->read_row(slot, last - row); }
  __device__ __forceinline__ void use(int slot, int row) {
    const size_t at = (size_t)(last - row) * this->vectors;
    float values[kValues], inputs[kValues];
    this->unpack_row(slot, values, inputs);
    if (kSign == kFromMask && of_other != nullptr) of_other[at] = pack(values);
#pragma unroll
    for (int k = 0; k < kValues; ++k) values[k] = fmaf(values[k], this->affine.scale[k], -fmaf(kFolds ? inputs[k] : inputs[k] - this->affine.mean[k], slope[k], level[k]));
    of_x[at] = pack(values);
  }
};

template <Sign kSign>
__device__ __forceinline__ void input_gradient(const NormBackward& p) {
  const int channels = p.vectors * kValues;
  const Adder adder(p.vectors);
  const PartialSums partials = {p.partials, channels};
  const Sums all = over_parts<Sums>(partials, p.parts, adder.channel, adder.group, adder.groups, adder.width, adder.inside);
  float *slopes = shared, *levels = slopes + adder.width;
  if (adder.group == 0 && adder.inside) {
    const int c = adder.channel, at = thread_number();
    const float inverse = p.statistics[channels + c], scale = p.statistics[2 * channels + c], product = all.product * inverse;
    slopes[at] = scale * inverse * product / p.rows;
    levels[at] = scale * all.sum / p.rows - (kFolds ? p.statistics[c] * slopes[at] : 0.0f);
    if (blockIdx.y == 0) {
      p.of_weight[c] = product;
      p.of_bias[c] = all.sum;
    }
  }
  __syncthreads();
  const Place place(p.vectors);
  if (!place.inside) return;
  InputGradient<kSign> body(p, place);
  load_floats(slopes + threadIdx.x * kValues, body.slope);
  load_floats(levels + threadIdx.x * kValues, body.level);
  for_rows<body.kAhead>(body, place.first, p.rows, place.step);
}

NORM_KERNEL norm_backward(const NormBackward p) { input_gradient<kNone>(p); }
NORM_KERNEL norm_backward_relu(const NormBackward p) { input_gradient<kFromInput>(p); }
NORM_KERNEL norm_backward_add_relu(const NormBackward p) { input_gradient<kFromMask>(p); }

// ---- max pooling ----

// A window of kSize x kSize, or of any size where that is 0.
template <int kSize>
__device__ __forceinline__ void pool(const MaxPooling& p) {
  const int rows = kSize > 0 ? kSize : p.kernel[0], columns = kSize > 0 ? kSize : p.kernel[1];
  for (int item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
    const int vector = item % p.vectors, pixel = item / p.vectors, column = pixel % p.out[1], row = pixel / p.out[1] % p.out[0];
    const int image = pixel / p.out[1] / p.out[0], top = row * p.stride[0] - p.padding[0], left = column * p.stride[1] - p.padding[1];
    const Vector* x = static_cast<const Vector*>(p.x) + ((size_t)image * p.in[0] * p.in[1]) * p.vectors + vector;
    // The first value, unless a ReLU's zero is larger.
    const int first_row = max(0, -top), first_column = max(0, -left);
    float best[kValues];
    Byte where[kValues];
    unpack(x[((size_t)(top + first_row) * p.in[1] + left + first_column) * p.vectors], best);
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      where[k] = first_row * columns + first_column;
      // A NaN stays.
      if (p.relu && !(best[k] > 0.0f)) {
        best[k] = best[k] == best[k] ? 0.0f : best[k];
        where[k] = kNothing;
      }
    }
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        if ((unsigned)(top + i) >= (unsigned)p.in[0] || (unsigned)(left + j) >= (unsigned)p.in[1]) continue;
        float values[kValues];
        unpack(x[((size_t)(top + i) * p.in[1] + left + j) * p.vectors], values);
#pragma unroll
        for (int k = 0; k < kValues; ++k)
          if (values[k] > best[k] || (values[k] != values[k] && best[k] == best[k])) {
            best[k] = values[k];
            where[k] = i * columns + j;
          }
      }
    static_cast<Vector*>(p.y)[item] = pack(best);
    if (p.index != nullptr) {
      Bytes bytes;
#pragma unroll
      for (int k = 0; k < kValues; ++k) bytes.bytes[k] = where[k];
      reinterpret_cast<Bytes*>(p.index)[item] = bytes;
    }
  }
}

POOL_KERNEL pool_any(const MaxPooling p) { pool<0>(p); }
POOL_KERNEL pool_2(const MaxPooling p) { pool<2>(p); }
POOL_KERNEL pool_3(const MaxPooling p) { pool<3>(p); }

// Each place adds up the gradients of the windows that took its value, in their order. At most kWindows windows along an axis have it, or any number
// where that is 0.
template <int kWindows>
__device__ __forceinline__ void spread(const MaxPoolingGradient& p) {
  for (int item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
    const int vector = item % p.vectors, pixel = item / p.vectors, column = pixel % p.in[1], row = pixel / p.in[1] % p.in[0];
    const int image = pixel / p.in[1] / p.in[0], down = row + p.padding[0], across = column + p.padding[1];
    const int first_row = max(0, (down - p.kernel[0] + p.stride[0]) / p.stride[0]), last_row = min(p.out[0] - 1, down / p.stride[0]);
    const int first_column = max(0, (across - p.kernel[1] + p.stride[1]) / p.stride[1]), last_column = min(p.out[1] - 1, across / p.stride[1]);
    float sum[kValues] = {};
    const int rows = kWindows > 0 ? kWindows : last_row - first_row + 1, columns = kWindows > 0 ? kWindows : last_column - first_column + 1;
#pragma unroll
    for (int a = 0; a < rows; ++a)
#pragma unroll
      for (int b = 0; b < columns; ++b) {
        const int i = first_row + a, j = first_column + b;
        if (kWindows > 0 && (i > last_row || j > last_column)) continue;
        const size_t at = (((size_t)image * p.out[0] + i) * p.out[1] + j) * p.vectors + vector;
        const Bytes where = reinterpret_cast<const Bytes*>(p.index)[at];
        const int here = (down - i * p.stride[0]) * p.kernel[1] + across - j * p.stride[1];
        float values[kValues];
        unpack(static_cast<const Vector*>(p.gradient)[at], values);
#pragma unroll
        for (int k = 0; k < kValues; ++k) sum[k] += where.bytes[k] == here ? values[k] : 0.0f;
      }
    static_cast<Vector*>(p.of_x)[item] = pack(sum);
  }
}

POOL_KERNEL spread_any(const MaxPoolingGradient p) { spread<0>(p); }
POOL_KERNEL spread_1(const MaxPoolingGradient p) { spread<1>(p); }
POOL_KERNEL spread_2(const MaxPoolingGradient p) { spread<2>(p); }
