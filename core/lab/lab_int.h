/* lab_int.h: what the files of the front door share (core/lab/). */
#ifndef STEERD_CORE_LAB_INT_H
#define STEERD_CORE_LAB_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/core.h"
#include "core/dict/dict.h"
#include "core/engine/engine.h"
#include "core/model/model.h"

struct store;
struct lab_runner;

struct lab_sources;

/* Never moves while it lives: addresses of `info` are handed out. */
struct lab_source {
  struct lab_source_info info;  /* first: lab_source_of goes from its address to ours */
  struct dict *dict;
  int64_t store_id;             /* the store's number; 0 without a store */
  char print[17];               /* what it computes (dict_fingerprint); "" without a store */
  char *id, *set, *model_id, *point, *point_out, *path;
  char *point_last;             /* NULL where there is one */
  int64_t slice[3];             /* of info.seqpos_slice */
  _Atomic int64_t used_at;      /* seconds since 1970; 0: never */
  int pins;                     /* long jobs that use it; guarded by lab_sources.mutex */
  struct lab_source_check check; /* guarded by lab_sources.mutex */
};

struct lab_source_list;

struct lab_model {
  struct model *model;
  _Atomic(struct lab_source_list *) sources; /* replaced as a whole; never NULL in an open lab */
  _Atomic(struct lab_source *) *neurons;     /* [n_layer]; NULL: nobody has named those of the layer yet (neurons.c) */
};

struct lab {
  struct backend *backend;
  struct lab_model *models;      /* [n_models] */
  struct lab_model_info *infos;  /* [n_models], same order */
  size_t n_models;
  struct model_names *names;     /* which names mean the same model */
  struct lab_sources *sources;   /* who uses which (sources.h) */
  struct dict_budget *budget;    /* of prepared encoders */
  enum dtype keep;               /* how encoders are kept */
  struct engine *engine;
  struct lab_stager *stager;     /* between the tasks of a request */
  struct store *store;           /* NULL: nothing is kept */
  struct lab_runner *runner;     /* of long jobs; NULL without a store */
  int threads;
  char *train_folder;            /* where long jobs put dictionaries; NULL: nowhere */
  struct lab_options options;    /* numbers only; its pointers are not kept */
};

/* The opened things behind the plain descriptions. */
struct lab_model *lab_model_of(const struct lab *lab, const struct lab_model_info *info);
struct lab_source *lab_source_of(const struct lab *lab, const struct lab_source_info *info);
struct lab_model *lab_model_of_source(const struct lab *lab, const struct lab_source_info *info);
struct lab_model *lab_model_named(const struct lab *lab, const char *id); /* by id or alias; NULL when there is none */

/* "'a', 'b' and 4 more" of n ids, for error texts. */
void lab_list_ids(char *out, size_t size, size_t n, const char *(*id)(const void *of, size_t i), const void *of);

/* 1 to 128 letters, digits or characters of "._-/". */
int lab_check_id(const char *id, struct error *error) MUST_CHECK;

/* ---- the store and long jobs (archive.c, runner.c) ---- */

/* Opens the store, if one is named, records what is loaded, and imports statistics that came with it. */
int archive_open(struct lab *lab, const struct lab_options *options, struct error *error) MUST_CHECK;

/* Makes a source known to the store and imports the statistics in its folder, if there are any and the store has none. */
int archive_put_source(const struct lab *lab, struct lab_source *source, bool load_statistics, struct error *error) MUST_CHECK;

/* Whether the store knows a model (a source) that is not loaded and was registered, imported or loaded once; then the error says that
 * nothing can be computed with it, and the remedy. */
bool stored_refuse_model(const struct lab *lab, const char *id, struct error *error);
bool stored_refuse_source(const struct lab *lab, const char *model, const char *id, const char *field, struct error *error);

/* Starts the thread that runs long jobs; those that an earlier process left running are queued again. */
int runner_open_jobs(struct lab *lab, bool start, struct error *error) MUST_CHECK;
void runner_stop_jobs(struct lab *lab);  /* asks the running job to stop; returns at once */
void runner_close_jobs(struct lab *lab); /* stops the running one where it can go on later */

/* ---- jobs (job.c) ---- */

/* Head of every kind of job. The mutex guards what the engine's thread writes and the asker reads. */
struct lab_job {
  pthread_mutex_t mutex;
  int owners;                /* the asker and the engine */
  struct lab_lease lease;    /* sources that it found stay until it is destroyed */
  struct lab_waker waker;    /* wake is NULL once the asker has left */
  struct lab *lab;
  struct engine_task *task;  /* NULL before it is queued and once it is done */
  enum lab_job_state state;
  bool cancelled;            /* somebody asked it to stop: no further part may start */
  struct error error;
  int64_t prompt_tokens, new_tokens;
  struct lab_job *next_staged;                                /* the stager's */
  int (*go_on)(struct lab_job *job, struct error *error);
  void (*destroy)(struct lab_job *job); /* frees the whole object, head included */
};

void job_init(struct lab_job *job, struct lab *lab, struct lab_waker waker, void (*destroy)(struct lab_job *));

/* Queues the task whose events have this job as context. On failure the job is destroyed. */
int job_submit(struct lab_job *job, const struct engine_task_args *args, struct error *error);
int job_submit_work(struct lab_job *job, const struct model *model, const struct engine_work *work, struct error *error);

/* From the engine's thread or the stager's, in place of job_done: goes on with another task. -1 with an error when it cannot; the edit lists
 * are taken in any case. */
int job_continue(struct lab_job *job, const struct engine_task_args *args, struct error *error);

int job_continue_work(struct lab_job *job, const struct model *model, const struct engine_work *work,
                      struct error *error);

/* ---- between two tasks (stager.c) ---- */

int stager_open(struct lab *lab, struct error *error) MUST_CHECK;
void stager_stop(struct lab *lab);  /* what it was given is done; what comes later is done by whoever brings it */
void stager_close(struct lab *lab); /* behind the engine: its last tasks may still end in stager_put */

/* From the engine's thread, in place of job_done: the job's task has ended, and `next` continues the job (job_continue) or ends
 * it (job_done) on a thread of its own; where it fails it leaves the job to be ended with its error. For what may take longer
 * than a step. */
void stager_put(struct lab_job *job, int (*next)(struct lab_job *job, struct error *error));

/* A job whose result is there at once. */
void job_finish_now(struct lab_job *job);

/* For destroy(): what job_init made. */
void job_clear(struct lab_job *job);

/* Under the mutex: tells the asker that there is something new. */
void job_wake(struct lab_job *job);

/* engine_events.done of every job: records the end, wakes, gives the engine's share back. */
void job_done(void *context, const struct error *error);

/* ---- tokens (tokens.c) ---- */

/* Ids of a text for a model, checked against its context. `room` more positions must remain (for new tokens).
 * *ids is malloc'ed. Errors carry `field`. */
int lab_encode(const struct model *model, const char *text, size_t length, bool bos, int64_t room, const char *field,
               int32_t **ids, size_t *count, struct error *error) MUST_CHECK;

/* Tokens decoded together, valid UTF-8, in the arena. */
char *lab_tokens_text(const struct tokenizer *tokenizer, const int32_t *ids, size_t n, struct arena *arena,
                      struct error *error) MUST_CHECK;

/* Tokens as text shows them, in the arena: each decoded alone, but a character that several make up stands at each of them, and
 * continued[i] at all but the first. */
int lab_token_texts(const struct tokenizer *tokenizer, const int32_t *ids, size_t n, struct arena *arena, const char *const **texts,
                    const bool **continued, struct error *error) MUST_CHECK;

/* A token decoded alone, valid UTF-8, in the arena. */
char *lab_token_text(const struct tokenizer *tokenizer, int32_t id, struct arena *arena, struct error *error) MUST_CHECK;

#endif
