/* lab_waiter.h: somebody who starts jobs of a lab with `waker` and sleeps until one of them has ended. */
#ifndef STEERD_TESTS_UNIT_LAB_WAITER_H
#define STEERD_TESTS_UNIT_LAB_WAITER_H

#include <pthread.h>

#include "core/core.h"

struct waiter {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int wakes;
};
static struct waiter waiter = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static inline void on_wake(void *context) {
  struct waiter *w = context;
  pthread_mutex_lock(&w->mutex);
  w->wakes++;
  pthread_cond_broadcast(&w->changed);
  pthread_mutex_unlock(&w->mutex);
}
static const struct lab_waker waker = {.wake = on_wake, .context = &waiter};

/* LAB_JOB_DONE or LAB_JOB_FAILED. The job wakes us under its own lock, so its state is asked for without ours. */
static inline enum lab_job_state wait_for(struct lab_job *job) {
  for (;;) {
    pthread_mutex_lock(&waiter.mutex);
    int seen = waiter.wakes;
    pthread_mutex_unlock(&waiter.mutex);
    enum lab_job_state state = lab_job_state(job);
    if (state == LAB_JOB_DONE || state == LAB_JOB_FAILED) return state;
    pthread_mutex_lock(&waiter.mutex);
    while (waiter.wakes == seen) pthread_cond_wait(&waiter.changed, &waiter.mutex);
    pthread_mutex_unlock(&waiter.mutex);
  }
}

#endif
