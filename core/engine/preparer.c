/* preparer.c: the thread that has dictionaries brought to the backend for tasks that edit by them, before those may leave the queue: matrices
 * may be gigabytes, and the worker would hold up everybody's streams for as long as they take.
 *
 * Owns a task of the queue while it works for it. What it brings may be dropped again before the task runs, and what it finds no room for it
 * leaves to the worker, who may drop others. Knows no step. */
#include <pthread.h>

#include "core/engine/engine_int.h"

/* ---- what a task needs ---- */

static bool list_is_cold(const struct edit_list *list) {
  for (size_t i = 0; i < edit_list_count(list); i++) {
    const struct dict *dict = edit_list_dict(list, i);
    if (dict && !dict_splice_prepared(dict)) return true;
  }
  return false;
}

bool preparer_needed(const struct engine_task *task) {
  for (int i = 0; i < task->n_sequences; i++)
    if (list_is_cold(task->sequences[i].edits)) return true;
  return false;
}

/* ---- the thread ---- */

/* The worker drops others for what is there now. */
static void tell_worker(struct engine *engine) {
  pthread_mutex_lock(&engine->mutex);
  engine->overfull = true;
  pthread_cond_signal(&engine->changed);
  pthread_mutex_unlock(&engine->mutex);
}

static bool is_wanted(struct engine *engine, const struct engine_task *task) {
  pthread_mutex_lock(&engine->mutex);
  bool stop = engine->stop;
  pthread_mutex_unlock(&engine->mutex);
  return !stop && !atomic_load(&task->cancelled);
}

static int prepare_list(struct engine *engine, const struct engine_task *task, const struct edit_list *list, struct error *error) {
  for (size_t i = 0; i < edit_list_count(list) && is_wanted(engine, task); i++) {
    const struct dict *dict = edit_list_dict(list, i);
    if (!dict || dict_splice_prepared(dict)) continue;
    if (dict_splice_prepare(dict, error) != 0) return -1;
    tell_worker(engine);
  }
  return 0;
}

static void prepare_task(struct engine *engine, const struct engine_task *task, struct error *error) {
  for (int i = 0; i < task->n_sequences; i++)
    if (prepare_list(engine, task, task->sequences[i].edits, error) != 0) break;
  if (error->code == ERROR_MEMORY) error_clear(error);
}

/* Under the mutex. */
static struct engine_task *first_cold(const struct engine *engine) {
  struct engine_task *task = engine->queue_head;
  while (task && (task->warmth != TASK_COLD || atomic_load(&task->cancelled))) task = task->next;
  return task;
}

static void *preparer_main(void *argument) {
  struct engine *engine = argument;
  pthread_mutex_lock(&engine->mutex);
  while (!engine->stop) {
    struct engine_task *task = first_cold(engine);
    struct error error = ERROR_INIT;
    if (!task) {
      pthread_cond_wait(&engine->grown_cold, &engine->mutex);
      continue;
    }
    task->warmth = TASK_PREPARING;
    pthread_mutex_unlock(&engine->mutex);
    prepare_task(engine, task, &error);
    pthread_mutex_lock(&engine->mutex);
    if (error.code) task->error = error;
    task->warmth = TASK_READY;
    pthread_cond_signal(&engine->changed);
  }
  pthread_mutex_unlock(&engine->mutex);
  return NULL;
}

/* With the first task that needs it, which few daemons ever see: a thread takes tens of MiB of address space. */
bool preparer_start(struct engine *engine) {
  if (!engine->prepares) engine->prepares = pthread_create(&engine->preparer, NULL, preparer_main, engine) == 0;
  return engine->prepares;
}

void preparer_join(struct engine *engine) {
  if (engine->prepares) pthread_join(engine->preparer, NULL);
}
