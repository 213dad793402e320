// The kernels on the CPU, for tests: the threads of a block are fibres that take turns at each barrier, and blocks run one after another. Built as a library
// of its own by the test that loads it (src/cuda/kernels.rs).
#include "launch.h"

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define KERNEL [[maybe_unused]] static void
#define SHARED_FLOATS(name) static float* const name = host::shared_memory

namespace host {

struct Index {
  unsigned x, y;
};

// As much as a block has on every card.
alignas(16) static float shared_memory[48 * 1024 / sizeof(float)];
static Index thread, block, threads, blocks;

struct Fibre {
  ucontext_t start;
  jmp_buf at;
  std::vector<char> stack = std::vector<char>(32 * 1024);
  bool begun = false, done = false;
};

static std::vector<std::unique_ptr<Fibre>> fibres;
static jmp_buf scheduler;
static size_t current;
static void (*entry)(const void*);
static const void* parameters;

// The scheduler goes on, and comes back here. Jumps, unlike swapcontext, are no calls of the system.
static void barrier() {
  if (_setjmp(fibres[current]->at) == 0) _longjmp(scheduler, 1);
}

// A fibre is a thread of one block after another.
static void begin() {
  for (;;) {
    entry(parameters);
    fibres[current]->done = true;
    barrier();
  }
}

static void go_on(Fibre& fibre) {
  if (_setjmp(scheduler) != 0) return;
  if (fibre.begun) _longjmp(fibre.at, 1);
  fibre.begun = true;
  getcontext(&fibre.start);
  fibre.start.uc_stack.ss_sp = fibre.stack.data();
  fibre.start.uc_stack.ss_size = fibre.stack.size();
  makecontext(&fibre.start, begin, 0);
  setcontext(&fibre.start);
}

static void run_block() {
  // What a block finds in shared memory is anything.
  memset(shared_memory, 0xff, sizeof(shared_memory));
  const size_t count = threads.x * threads.y;
  for (size_t i = 0; i < count; ++i) fibres[i]->done = false;
  for (bool more = true; more;) {
    size_t done = 0;
    for (current = 0; current < count; ++current) {
      thread = {static_cast<unsigned>(current % threads.x), static_cast<unsigned>(current / threads.x)};
      go_on(*fibres[current]);
      done += fibres[current]->done;
    }
    if (done > 0 && done < count) {
      fprintf(stderr, "threads of a block meet different numbers of barriers\n");
      abort();
    }
    more = done == 0;
  }
}

static void run(void (*kernel)(const void*), const Launch& launch) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (launch.shared > sizeof(shared_memory) || launch.threads[0] * launch.threads[1] > 1024 || launch.blocks[1] > 65535) {
    fprintf(stderr, "no card launches that\n");
    abort();
  }
  entry = kernel;
  parameters = launch.parameters;
  threads = {launch.threads[0], launch.threads[1]};
  blocks = {launch.blocks[0], launch.blocks[1]};
  while (fibres.size() < threads.x * threads.y) fibres.push_back(std::make_unique<Fibre>());
  for (block.y = 0; block.y < blocks.y; ++block.y)
    for (block.x = 0; block.x < blocks.x; ++block.x) run_block();
}

static float from_bits(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

static unsigned bits_of(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

}  // namespace host

#define threadIdx host::thread
#define blockIdx host::block
#define blockDim host::threads
#define gridDim host::blocks

static void __syncthreads() { host::barrier(); }
static float __uint_as_float(unsigned bits) { return host::from_bits(bits); }
static unsigned __float_as_uint(float value) { return host::bits_of(value); }
using std::max;
using std::min;

static float half_to_float(unsigned half) {
  const unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, rest = half & 0x3ffu;
  if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(rest), -24), host::from_bits(sign | 0x3f800000u));
  return host::from_bits(sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | rest << 13);
}

static unsigned float_to_half(float value) {
  const unsigned sign = host::bits_of(value) >> 16 & 0x8000u;
  const float size = std::fabs(value);
  if (value != value) return sign | 0x7fffu;
  // The distance between neighbours at that size; nearbyint rounds to the nearest, of two as near to the even one.
  int exponent;
  std::frexp(size, &exponent);
  const int step = std::max(exponent - 11, -24);
  const float rounded = std::ldexp(std::nearbyint(std::ldexp(size, -step)), step);
  if (rounded >= 65536.0f) return sign | 0x7c00u;
  if (rounded < 0x1p-14f) return sign | static_cast<unsigned>(std::ldexp(rounded, 24));
  return sign | ((host::bits_of(rounded) >> 13) - (112u << 10));
}

static unsigned two_bfloats(float first, float second) {
  const auto rounded = [](float value) {
    const unsigned bits = host::bits_of(value);
    return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return rounded(first) | rounded(second) << 16;
}

template <typename Parameters>
static void call(void (*kernel)(Parameters), const void* parameters) {
  kernel(*static_cast<const Parameters*>(parameters));
}
#define ENTRY(name) [](const void* parameters) { call(name, parameters); },
#define TABLE static void (*const table[])(const void*) = {FOR_KERNELS(ENTRY)}

#define STRIATE_ELEMENT 0
namespace float32 {
#include "kernels.cu"
TABLE;
}  // namespace float32
#undef STRIATE_ELEMENT
#define STRIATE_ELEMENT 1
namespace bfloat16 {
#include "kernels.cu"
TABLE;
}  // namespace bfloat16
#undef STRIATE_ELEMENT
#define STRIATE_ELEMENT 2
namespace float16 {
#include "kernels.cu"
TABLE;
}  // namespace float16

// Launches on the CPU; `element` is STRIATE_ELEMENT.
extern "C" void striate_host_launch(int element, const void* what) {
  const Launch& launch = *static_cast<const Launch*>(what);
  const auto* table = element == 0 ? float32::table : element == 1 ? bfloat16::table : float16::table;
  host::run(table[static_cast<int>(launch.kernel)], launch);
}
