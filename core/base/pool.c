#include "core/base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/checked.h"
#include "core/base/room.h"

/* How many polls before a thread sleeps: about 10 microseconds. Longer spins win nothing on an idle machine
 * and steal the processor from the thread that is waited for on a busy one. */
#define SPINS 2000

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() atomic_signal_fence(memory_order_seq_cst)
#endif

struct pool {
  int threads;
  pthread_t *handles; /* threads - 1 of them */
  void (*work)(struct pool_worker *, void *);
  void *context;
  _Alignas(64) _Atomic uint32_t run;        /* bumped to start a run; odd values are not special */
  _Alignas(64) _Atomic uint32_t generation; /* bumped when a barrier opens */
  _Alignas(64) _Atomic uint32_t arrived;
  _Alignas(64) _Atomic uint32_t sleepers;
  _Alignas(64) _Atomic size_t next; /* first index not yet handed out in this phase */
  atomic_bool stop;
};

struct start {
  struct pool *pool;
  int index;
};

static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void wait_change(struct pool *pool, _Atomic uint32_t *word, uint32_t old) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) != old) return;
    RELAX();
  }
  atomic_fetch_add(&pool->sleepers, 1);
  while (atomic_load_explicit(word, memory_order_acquire) == old) sleep_while(word, old);
  atomic_fetch_sub(&pool->sleepers, 1);
}

static void change(struct pool *pool, _Atomic uint32_t *word) {
  atomic_fetch_add(word, 1);
  if (atomic_load(&pool->sleepers)) wake_all(word);
}

void pool_barrier(struct pool_worker *worker) {
  struct pool *pool = worker->pool;
  if (pool->threads == 1) {
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    return;
  }
  uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_acquire);
  if (atomic_fetch_add(&pool->arrived, 1) + 1 == (uint32_t)pool->threads) {
    atomic_store(&pool->arrived, 0);
    atomic_store(&pool->next, 0);
    change(pool, &pool->generation);
  } else {
    wait_change(pool, &pool->generation, generation);
  }
  worker->phase++;
}

int pool_take(struct pool_worker *worker, size_t total, size_t chunk, size_t *begin, size_t *end) {
  size_t at = atomic_fetch_add_explicit(&worker->pool->next, chunk, memory_order_relaxed);
  if (at >= total) return 0;
  *begin = at;
  *end = total - at < chunk ? total : at + chunk;
  return 1;
}

static void run_here(struct pool *pool, int index) {
  struct pool_worker worker = {pool, index, pool->threads, 0};
  pool->work(&worker, pool->context);
  pool_barrier(&worker);
}

static void *thread_main(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  struct pool *pool = start.pool;
  uint32_t seen = 0;
  for (;;) {
    wait_change(pool, &pool->run, seen);
    seen = atomic_load_explicit(&pool->run, memory_order_acquire);
    if (atomic_load(&pool->stop)) return NULL;
    run_here(pool, start.index);
  }
}

static int start_thread(struct pool *pool, int index, struct error *error) {
  struct start *start = malloc(sizeof *start);
  if (!start) return error_memory(error, sizeof *start);
  *start = (struct start){pool, index};
  int number = pthread_create(&pool->handles[index - 1], NULL, thread_main, start);
  if (number == 0) return 0;
  free(start);
  return error_set(error, ERROR_IO, "thread %d of %d could not be started: %s", index + 1, pool->threads,
                   strerror(number));
}

struct pool *pool_new(int threads, struct error *error) {
  if (threads < 1) threads = 1;
  struct pool *pool = aligned_alloc(64, sizeof *pool);
  if (!pool) return error_memory(error, sizeof *pool), NULL;
  memset(pool, 0, sizeof *pool);
  pool->threads = 1;
  pool->handles = calloc((size_t)threads, sizeof *pool->handles);
  if (!pool->handles) {
    free(pool);
    return error_memory(error, (size_t)threads * sizeof *pool->handles), NULL;
  }
  /* `threads` is written before any thread can see a run: the first pool_run publishes it. */
  for (int i = 1; i < threads; i++) {
    if (start_thread(pool, i, error) != 0) {
      pool_free(pool);
      return NULL;
    }
    pool->threads++;
  }
  return pool;
}

void pool_free(struct pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  change(pool, &pool->run);
  wake_all(&pool->run);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->handles[i - 1], NULL);
  free(pool->handles);
  free(pool);
}

int pool_threads(const struct pool *pool) { return pool->threads; }

void pool_run(struct pool *pool, void (*work)(struct pool_worker *, void *), void *context) {
  pool->work = work;
  pool->context = context;
  atomic_store(&pool->next, 0);
  if (pool->threads > 1) change(pool, &pool->run);
  run_here(pool, 0);
}

int pool_processors(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  size_t n = size_min((size_t)CPU_COUNT(&set), processor_room(""));
  return n > 0 ? (int)n : 1;
}
