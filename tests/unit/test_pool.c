/* pool.h: every index once, whatever the number of threads, and barriers that hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <string.h>

#include "core/base/pool.h"

#define TOTAL 10007 /* prime: no chunk size divides it */
#define PHASES 200

static const int thread_counts[] = {1, 2, 3, 4, 7};
#define N_COUNTS (sizeof thread_counts / sizeof thread_counts[0])

static struct pool *must_start(int threads) {
  struct error error = ERROR_INIT;
  struct pool *pool = pool_new(threads, &error);
  if (!pool) fail_msg("%s", error.text);
  assert_int_equal(pool_threads(pool), threads);
  return pool;
}

/* ---- sums ---- */

struct sum {
  unsigned char seen[TOTAL];
  _Atomic uint64_t total;
  size_t chunk;
};

static void add_up(struct pool_worker *worker, void *context) {
  struct sum *sum = context;
  size_t begin, end;
  while (pool_take(worker, TOTAL, sum->chunk, &begin, &end)) {
    uint64_t part = 0;
    for (size_t i = begin; i < end; i++) {
      part += i;
      sum->seen[i]++;
    }
    atomic_fetch_add(&sum->total, part);
  }
}

static void test_sums(void **state) {
  (void)state;
  static struct sum sum;
  static const size_t chunks[] = {1, 64, TOTAL, 2 * TOTAL};
  for (size_t t = 0; t < N_COUNTS; t++) {
    struct pool *pool = must_start(thread_counts[t]);
    for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
      memset(&sum, 0, sizeof sum);
      sum.chunk = chunks[c];
      pool_run(pool, add_up, &sum);
      assert_int_equal(sum.total, (uint64_t)TOTAL * (TOTAL - 1) / 2);
      for (size_t i = 0; i < TOTAL; i++) assert_int_equal(sum.seen[i], 1);
    }
    pool_free(pool);
  }
}

/* ---- phases ---- */

/* Each phase adds to every cell what its neighbour held before the phase; a thread that runs ahead of a
 * barrier, or an index range that is not reset by it, gives other numbers than one thread does. */
#define CELLS 97
struct ladder {
  uint32_t cells[2][CELLS];
  _Atomic int early; /* times a thread saw another phase's counter */
  _Atomic int entered[PHASES];
  int threads;
};

static void climb(struct pool_worker *worker, void *context) {
  struct ladder *ladder = context;
  for (int phase = 0; phase < PHASES; phase++) {
    const uint32_t *from = ladder->cells[phase % 2];
    uint32_t *to = ladder->cells[(phase + 1) % 2];
    size_t begin, end;
    if (phase && atomic_load(&ladder->entered[phase - 1]) != ladder->threads) atomic_fetch_add(&ladder->early, 1);
    while (pool_take(worker, CELLS, 5, &begin, &end))
      for (size_t i = begin; i < end; i++) to[i] = from[i] + 3 * from[(i + 1) % CELLS];
    atomic_fetch_add(&ladder->entered[phase], 1);
    pool_barrier(worker);
  }
}

static void run_ladder(int threads, struct ladder *ladder) {
  struct pool *pool = must_start(threads);
  memset(ladder, 0, sizeof *ladder);
  for (size_t i = 0; i < CELLS; i++) ladder->cells[0][i] = (uint32_t)i;
  ladder->threads = threads;
  pool_run(pool, climb, ladder);
  pool_free(pool);
}

static void test_phases(void **state) {
  (void)state;
  static struct ladder one, many;
  run_ladder(1, &one);
  for (size_t t = 0; t < N_COUNTS; t++) {
    run_ladder(thread_counts[t], &many);
    assert_int_equal(many.early, 0);
    assert_memory_equal(one.cells, many.cells, sizeof one.cells);
  }
}

/* ---- runs ---- */

static void mark(struct pool_worker *worker, void *context) {
  _Atomic int *seen = context;
  if (worker->index >= 0 && worker->index < worker->threads) atomic_fetch_add(&seen[worker->index], 1);
}

/* Every thread takes part in every run, under its own index, and a run is over when pool_run returns. */
static void test_runs(void **state) {
  (void)state;
  for (size_t t = 0; t < N_COUNTS; t++) {
    _Atomic int seen[8] = {0};
    struct pool *pool = must_start(thread_counts[t]);
    for (int run = 1; run <= 500; run++) {
      pool_run(pool, mark, seen);
      for (int i = 0; i < thread_counts[t]; i++) assert_int_equal(seen[i], run);
    }
    pool_free(pool);
  }
}

static void test_edges(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct pool *pool = pool_new(0, &error); /* fewer than one is one */
  assert_non_null(pool);
  assert_int_equal(pool_threads(pool), 1);
  pool_free(pool);
  pool_free(NULL);
  for (int i = 0; i < 20; i++) pool_free(must_start(4)); /* stopped without a run */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sums),
      cmocka_unit_test(test_phases),
      cmocka_unit_test(test_runs),
      cmocka_unit_test(test_edges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
