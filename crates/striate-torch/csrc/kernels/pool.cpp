// Max pooling, with the ReLU before it. A backward pass needs one byte of each value, where libtorch keeps its input and an int64.
#include "lanes.h"

namespace LEVEL {

namespace {

// The windows that read each place: the first, and the one after the last.
using Windows = std::vector<std::pair<int64_t, int64_t>>;

Windows windows_of(const Axis& axis) {
  Windows all(axis.in);
  for (int64_t place = 0; place < axis.in; ++place)
    all[place] = {std::max<int64_t>(0, (place + axis.padding - axis.kernel + axis.stride) / axis.stride),
                  std::min(axis.out, (place + axis.padding) / axis.stride + 1)};
  return all;
}

// The first `count` of kLanes values: whole where the memory reaches so far. What lies after them is any number.
template <typename T>
ALWAYS_INLINE Lanes load_some(const T* from, const T* end, int64_t count) {
  if (from + kLanes <= end) return load(from);
  T values[kLanes] = {};
  memcpy(values, from, count * sizeof(T));
  return load(values);
}

template <typename T, typename Values>
ALWAYS_INLINE void store_some(T* to, T* end, int64_t count, Values values) {
  if (to + kLanes <= end) return store(to, values);
  T all[kLanes];
  store(all, values);
  memcpy(to, all, count * sizeof(T));
}

// Calls `body` for each kLanes channels. Of more than those the last kLanes are taken again for the rest; fewer leave lanes that are not theirs, which what
// follows in memory writes over.
template <typename Body>
ALWAYS_INLINE void for_channels(int64_t channels, Body body) {
  for (int64_t c = 0; c + kLanes < channels; c += kLanes) body(c, kLanes);
  body(std::max<int64_t>(0, channels - kLanes), std::min(channels, kLanes));
}

// Output rows first..last of all images; `index`, if there is one, gets the position of each value within its window.
template <bool indexed, typename T>
ALWAYS_INLINE void pool_rows(const T* x, int64_t pixel, const Pool& pool, int64_t first, int64_t last, T* y, uint8_t* index) {
  const Axis &down = pool.down, &across = pool.across;
  const int64_t channels = pool.channels;
  const T* end = x + (pool.images * down.in * across.in - 1) * pixel + channels;
  T* y_end = y + last * across.out * channels;
  uint8_t* index_end = index + last * across.out * channels;
  for (int64_t row = first; row < last; ++row) {
    const int64_t i0 = down.begin(row % down.out), i_first = down.first(row % down.out), i_last = down.last(row % down.out);
    for (int64_t column = 0; column < across.out; ++column) {
      const int64_t j0 = across.begin(column), j_first = across.first(column), j_last = across.last(column);
      const T* corner = x + ((row / down.out * down.in + i0) * across.in + j0) * pixel;
      const int64_t at = (row * across.out + column) * channels;
      for_channels(channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
        // The first value, unless a ReLU's zero is larger.
        Bits where = Bits{} + (pool.relu ? kNone : static_cast<uint32_t>(i_first * across.kernel + j_first));
        Lanes best = pool.relu ? Lanes{} : load_some(corner + (i_first * across.in + j_first) * pixel + c, end, count);
        Lanes nan = {};
        for (int64_t i = i_first; i < i_last; ++i)
          for (int64_t j = j_first; j < j_last; ++j) {
            const Lanes value = load_some(corner + (i * across.in + j) * pixel + c, end, count);
            if constexpr (indexed) {
              const Bits here = Bits{} + static_cast<uint32_t>(i * across.kernel + j);
              where = value > best ? here : where;
            }
            best = value > best ? value : best;
            nan = value == value ? nan : value;
          }
        best = nan == nan ? best : nan;
        store_some(y + at + c, y_end, count, best);
        if constexpr (indexed) store_some(index + at + c, index_end, count, narrow(where));
      });
    }
  }
}

// Input rows first..last of the gradient: for each place the gradients of the windows that took its value, in their order.
template <typename T>
ALWAYS_INLINE void spread_rows(const T* gradient, const uint8_t* index, const Pool& pool, const Windows& rows, const Windows& columns, int64_t first,
                               int64_t last, T* to) {
  const Axis &down = pool.down, &across = pool.across;
  const int64_t channels = pool.channels, size = pool.images * down.out * across.out * channels;
  const T* end = gradient + size;
  T* to_end = to + last * across.in * channels;
  for (int64_t row = first; row < last; ++row) {
    const int64_t i = row % down.in, above = row / down.in * down.out;
    const auto [i_first, i_last] = rows[i];
    for (int64_t j = 0; j < across.in; ++j) {
      const auto [j_first, j_last] = columns[j];
      for_channels(channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
        Lanes sum = {};
        for (int64_t window_i = i_first; window_i < i_last; ++window_i)
          for (int64_t window_j = j_first; window_j < j_last; ++window_j) {
            const int64_t at = ((above + window_i) * across.out + window_j) * channels + c;
            const uint32_t here = (i - down.begin(window_i)) * across.kernel + j - across.begin(window_j);
            // The index has kMultiple bytes more than values.
            const Bits where = widen(*reinterpret_cast<const Bytes*>(index + at));
            const Lanes value = load_some(gradient + at, end, count);
            sum = where == here ? sum + value : sum;
          }
        store_some(to + (row * across.in + j) * channels + c, to_end, count, sum);
      });
    }
  }
}

#define FOR_BOTH(T)                                                                                                                                    \
  TARGET void pool_some(const T* x, int64_t pixel, const Pool& pool, int64_t first, int64_t last, T* y, uint8_t* index) {                  \
    if (index == nullptr) pool_rows<false>(x, pixel, pool, first, last, y, index);                                                                     \
    else pool_rows<true>(x, pixel, pool, first, last, y, index);                                                                                       \
  }                                                                                                                                                    \
  TARGET void spread(const T* gradient, const uint8_t* index, const Pool& pool, const Windows& rows, const Windows& columns,              \
                                 int64_t first, int64_t last, T* to) {                                                                                \
    spread_rows(gradient, index, pool, rows, columns, first, last, to);                                                                               \
  }
FOR_BOTH(float)
FOR_BOTH(uint16_t)

// Bytes, whose ReLU is themselves; without gradients.
TARGET void pool_some(const uint8_t* x, int64_t pixel, const Pool& pool, int64_t first, int64_t last, uint8_t* y, uint8_t*) {
  // Copies: what is written through a pointer to bytes could be the pool itself, for all the compiler knows.
  const Axis down = pool.down, across = pool.across;
  const int64_t channels = pool.channels;
  for (int64_t row = first; row < last; ++row)
    for (int64_t column = 0; column < across.out; ++column) {
      uint8_t* __restrict best = y + (row * across.out + column) * channels;
      memset(best, 0, channels);
      const int64_t i0 = row / down.out * down.in + down.begin(row % down.out), j0 = across.begin(column);
      for (int64_t i = down.first(row % down.out); i < down.last(row % down.out); ++i)
        for (int64_t j = across.first(column); j < across.last(column); ++j) {
          const uint8_t* __restrict value = x + ((i0 + i) * across.in + j0 + j) * pixel;
          for (int64_t c = 0; c < channels; ++c) best[c] = value[c] > best[c] ? value[c] : best[c];
        }
    }
}

int64_t grain(int64_t row) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row)); }

}  // namespace

template <typename T>
void max_pool(const T* x, int64_t pixel, const Pool& pool, T* y, uint8_t* index) {
  parallel(pool.images * pool.down.out, grain(pool.across.out * pool.channels),
           [&](int64_t first, int64_t last) { pool_some(x, pixel, pool, first, last, y, index); });
}
template void max_pool(const float*, int64_t, const Pool&, float*, uint8_t*);
template void max_pool(const uint16_t*, int64_t, const Pool&, uint16_t*, uint8_t*);
template void max_pool(const uint8_t*, int64_t, const Pool&, uint8_t*, uint8_t*);

template <typename T>
void max_pool_gradient(const T* gradient, const uint8_t* index, const Pool& pool, T* to) {
  const Windows rows = windows_of(pool.down), columns = windows_of(pool.across);
  parallel(pool.images * pool.down.in, grain(pool.across.in * pool.channels),
           [&](int64_t first, int64_t last) { spread(gradient, index, pool, rows, columns, first, last, to); });
}
template void max_pool_gradient(const float*, const uint8_t*, const Pool&, float*);
template void max_pool_gradient(const uint16_t*, const uint8_t*, const Pool&, uint16_t*);

}  // namespace LEVEL
