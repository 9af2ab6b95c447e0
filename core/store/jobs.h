/* jobs.h: work that outlives a request and a process. Part of store.h: include that.
 *
 *   queued -> running -> done | failed | cancelled        failed, cancelled -> queued (store_job_resume)
 *
 * A job that was running when the process died is still `running` at the next start: whoever runs jobs queues it
 * again. The resume state is a few numbered parts, each a blob that is replaced as a whole, so that a job whose state
 * is large rewrites only what has changed. It is dropped when the job is done and kept when it failed or was
 * cancelled. */
#ifndef STEERD_CORE_STORE_JOBS_H
#define STEERD_CORE_STORE_JOBS_H

#include "core/store/store.h"

enum store_job_state { STORE_QUEUED, STORE_RUNNING, STORE_DONE, STORE_FAILED, STORE_CANCELLED };

struct store_job {
  int64_t id;              /* never used twice */
  const char *kind;        /* "stats", "train", ... */
  enum store_job_state state;
  int64_t done, total;     /* progress, in unit; total 0 when not known */
  const char *unit;        /* "tokens"; or NULL */
  const char *message;     /* what it is doing, for a reader; or NULL */
  const char *parameters;  /* JSON text */
  const char *result;      /* JSON text; or NULL */
  const char *error;       /* why it failed; or NULL */
  bool cancel;             /* somebody asked it to stop */
  const char *created_at;  /* ISO 8601 UTC */
  const char *started_at;  /* first time it ran; or NULL */
  const char *updated_at;
  const char *finished_at; /* or NULL */
};

/* Changes to a job: NULL leaves a text as it is, -1 a number. */
struct store_job_update {
  int state; /* enum store_job_state; -1 */
  int64_t done, total;
  const char *unit, *message, *result, *error;
};

#define STORE_JOB_UPDATE_INIT {-1, -1, -1, NULL, NULL, NULL, NULL}

struct store_job_part {
  int part;         /* 0 and up */
  const void *data; /* NULL deletes the part */
  size_t bytes;     /* at most STORE_PART_MAX */
};

#define STORE_PART_MAX ((size_t)512 << 20)
#define STORE_JOB_PAGE 1000 /* most jobs in a page */

const char *store_job_word(enum store_job_state state); /* "queued", "running", ... */

/* A queued job; parameters is JSON text. */
int store_job_create(struct store *store, const char *kind, const char *parameters, int64_t *id,
                     struct error *error) MUST_CHECK;

/* ERROR_NOT_FOUND; ERROR_ARGUMENT: another state for a job that has ended. Also sets the times. */
int store_job_update(struct store *store, int64_t id, const struct store_job_update *update,
                     struct error *error) MUST_CHECK;

/* 1 and *out when it exists, 0 when not, -1 on error. */
int store_job_find(struct store *store, int64_t id, struct arena *arena, struct store_job *out,
                   struct error *error) MUST_CHECK;

/* Jobs in a state (-1: any) and of a kind (NULL: any), newest first; *out is [*n]. */
int store_job_list(struct store *store, int state, const char *kind, int64_t offset, int64_t limit,
                   struct arena *arena, struct store_job **out, size_t *n, struct error *error) MUST_CHECK;

/* Asks a job to stop: a queued one is cancelled at once, a running one has its flag set. 1 when it did either, 0 when
 * the job had ended. ERROR_NOT_FOUND. */
int store_job_cancel(struct store *store, int64_t id, struct error *error) MUST_CHECK;

/* Queues a job again, from the state it left: one that failed or was cancelled, or one that runs in no process any
 * more. Its flag and error are cleared. ERROR_NOT_FOUND; ERROR_ARGUMENT when it is done. */
int store_job_resume(struct store *store, int64_t id, struct error *error) MUST_CHECK;

/* One part of the resume state: 1 and *data in the arena, 0 when there is none, -1 on error. */
int store_job_part(struct store *store, int64_t id, int part, struct arena *arena, const void **data, size_t *bytes,
                   struct error *error) MUST_CHECK;

/* Forgets a job that has ended, its state too: 1, or 0 when there was none. ERROR_ARGUMENT when it has not ended. */
int store_job_delete(struct store *store, int64_t id, struct error *error) MUST_CHECK;

#endif
