/* pool.h: threads that run one function together.
 *
 * pool_run calls `work` on every thread, the caller's included, and returns when all are done. Inside,
 * threads divide an index range with pool_take (chunks from a shared counter, so that a thread that lost its
 * processor does not hold the others up) and meet at pool_barrier. Waiting spins for a few microseconds and
 * then sleeps, so that a busy machine is not made busier.
 *
 * One pool_run at a time, from one thread (the worker). Results must not depend on which thread did what. */
#ifndef STEERD_CORE_BASE_POOL_H
#define STEERD_CORE_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct pool;

/* One thread's place in a running pool_run. */
struct pool_worker {
  struct pool *pool;
  int index;      /* 0..threads-1; 0 is the caller */
  int threads;
  uint64_t phase; /* private to pool.c */
};

/* threads >= 1 in all, the caller's included. NULL on ERROR_MEMORY or ERROR_IO (no thread to be had). */
struct pool *pool_new(int threads, struct error *error) MUST_CHECK;
void pool_free(struct pool *pool); /* NULL is fine; not while pool_run runs */
int pool_threads(const struct pool *pool);

void pool_run(struct pool *pool, void (*work)(struct pool_worker *worker, void *context), void *context);

/* The next chunk of [0, total) in steps of `chunk`: false when none is left in this phase. A phase ends at
 * a barrier; every thread must have seen `false` (or not asked at all) before it enters the barrier. */
int pool_take(struct pool_worker *worker, size_t total, size_t chunk, size_t *begin, size_t *end);

/* Waits until every thread of the run is here, and starts a new phase. */
void pool_barrier(struct pool_worker *worker);

/* Processors that this process may keep busy: those it may run on, and no more than its control groups pay for; at least 1. */
int pool_processors(void);

#endif
