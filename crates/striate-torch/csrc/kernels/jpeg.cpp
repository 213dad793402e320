// The samples and pixels of a JPEG's coefficients, to the bits of libjpeg: its accurate inverse transform (jidctint.c), its "fancy" upsampling (jdsample.c),
// in which a sample is three parts of the nearest and one of the next, and its conversion of colours (jdcolor.c).
#include "lanes.h"

namespace LEVEL {

namespace {

constexpr int64_t kSide = 8, kBlock = kSide * kSide;
// Bits after the point, of constants and of what the first pass leaves.
constexpr int kConst = 13, kPass = 2;

// A row or a column of a block: without signs, since what hostile files have overflows.
typedef uint32_t Eight __attribute__((vector_size(kSide * sizeof(uint32_t))));
typedef int32_t Signed __attribute__((vector_size(kSide * sizeof(int32_t))));
typedef int16_t Coefficients __attribute__((vector_size(kSide * sizeof(int16_t)), aligned(2), may_alias));
typedef uint16_t Narrower __attribute__((vector_size(kSide * sizeof(uint16_t))));
typedef uint8_t Samples __attribute__((vector_size(kSide), aligned(1), may_alias));

template <int kShift>
ALWAYS_INLINE Eight rounded(Eight value) {
  return reinterpret_cast<Eight>(reinterpret_cast<Signed>(value + (1u << (kShift - 1))) >> kShift);
}

// One dimension, of eight rows or columns at once.
template <int kShift>
ALWAYS_INLINE void transform(Eight (&in)[kSide]) {
  const Eight even = (in[2] + in[6]) * 4433u, a2 = even - in[6] * 15137u, a3 = even + in[2] * 6270u;
  const Eight a0 = (in[0] + in[4]) << kConst, a1 = (in[0] - in[4]) << kConst;
  const Eight upper[4] = {a0 + a3, a1 + a2, a1 - a2, a0 - a3};
  const Eight z5 = (in[7] + in[3] + in[5] + in[1]) * 9633u;
  const Eight z1 = (in[7] + in[1]) * -7373u, z2 = (in[5] + in[3]) * -20995u;
  const Eight z3 = (in[7] + in[3]) * -16069u + z5, z4 = (in[5] + in[1]) * -3196u + z5;
  const Eight odd[4] = {in[1] * 12299u + z1 + z4, in[3] * 25172u + z2 + z3, in[5] * 16819u + z2 + z4, in[7] * 2446u + z1 + z3};
  for (int64_t i = 0; i < 4; ++i) {
    in[i] = rounded<kShift>(upper[i] + odd[i]);
    in[kSide - 1 - i] = rounded<kShift>(upper[i] - odd[i]);
  }
}

ALWAYS_INLINE void block(const int16_t* from, int64_t stride, uint8_t* to) {
  Eight rows[kSide];
  for (int64_t y = 0; y < kSide; ++y) {
    const auto row = *reinterpret_cast<const Coefficients*>(from + y * kSide);
    rows[y] = reinterpret_cast<Eight>(__builtin_convertvector(row, Signed));
  }
  transform<kConst - kPass>(rows);
  transpose(rows);
  transform<kConst + kPass + 3>(rows);
  transpose(rows);
  for (int64_t y = 0; y < kSide; ++y) {
    Signed values = reinterpret_cast<Signed>(rows[y] + 128u);
    values = values > 0 ? values : Signed{};
    values = values < 255 ? values : Signed{} + 255;
    *reinterpret_cast<Samples*>(to + y * stride) = __builtin_convertvector(__builtin_convertvector(values, Narrower), Samples);
  }
}

}  // namespace

TARGET void jpeg_blocks(const int16_t* from, const uint8_t* flat, int64_t count, int64_t stride, uint8_t* to) {
  for (int64_t i = 0; i < count; ++i, from += kBlock, to += kSide) {
    if (flat[i] == 0) {
      block(from, stride, to);
      continue;
    }
    const int value = std::clamp(((from[0] + 4) >> 3) + 128, 0, 255);
    for (int64_t y = 0; y < kSide; ++y) memset(to + y * stride, value, kSide);
  }
}

namespace {

// Of output row `y`, the samples of the columns from `first` on, which is even where columns are halved: `count` of them, likewise. `sums` has two more values.
ALWAYS_INLINE void upsample(const st_plane& plane, bool across, bool down, int64_t y, int64_t first, int64_t count, uint16_t* sums, uint8_t* to) {
  const int64_t near = down ? y / 2 : y, far = down ? std::clamp<int64_t>(y % 2 == 0 ? near - 1 : near + 1, 0, plane.height - 1) : near;
  const uint8_t* a = plane.samples + (near - plane.top) * plane.stride - plane.left;
  const uint8_t* b = plane.samples + (far - plane.top) * plane.stride - plane.left;
  if (!across) {
    const int bias = down ? 1 + static_cast<int>(y % 2) : 0, shift = down ? 2 : 0;
    a += first;
    b += first;
    for (int64_t x = 0; x < count; ++x) to[x] = static_cast<uint8_t>(((down ? 3 * a[x] + b[x] : a[x]) + bias) >> shift);
    return;
  }
  // So few are only repeated, in libjpeg.
  if (plane.width <= 2) {
    for (int64_t x = 0; x < count; ++x) to[x] = a[(first + x) / 2];
    return;
  }
  // Samples first / 2 - 1 and so on, those at the borders again beyond them.
  const int64_t half = count / 2, start = first / 2 - 1, last = plane.width - 1;
  const auto sum = [&](int64_t x) { return static_cast<uint16_t>(down ? 3 * a[x] + b[x] : a[x]); };
  sums[0] = sum(std::max<int64_t>(start, 0));
  const int64_t inside = std::min(half + 1, last - start);
  for (int64_t x = 1; x <= inside; ++x) sums[x] = sum(start + x);
  for (int64_t x = inside + 1; x < half + 2; ++x) sums[x] = sum(last);
  const int left = down ? 8 : 1, right = down ? 7 : 2, shift = down ? 4 : 2;
  for (int64_t x = 0; x < half; ++x) {
    to[2 * x] = static_cast<uint8_t>((3 * sums[x + 1] + sums[x] + left) >> shift);
    to[2 * x + 1] = static_cast<uint8_t>((3 * sums[x + 1] + sums[x + 2] + right) >> shift);
  }
}

ALWAYS_INLINE uint8_t byte(int32_t value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

ALWAYS_INLINE void colours(const uint8_t* luma, const uint8_t* blue, const uint8_t* red, int64_t count, uint8_t* to) {
  for (int64_t x = 0; x < count; ++x) {
    const int32_t y = luma[x], b = blue[x] - 128, r = red[x] - 128;
    to[3 * x] = byte(y + ((91881 * r + 32768) >> 16));
    to[3 * x + 1] = byte(y + ((-22554 * b - 46802 * r + 32768) >> 16));
    to[3 * x + 2] = byte(y + ((116130 * b + 32768) >> 16));
  }
}

TARGET void pixels(const st_plane* planes, bool across, bool down, const int64_t* region, uint16_t* sums, uint8_t* chroma, uint8_t* to) {
  const int64_t left = region[0], top = region[1], width = region[2], height = region[3];
  const int64_t first = across ? left & ~int64_t{1} : left, count = across ? (left + width - first + 1) & ~int64_t{1} : width;
  for (int64_t y = top; y < top + height; ++y, to += 3 * width) {
    for (int64_t c = 0; c < 2; ++c) upsample(planes[c + 1], across, down, y, first, count, sums, chroma + c * count);
    const uint8_t* luma = planes[0].samples + (y - planes[0].top) * planes[0].stride + left - planes[0].left;
    const uint8_t* of_region = chroma + left - first;
    colours(luma, of_region, of_region + count, width, to);
  }
}

}  // namespace

int jpeg_pixels(const st_plane* planes, int across, int down, const int64_t* region, uint8_t* to) {
  try {
    const int64_t most = region[2] + 2;
    std::vector<uint16_t> sums(most / 2 + 2);
    std::vector<uint8_t> chroma(2 * most);
    pixels(planes, across != 0, down != 0, region, sums.data(), chroma.data(), to);
    return 1;
  } catch (const std::exception&) {
    return 0;  // no memory
  }
}

}  // namespace LEVEL
