// What this processor has.
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
