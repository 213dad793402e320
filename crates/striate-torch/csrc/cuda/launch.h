// How the kernels of kernels.cu are launched: which, on how many blocks and threads, one after another. It knows neither CUDA nor libtorch, so that tests
// launch the same on the CPU.
#pragma once
#include "parameters.h"

#include <algorithm>
#include <cstddef>

enum class Kernel {
#define NAME(name) name,
  FOR_KERNELS(NAME)
#undef NAME
};

constexpr const char* kKernelNames[] = {
#define NAME(name) #name,
    FOR_KERNELS(NAME)
#undef NAME
};
constexpr int kKernels = sizeof(kKernelNames) / sizeof(*kKernelNames);

struct Launch {
  Kernel kernel;
  unsigned blocks[2], threads[2];
  unsigned shared;         // bytes
  const void* parameters;  // the struct of parameters.h that the kernel takes
};

// Something that kernels are launched on.
class Card {
 public:
  virtual ~Card() = default;
  virtual int multiprocessors() const = 0;
  virtual void launch(const Launch& launch) const = 0;
};

// Of a tile: 128 bytes of each row.
constexpr int kTileVectors = 8;
// So many rows, or vectors of a map, count in an int.
constexpr long kMost = 1L << 30;

// How rows are shared out: in tiles of `tile` vectors, to blocks that take `lanes` rows at a time and make `parts` partial results for each tile.
struct NormShape {
  int tiles, tile, lanes, parts;

  NormShape(int rows, int vectors, const Card& card)
      : tiles((vectors + kTileVectors - 1) / kTileVectors), tile((vectors + tiles - 1) / tiles), lanes(STRIATE_THREADS / tile),
        parts(std::clamp((rows - 1) / (lanes * STRIATE_AHEAD) + 1, 1, std::max(1, STRIATE_BLOCKS * card.multiprocessors() / tiles))) {}

  // Bytes of the ReLU's bits.
  size_t mask(int rows) const { return static_cast<size_t>(tiles) * tile * rows; }

  // `floats` of shared memory for each thread.
  Launch launch(Kernel kernel, int floats, const void* parameters) const {
    const auto u = [](int value) { return static_cast<unsigned>(value); };
    return {kernel, {u(tiles), u(parts)}, {u(tile), u(lanes)}, u(tile * lanes * floats) * static_cast<unsigned>(sizeof(float)), parameters};
  }
};

// `values` are those of a vector.
inline void launch_norm(NormForward norm, bool relu, int values, const Card& card) {
  const NormShape shape(norm.rows, norm.vectors, card);
  norm.parts = shape.parts;
  card.launch(shape.launch(Kernel::norm_moments, 1 + 2 * values, &norm));
  const bool add = norm.other != nullptr;
  const Kernel kernel = add ? relu ? Kernel::norm_forward_add_relu : Kernel::norm_forward_add : relu ? Kernel::norm_forward_relu : Kernel::norm_forward;
  card.launch(shape.launch(kernel, 3, &norm));
}

inline void launch_norm_gradient(NormBackward norm, bool relu, int values, const Card& card) {
  const NormShape shape(norm.rows, norm.vectors, card);
  norm.parts = shape.parts;
  if (norm.mask != nullptr) {
    card.launch(shape.launch(norm.second != nullptr ? Kernel::norm_sums_two_add_relu : Kernel::norm_sums_add_relu, 2 * values, &norm));
    norm.gradient = norm.of_other;
    card.launch(shape.launch(Kernel::norm_backward, 2, &norm));
    return;
  }
  card.launch(shape.launch(relu ? Kernel::norm_sums_relu : Kernel::norm_sums, 2 * values, &norm));
  card.launch(shape.launch(relu ? Kernel::norm_backward_relu : Kernel::norm_backward, 2, &norm));
}

// `partials` has the parts of a NormShape.
inline void launch_relu_gradient(const ReluBackward& relu, int values, const Card& card) {
  card.launch(NormShape(relu.rows, relu.vectors, card).launch(Kernel::relu_sums, values, &relu));
}

template <typename Pooling>
Launch pool_launch(Kernel kernel, const Pooling& pool) {
  return {kernel, {static_cast<unsigned>((pool.items - 1) / STRIATE_POOL_THREADS + 1), 1}, {STRIATE_POOL_THREADS, 1}, 0, &pool};
}

inline void launch_pool(const MaxPooling& pool, const Card& card) {
  const int size = pool.kernel[0] == pool.kernel[1] ? pool.kernel[0] : 0;
  card.launch(pool_launch(size == 2 ? Kernel::pool_2 : size == 3 ? Kernel::pool_3 : Kernel::pool_any, pool));
}

inline void launch_pool_gradient(const MaxPoolingGradient& pool, const Card& card) {
  const auto windows = [&](int axis) { return (pool.kernel[axis] - 1) / pool.stride[axis] + 1; };
  const int most = std::max(windows(0), windows(1));
  card.launch(pool_launch(most == 1 ? Kernel::spread_1 : most == 2 ? Kernel::spread_2 : Kernel::spread_any, pool));
}
