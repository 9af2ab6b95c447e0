/* Between the thread that asks and the engine's worker, which answers. Knows nothing of what the task is for. */
#include "core/analysis/awaited.h"

#include <string.h>

void awaited_open(struct awaited *awaited, struct engine *engine) {
  memset(awaited, 0, sizeof *awaited);
  awaited->engine = engine;
  pthread_mutex_init(&awaited->mutex, NULL);
  pthread_cond_init(&awaited->changed, NULL);
}

static void wait_until_done(struct awaited *awaited, bool cancelled) {
  pthread_mutex_lock(&awaited->mutex);
  if (cancelled && awaited->task) engine_cancel(awaited->engine, awaited->task);
  while (!awaited->done) pthread_cond_wait(&awaited->changed, &awaited->mutex);
  pthread_mutex_unlock(&awaited->mutex);
  awaited->under_way = false;
}

void awaited_close(struct awaited *awaited) {
  if (awaited->under_way) wait_until_done(awaited, true);
  pthread_cond_destroy(&awaited->changed);
  pthread_mutex_destroy(&awaited->mutex);
}

/* The lock is held until the task's name is noted: it may be done before that. */
int awaited_submit(struct awaited *awaited, const struct engine_task_args *args, struct error *error) {
  awaited->done = false;
  error_clear(&awaited->error);
  pthread_mutex_lock(&awaited->mutex);
  int failed = engine_submit(awaited->engine, args, &awaited->task, error);
  pthread_mutex_unlock(&awaited->mutex);
  awaited->under_way = !failed;
  return failed;
}

void awaited_done(struct awaited *awaited, const struct error *error) {
  pthread_mutex_lock(&awaited->mutex);
  if (error) awaited->error = *error;
  awaited->task = NULL;
  awaited->done = true;
  pthread_cond_signal(&awaited->changed);
  pthread_mutex_unlock(&awaited->mutex);
}

int awaited_wait(struct awaited *awaited, struct error *error) {
  if (!awaited->under_way) return 0;
  wait_until_done(awaited, false);
  return awaited->error.code ? error_set(error, awaited->error.code, "%s", awaited->error.text) : 0;
}
