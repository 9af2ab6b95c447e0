/* limits.h: what this machine can do at best right now: the denominators of every share that the benchmarks
 * print. Shared machines change within minutes, so a figure is only worth something beside limits of the same
 * run. Compiled for the native instruction set. */
#ifndef STEERD_TESTS_BENCH_LIMITS_H
#define STEERD_TESTS_BENCH_LIMITS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/pool.h"
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include "core/math/cpu/simd_avx512.h"
#define FMA_CHAINS 24
#elif defined(__AVX2__)
#include "core/math/cpu/simd_avx2.h"
#define FMA_CHAINS 6
#else
#include "core/math/cpu/simd_generic.h"
#define FMA_CHAINS 3
#endif

#define READ_BYTES ((size_t)256 << 20) /* beyond any cache of a machine of this kind */
#define READ_CHUNK ((size_t)4 << 20)

struct limits {
  unsigned char *block;
  struct pool *one, *all;
  double read_one, read_all; /* GB/s */
  double fma_one, fma_all;   /* f32 GFLOP/s */
};

static volatile float limits_sink;

/* What a program times one thread with: processor time, which does not count while somebody else has the processor. */
static bool limits_by_processor;

static inline int64_t limits_now(void) {
  struct timespec now;
  if (!limits_by_processor) return clock_ns();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline double limits_seconds(int64_t from) { return (double)(limits_now() - from) * 1e-9; }

static int limits_ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static inline double limits_median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, limits_ascending);
  return values[n / 2];
}

/* Four places at once, each fetched 4 KiB ahead: one stream is 10-15 % slower, and so is leaving the fetching to
 * the hardware, whose prefetchers stop at the end of a page. */
static void limits_read_work(struct pool_worker *worker, void *context) {
  const unsigned char *block = context;
  size_t begin, end;
  vf sum[8];
  for (int i = 0; i < 8; i++) sum[i] = vf_set1(0);
  while (pool_take(worker, READ_BYTES, READ_CHUNK, &begin, &end))
    for (size_t at = begin; at < begin + READ_CHUNK / 4; at += 128)
      for (int i = 0; i < 4; i++) {
        const float *p = (const float *)(const void *)(block + at + (size_t)i * READ_CHUNK / 4);
        __builtin_prefetch(p + 1024, 0, 3);
        __builtin_prefetch(p + 1040, 0, 3);
        sum[2 * i] = vf_add(sum[2 * i], vf_load(p));
        sum[2 * i + 1] = vf_add(sum[2 * i + 1], vf_load(p + 16));
      }
  for (int i = 1; i < 8; i++) sum[0] = vf_add(sum[0], sum[i]);
  limits_sink = vf_sum(sum[0]);
}

#define FMA_STEPS 2000000

static void limits_fma_work(struct pool_worker *worker, void *context) {
  (void)context;
  vf sum[FMA_CHAINS], a = vf_set1(0.999f), b = vf_set1(1e-6f + (float)worker->index);
  _Pragma("GCC unroll 24") for (int i = 0; i < FMA_CHAINS; i++) sum[i] = vf_set1((float)i);
  for (int n = 0; n < FMA_STEPS; n++) {
    _Pragma("GCC unroll 24") for (int i = 0; i < FMA_CHAINS; i++) sum[i] = vf_fma(sum[i], a, b);
  }
  _Pragma("GCC unroll 24") for (int i = 1; i < FMA_CHAINS; i++) sum[0] = vf_add(sum[0], sum[i]);
  limits_sink = vf_sum(sum[0]);
}

static inline double limits_read(struct limits *limits, struct pool *pool) {
  int64_t start = limits_now();
  pool_run(pool, limits_read_work, limits->block);
  return (double)READ_BYTES / limits_seconds(start) * 1e-9;
}

static inline double limits_fma(struct pool *pool) {
  int64_t start = limits_now();
  pool_run(pool, limits_fma_work, NULL);
  return 2.0 * 16 * FMA_CHAINS * FMA_STEPS * pool_threads(pool) / limits_seconds(start) * 1e-9;
}

/* Medians of `rounds` rounds in which the four take turns. */
static inline void limits_measure(struct limits *limits, int rounds) {
  double seen[4][32];
  for (int i = 0; i < rounds; i++) {
    seen[0][i] = limits_read(limits, limits->one);
    seen[1][i] = limits_read(limits, limits->all);
    seen[2][i] = limits_fma(limits->one);
    seen[3][i] = limits_fma(limits->all);
  }
  limits->read_one = limits_median(seen[0], rounds);
  limits->read_all = limits_median(seen[1], rounds);
  limits->fma_one = limits_median(seen[2], rounds);
  limits->fma_all = limits_median(seen[3], rounds);
}

static inline void limits_open(struct limits *limits, int threads) {
  memset(limits, 0, sizeof *limits);
  limits->one = pool_new(1, NULL);
  limits->all = pool_new(threads, NULL);
  void *block = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!limits->one || !limits->all || block == MAP_FAILED) {
    fprintf(stderr, "no memory or threads for the limits\n");
    exit(1);
  }
  madvise(block, READ_BYTES, MADV_HUGEPAGE);
  memset(block, 1, READ_BYTES);
  limits->block = block;
}

static inline void limits_close(struct limits *limits) {
  munmap(limits->block, READ_BYTES);
  pool_free(limits->one);
  pool_free(limits->all);
}

static inline int bench_threads(void) {
  const char *asked = getenv("STEERD_THREADS");
  return asked ? atoi(asked) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

#endif
