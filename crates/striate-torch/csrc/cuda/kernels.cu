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

// Chan's formula, of means and sums of squared deviations of two groups of values.
struct Joining {
  float total, share, both;

  __device__ __forceinline__ Joining(float count, float other) : total(count + other), share(total > 0.0f ? other / total : 0.0f), both(count * share) {}
  __device__ __forceinline__ void add(float& mean, float& squares, float other_mean, float other_squares) const {
    const float delta = other_mean - mean;
    mean += delta * share;
    squares += other_squares + delta * delta * both;
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
  float mean[kValues], square[kValues], own = count;
#pragma unroll
  for (int k = 0; k < kValues; ++k) {
    const float offset = count > 0 ? add.sum[k] / own : 0.0f;
    mean[k] = add.origin[k] + offset;
    square[k] = fmaxf(add.square[k] - add.sum[k] * offset, 0.0f);
  }
  // The rows of the block, half of them at a time.
  const int threads = thread_count(), number = thread_number();
  float *counts = shared, *means = counts + threads, *squares = means + threads * kValues;
  for (int lanes = blockDim.y; lanes > 1;) {
    const int half = (lanes + 1) / 2, y = threadIdx.y;
    if (y >= half && y < lanes) {
      counts[number] = own;
#pragma unroll
      for (int k = 0; k < kValues; ++k) {
        means[k * threads + number] = mean[k];
        squares[k * threads + number] = square[k];
      }
    }
    __syncthreads();
    if (y + half < lanes) {
      const int other = number + half * blockDim.x;
      const Joining joining(own, counts[other]);
#pragma unroll
      for (int k = 0; k < kValues; ++k) joining.add(mean[k], square[k], means[k * threads + other], squares[k * threads + other]);
      own = joining.total;
    }
    lanes = half;
  }
  if (threadIdx.y == 0 && place.inside) {
    const int channels = p.vectors * kValues;
    float* to = p.partials + (size_t)blockIdx.y * 2 * channels + place.vector * kValues;
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      to[k] = mean[k];
      to[channels + k] = square[k];
    }
  }
}

// The partial results of the first pass.
struct Parts {
  const float* results;
  int channels, count, rows;
};

// What a thread is in the adding up of parts: `width` channels of the tile, several threads for each.
struct Adder {
  int width, group, groups, channel;
  bool inside;

  __device__ __forceinline__ Adder(int vectors)
      : width(blockDim.x * kValues), group(thread_number() / width), groups(thread_count() / width),
        channel(blockIdx.x * width + thread_number() % width), inside(channel < vectors * kValues) {}
};

// The moments of some parts.
struct Moments {
  float count, mean, squares;

  __device__ __forceinline__ void add(const Moments& other) {
    const Joining joining(count, other.count);
    joining.add(mean, squares, other.mean, other.squares);
    count = joining.total;
  }
  __device__ __forceinline__ void add(const Parts& parts, int part, float first, float second) {
    add(Moments{(float)rows_of(part, parts.count, blockDim.y, parts.rows), first, second});
  }
};

// Adds up the parts' results for the channels of this block's tile: each channel by several threads, of which the first has the result.
template <typename Sum>
__device__ __forceinline__ Sum over_parts(const Parts& parts, const Adder& adder) {
  Sum sum = {};
  const int group = adder.group, groups = adder.groups;
  if (adder.inside && group < groups) {
    const float* from = parts.results + adder.channel;
    const size_t part_size = 2 * (size_t)parts.channels;
    for (int part = group; part < parts.count; part += STRIATE_BATCH * groups) {
      float first[STRIATE_BATCH], second[STRIATE_BATCH];
#pragma unroll
      for (int i = 0; i < STRIATE_BATCH; ++i)
        if (part + i * groups < parts.count) {
          first[i] = from[(part + i * groups) * part_size];
          second[i] = from[(part + i * groups) * part_size + parts.channels];
        }
#pragma unroll
      for (int i = 0; i < STRIATE_BATCH; ++i)
        if (part + i * groups < parts.count) sum.add(parts, part + i * groups, first[i], second[i]);
    }
  }
  Sum* sums = reinterpret_cast<Sum*>(shared);
  for (int left = groups; left > 1;) {
    const int half = (left + 1) / 2;
    if (group >= half && group < left) sums[thread_number()] = sum;
    __syncthreads();
    if (group + half < left) sum.add(sums[thread_number() + half * adder.width]);
    left = half;
  }
  __syncthreads();
  return sum;
}

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
  const Moments all = over_parts<Moments>(Parts{p.partials, channels, p.parts, p.rows}, adder);
  float *means = shared, *scales = means + adder.width, *shifts = scales + adder.width;
  if (p.counter != nullptr && blockIdx.x == 0 && blockIdx.y == 0 && thread_number() == 0) ++*p.counter;
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

// How the ReLU's sign is known: there was none; from x, as the forward pass computed it; from the bits that it kept. With the latter, the first pass writes what
// the ReLU let through, which is the gradient of what was added, and the second reads that.
enum Sign { kNone, kFromInput, kFromMask };

// A row of the gradient, where the ReLU let it through, and of x - mean.
template <Sign kSign>
struct GradientRows {
  static constexpr int kAhead = STRIATE_AHEAD / 2;
  const Vector *gradient, *x;
  int vectors;
  Vector gradients[kAhead], read[kAhead];
  Affine affine;  // of the ReLU's input

  __device__ __forceinline__ GradientRows(const NormBackward& p, const Place& place) {
    gradient = static_cast<const Vector*>(p.gradient) + place.vector;
    x = static_cast<const Vector*>(p.x) + place.vector;
    vectors = p.vectors;
    const int channels = p.vectors * kValues;
    const float* own = p.statistics + place.vector * kValues;
    affine.load(own, own + 2 * channels, own + 3 * channels);
  }

  __device__ __forceinline__ void read_row(int slot, int row) {
    const size_t at = (size_t)row * vectors;
    gradients[slot] = gradient[at];
    read[slot] = x[at];
  }

  __device__ __forceinline__ void unpack_row(int slot, float* values, float* inputs) const {
    unpack(gradients[slot], values);
    unpack(read[slot], inputs);
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      if (kSign == kFromInput && !(affine.of(inputs[k], k) > 0.0f)) values[k] = 0.0f;
    }
  }
};

template <Sign kSign, bool kSecond>
struct AddGradients : GradientRows<kSign> {
  using GradientRows<kSign>::kAhead;
  const Vector* second;
  const Byte* mask;
  Vector* passed;
  int lanes;
  Vector seconds[kAhead];
  Byte bits[kAhead];
  float mean[kValues], sum[kValues] = {}, product[kValues] = {};

  __device__ __forceinline__ AddGradients(const NormBackward& p, const Place& place) : GradientRows<kSign>(p, place) {
    load_floats(p.statistics + place.vector * kValues, mean);
    if (kSecond) second = static_cast<const Vector*>(p.second) + place.vector;
    if (kSign == kFromMask) {
      mask = p.mask + (size_t)blockIdx.x * p.rows * blockDim.x + threadIdx.x;
      lanes = blockDim.x;
      passed = static_cast<Vector*>(p.of_other) + place.vector;
    }
  }
  __device__ __forceinline__ void load(int slot, int row) {
    this->read_row(slot, row);
    if (kSecond) seconds[slot] = second[(size_t)row * this->vectors];
    if (kSign == kFromMask) bits[slot] = mask[(size_t)row * lanes];
  }
  __device__ __forceinline__ void use(int slot, int row) {
    float values[kValues], inputs[kValues], others[kValues];
    this->unpack_row(slot, values, inputs);
    if (kSecond) unpack(seconds[slot], others);
    if (kSign == kFromMask) {
#pragma unroll
      for (int k = 0; k < kValues; ++k) {
        if (kSecond) values[k] += others[k];
        if (!(bits[slot] >> k & 1)) values[k] = 0.0f;
      }
      const Vector rounded = pack(values);
      passed[(size_t)row * this->vectors] = rounded;
      // The second pass sees rounded values.
      unpack(rounded, values);
    }
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      sum[k] += values[k];
      product[k] += values[k] * (inputs[k] - mean[k]);
    }
  }
};

// Adds up the rows of the block, half of them at a time: the first has the sums.
template <int kSums>
__device__ __forceinline__ void over_lanes(float (&sums)[kSums]) {
  const int threads = thread_count(), number = thread_number(), y = threadIdx.y;
  for (int lanes = blockDim.y; lanes > 1;) {
    const int half = (lanes + 1) / 2;
    if (y >= half && y < lanes) {
#pragma unroll
      for (int k = 0; k < kSums; ++k) shared[k * threads + number] = sums[k];
    }
    __syncthreads();
    if (y + half < lanes) {
      const int other = number + half * blockDim.x;
#pragma unroll
      for (int k = 0; k < kSums; ++k) sums[k] += shared[k * threads + other];
    }
    lanes = half;
  }
}

template <Sign kSign, bool kSecond = false>
__device__ __forceinline__ void gradient_sums(const NormBackward& p) {
  const Place place(p.vectors);
  float sums[2 * kValues] = {};
  if (place.inside) {
    AddGradients<kSign, kSecond> add(p, place);
    for_rows<add.kAhead>(add, place.first, p.rows, place.step);
    load_floats(add.sum, sums);
    load_floats(add.product, sums + kValues);
  }
  over_lanes(sums);
  if (threadIdx.y == 0 && place.inside) {
    const int channels = p.vectors * kValues;
    float* to = p.partials + (size_t)blockIdx.y * 2 * channels + place.vector * kValues;
    load_floats(sums, to);
    load_floats(sums + kValues, to + channels);
  }
}

NORM_KERNEL norm_sums(const NormBackward p) { gradient_sums<kNone>(p); }
NORM_KERNEL norm_sums_relu(const NormBackward p) { gradient_sums<kFromInput>(p); }
NORM_KERNEL norm_sums_add_relu(const NormBackward p) { gradient_sums<kFromMask>(p); }
NORM_KERNEL norm_sums_two_add_relu(const NormBackward p) { gradient_sums<kFromMask, true>(p); }

struct Sums {
  float sum, product;

  __device__ __forceinline__ void add(const Sums& other) {
    sum += other.sum;
    product += other.product;
  }
  __device__ __forceinline__ void add(const Parts&, int, float first, float second) { add(Sums{first, second}); }
};

template <Sign kSign>
struct InputGradient : GradientRows<kSign> {
  Vector* of_x;
  int last;
  float slope[kValues], level[kValues];

  __device__ __forceinline__ InputGradient(const NormBackward& p, const Place& place) : GradientRows<kSign>(p, place) {
    of_x = static_cast<Vector*>(p.of_x) + place.vector;
    last = p.rows - 1;
  }
  __device__ __forceinline__ void load(int slot, int row) { this->read_row(slot, last - row); }
  __device__ __forceinline__ void use(int slot, int row) {
    const size_t at = (size_t)(last - row) * this->vectors;
    float values[kValues], inputs[kValues];
    this->unpack_row(slot, values, inputs);
#pragma unroll
    for (int k = 0; k < kValues; ++k) values[k] = fmaf(values[k], this->affine.scale[k], -fmaf(kFolds ? inputs[k] : inputs[k] - this->affine.mean[k], slope[k], level[k]));
    of_x[at] = pack(values);
  }
};

template <Sign kSign>
__device__ __forceinline__ void input_gradient(const NormBackward& p) {
  const int channels = p.vectors * kValues;
  const Adder adder(p.vectors);
  const Sums all = over_parts<Sums>(Parts{p.partials, channels, p.parts, p.rows}, adder);
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

// ---- a ReLU after a convolution, backward ----

// Passes the gradient on where the ReLU let the value through. As libtorch's, it stops at what is no more than 0, so that a NaN is no such.
struct PassGradients {
  static constexpr int kAhead = STRIATE_AHEAD / 2;
  const Vector *gradient, *y;
  Vector* passed;
  int vectors;
  Vector gradients[kAhead], read[kAhead];
  float sum[kValues] = {};

  __device__ __forceinline__ PassGradients(const ReluBackward& p, const Place& place)
      : gradient(static_cast<const Vector*>(p.gradient) + place.vector), y(static_cast<const Vector*>(p.y) + place.vector),
        passed(static_cast<Vector*>(p.of_x) + place.vector), vectors(p.vectors) {}
  __device__ __forceinline__ void load(int slot, int row) {
    const size_t at = (size_t)row * vectors;
    gradients[slot] = gradient[at];
    read[slot] = y[at];
  }
  __device__ __forceinline__ void use(int slot, int row) {
    float values[kValues], outputs[kValues];
    unpack(gradients[slot], values);
    unpack(read[slot], outputs);
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      if (outputs[k] <= 0.0f) values[k] = 0.0f;
      sum[k] += values[k];
    }
    passed[(size_t)row * vectors] = pack(values);
  }
};

NORM_KERNEL relu_sums(const ReluBackward p) {
  const Place place(p.vectors);
  float sums[kValues] = {};
  if (place.inside) {
    PassGradients pass(p, place);
    for_rows<pass.kAhead>(pass, place.first, p.rows, place.step);
    load_floats(pass.sum, sums);
  }
  over_lanes(sums);
  if (threadIdx.y == 0 && place.inside) load_floats(sums, p.partials + ((size_t)blockIdx.y * p.vectors + place.vector) * kValues);
}

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
        // A window that is not there is another again, whose place it is not: so all reads come before the first use.
        const int i = first_row + a, j = first_column + b;
        const bool there = first_row <= last_row && first_column <= last_column;
        if (!there) continue;
        const size_t at = (((size_t)image * p.out[0] + min(i, last_row)) * p.out[1] + min(j, last_column)) * p.vectors + vector;
        const Bytes where = reinterpret_cast<const Bytes*>(p.index)[at];
        const int here = i <= last_row && j <= last_column ? (down - i * p.stride[0]) * p.kernel[1] + across - j * p.stride[1] : -1;
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
