/* stager.c: the thread between two tasks of one request. What edits take from earlier runs may be gigabytes that are put in
 * order before the next task: done by the engine's thread it would hold up everybody's next token. Knows no verb. */
#include <stdlib.h>

#include "core/lab/lab_int.h"

struct lab_stager {
  pthread_t thread;
  bool started;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool stop;
  struct lab_job *head, *tail;
};

static bool is_cancelled(struct lab_job *job) {
  pthread_mutex_lock(&job->mutex);
  bool cancelled = job->cancelled;
  pthread_mutex_unlock(&job->mutex);
  return cancelled;
}

/* The job may be gone afterwards. */
static void go_on(struct lab_job *job) {
  struct error error = ERROR_INIT;
  if (is_cancelled(job))
    error_set(&error, ERROR_CANCELLED, "the request was cancelled");
  else if (job->go_on(job, &error) == 0)
    return;
  job_done(job, &error);
}

/* NULL: it is to stop, and nobody waits. */
static struct lab_job *next_job(struct lab_stager *stager) {
  pthread_mutex_lock(&stager->mutex);
  while (!stager->head && !stager->stop) pthread_cond_wait(&stager->changed, &stager->mutex);
  struct lab_job *job = stager->head;
  if (job) stager->head = job->next_staged;
  if (!stager->head) stager->tail = NULL;
  pthread_mutex_unlock(&stager->mutex);
  return job;
}

static void *stager_main(void *argument) {
  for (struct lab_job *job; (job = next_job(argument));) go_on(job);
  return NULL;
}

int stager_open(struct lab *lab, struct error *error) {
  struct lab_stager *stager = lab->stager = calloc(1, sizeof *stager);
  if (!stager) return error_memory(error, sizeof *stager);
  pthread_mutex_init(&stager->mutex, NULL);
  pthread_cond_init(&stager->changed, NULL);
  stager->started = pthread_create(&stager->thread, NULL, stager_main, stager) == 0;
  return stager->started ? 0 : error_set(error, ERROR_IO, "the thread between tasks could not be started");
}

void stager_stop(struct lab *lab) {
  struct lab_stager *stager = lab->stager;
  if (!stager || !stager->started) return;
  pthread_mutex_lock(&stager->mutex);
  stager->stop = true;
  pthread_cond_signal(&stager->changed);
  pthread_mutex_unlock(&stager->mutex);
  pthread_join(stager->thread, NULL);
  stager->started = false;
}

void stager_close(struct lab *lab) {
  struct lab_stager *stager = lab->stager;
  if (!stager) return;
  stager_stop(lab);
  pthread_cond_destroy(&stager->changed);
  pthread_mutex_destroy(&stager->mutex);
  free(stager);
  lab->stager = NULL;
}

/* False when the thread is to stop, or has. */
static bool enqueue(struct lab_stager *stager, struct lab_job *job) {
  pthread_mutex_lock(&stager->mutex);
  bool runs = !stager->stop;
  if (runs && stager->tail) stager->tail->next_staged = job;
  if (runs && !stager->tail) stager->head = job;
  if (runs) stager->tail = job;
  pthread_cond_signal(&stager->changed);
  pthread_mutex_unlock(&stager->mutex);
  return runs;
}

void stager_put(struct lab_job *job, int (*next)(struct lab_job *job, struct error *error)) {
  pthread_mutex_lock(&job->mutex);
  job->task = NULL; /* it has ended: nobody may cancel it any more */
  pthread_mutex_unlock(&job->mutex);
  job->go_on = next;
  job->next_staged = NULL;
  if (!enqueue(job->lab->stager, job)) go_on(job);
}
