/* bench_limits: memory read rate and f32 multiply-add peak, of one thread and of all, in a second or two. */
#include "tests/bench/limits.h"

int main(void) {
  struct limits limits;
  int threads = bench_threads();
  limits_open(&limits, threads);
  limits_measure(&limits, 7);
  printf("memory read, 1 thread:    %7.1f GB/s (256 MiB, 4 streams, median of 7)\n", limits.read_one);
  printf("memory read, %d threads:   %7.1f GB/s\n", threads, limits.read_all);
  printf("f32 multiply-add, 1 thread:  %7.0f GFLOP/s\n", limits.fma_one);
  printf("f32 multiply-add, %d threads: %7.0f GFLOP/s\n", threads, limits.fma_all);
  limits_close(&limits);
  return 0;
}
