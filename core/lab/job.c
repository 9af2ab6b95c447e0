/* job.c: the life of a job between its two owners.
 *
 * The engine's share ends in job_done, the asker's in lab_job_free; whoever is last destroys. `wake` is called
 * under the job's mutex, which is why lab_job_free can promise that it never comes again. */
#include <stdlib.h>
#include <string.h>

#include "core/lab/lab_int.h"

void job_init(struct lab_job *job, struct lab *lab, struct lab_waker waker, void (*destroy)(struct lab_job *)) {
  pthread_mutex_init(&job->mutex, NULL);
  job->lab = lab;
  job->waker = waker;
  job->owners = 1;
  job->destroy = destroy;
  lab_lease_begin(lab, &job->lease);
}

void job_clear(struct lab_job *job) {
  lab_lease_end(job->lab, &job->lease);
  pthread_mutex_destroy(&job->mutex);
}

void job_wake(struct lab_job *job) {
  if (job->waker.wake) job->waker.wake(job->waker.context);
}

/* Unlocks, and destroys when nobody is left. */
static void leave(struct lab_job *job) {
  bool last = --job->owners == 0;
  pthread_mutex_unlock(&job->mutex);
  if (last) job->destroy(job);
}

/* The engine becomes an owner before it can end the task. */
static int submitted(struct lab_job *job, int failed) {
  job->owners = failed ? 1 : 2;
  pthread_mutex_unlock(&job->mutex);
  if (failed) job->destroy(job);
  return failed;
}

/* In the name of whoever asked for the job. */
static int submit(struct lab_job *job, const struct engine_task_args *args, struct error *error) {
  struct engine_task_args owned = *args;
  owned.owner = job->waker.owner;
  return engine_submit(job->lab->engine, &owned, &job->task, error);
}

static int submit_work(struct lab_job *job, const struct model *model, const struct engine_work *work, struct error *error) {
  return engine_submit_work(job->lab->engine, model, work, job->waker.owner, job, &job->task, error);
}

int job_submit(struct lab_job *job, const struct engine_task_args *args, struct error *error) {
  pthread_mutex_lock(&job->mutex);
  return submitted(job, submit(job, args, error));
}

int job_submit_work(struct lab_job *job, const struct model *model, const struct engine_work *work,
                    struct error *error) {
  pthread_mutex_lock(&job->mutex);
  return submitted(job, submit_work(job, model, work, error));
}

/* Edit lists are taken in any case, as engine_submit takes them. */
static int refuse_cancelled(const struct engine_task_args *args, struct error *error) {
  for (int i = 0; i < args->n_sequences; i++) edit_list_free(args->sequences[i].edits, args->model->backend);
  return error_set(error, ERROR_CANCELLED, "the request was cancelled");
}

int job_continue(struct lab_job *job, const struct engine_task_args *args, struct error *error) {
  pthread_mutex_lock(&job->mutex);
  job->task = NULL;
  int failed = job->cancelled ? refuse_cancelled(args, error) : submit(job, args, error);
  pthread_mutex_unlock(&job->mutex);
  return failed;
}

int job_continue_work(struct lab_job *job, const struct model *model, const struct engine_work *work,
                      struct error *error) {
  pthread_mutex_lock(&job->mutex);
  job->task = NULL;
  int failed = job->cancelled ? error_set(error, ERROR_CANCELLED, "the request was cancelled")
                              : submit_work(job, model, work, error);
  pthread_mutex_unlock(&job->mutex);
  return failed;
}

void job_finish_now(struct lab_job *job) { job->state = LAB_JOB_DONE; }

void job_done(void *context, const struct error *error) {
  struct lab_job *job = context;
  pthread_mutex_lock(&job->mutex);
  job->task = NULL;
  job->state = error ? LAB_JOB_FAILED : LAB_JOB_DONE;
  if (error) job->error = *error;
  job_wake(job);
  leave(job);
}

enum lab_job_state lab_job_state(const struct lab_job *job) {
  struct lab_job *j = (struct lab_job *)(uintptr_t)job;
  pthread_mutex_lock(&j->mutex);
  enum lab_job_state state = j->state;
  pthread_mutex_unlock(&j->mutex);
  return state;
}

void lab_job_error(const struct lab_job *job, struct error *out) {
  struct lab_job *j = (struct lab_job *)(uintptr_t)job;
  pthread_mutex_lock(&j->mutex);
  *out = j->error;
  pthread_mutex_unlock(&j->mutex);
}

void lab_job_usage(const struct lab_job *job, int64_t *prompt_tokens, int64_t *new_tokens) {
  struct lab_job *j = (struct lab_job *)(uintptr_t)job;
  pthread_mutex_lock(&j->mutex);
  *prompt_tokens = j->prompt_tokens;
  *new_tokens = j->new_tokens;
  pthread_mutex_unlock(&j->mutex);
}

void lab_job_cancel(struct lab_job *job) {
  pthread_mutex_lock(&job->mutex);
  job->cancelled = true;
  if (job->task) engine_cancel(job->lab->engine, job->task);
  pthread_mutex_unlock(&job->mutex);
}

void lab_job_free(struct lab_job *job) {
  if (!job) return;
  pthread_mutex_lock(&job->mutex);
  job->waker.wake = NULL;
  job->cancelled = true;
  if (job->task) engine_cancel(job->lab->engine, job->task);
  leave(job);
}
