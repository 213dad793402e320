// What kernels share. They read none of libtorch's headers, which take seconds each time.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE__
#include <xmmintrin.h>
#endif

// A few values a task are not worth a thread.
constexpr int64_t kGrain = 16384;

// As many as libtorch's operators use (operators.cpp).
int64_t thread_count();

// Memory for floats, from libtorch's allocator (operators.cpp).
class Floats {
 public:
  explicit Floats(int64_t count);
  ~Floats();
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;

  float* data() const { return data_; }

 private:
  void* tensor_;
  float* data_;
};

// While it lives, this thread reads and writes denormal numbers (below 1.2e-38) as zeros: each costs more than a hundred ordinary ones.
class DenormalsAreZero {
 public:
#ifdef __SSE__
  DenormalsAreZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushResults | kFlushOperands); }
  ~DenormalsAreZero() { _mm_setcsr(before_); }
#else
  DenormalsAreZero() {}
#endif
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
#ifdef __SSE__
  static constexpr unsigned kFlushResults = 0x8000, kFlushOperands = 0x0040;
  unsigned before_;
#endif
};

// Calls `body(first, last)` for parts of 0..count, each of at least `grain`, on as many threads as libtorch's operators use; within such a call, on this
// thread alone. `body` throws nothing. Not at::parallel_for, which is serial, or takes all cores, where its header meets another OpenMP than libtorch's.
template <typename Body>
void parallel(int64_t count, int64_t grain, Body body) {
#ifdef _OPENMP
  int64_t threads = omp_in_parallel() ? 1 : std::min<int64_t>(thread_count(), (count + grain - 1) / grain);
  if (threads > 1) {
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
      const DenormalsAreZero zero;
      const int64_t team = omp_get_num_threads(), number = omp_get_thread_num();
      body(count * number / team, count * (number + 1) / team);
    }
    return;
  }
#endif
  const DenormalsAreZero zero;
  if (count > 0) body(int64_t{0}, count);
}
