// What this processor has, and how many of its cores a thread uses.
#include "lanes.h"

int st_has_wide_vectors() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512cd") != 0;
#else
  return 0;
#endif
}

int st_has_bf16_products() {
#ifdef PAIRS
  return st_has_wide_vectors() != 0 && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return 0;
#endif
}

// Among the kernels, since these are compiled with OpenMP.
int st_thread_width(int width) {
#ifdef _OPENMP
  const int former = static_cast<int>(thread_count());  // settles libtorch's own first choice for this thread
  omp_set_num_threads(width);
  return former;
#else
  return width;
#endif
}
