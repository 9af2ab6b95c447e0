/* runner.h: what the runner of long jobs and the jobs themselves share. Private to core/lab/. */
#ifndef STEERD_CORE_LAB_RUNNER_H
#define STEERD_CORE_LAB_RUNNER_H

#include "core/archive.h"
#include "core/lab/lab_int.h"

/* How a running job talks to its runner. */
struct lab_running {
  struct lab *lab;
  int64_t id;
  bool (*stopping)(struct lab_running *running); /* somebody wants it to stop, cheaply asked */
  /* Reports progress: done of total units and what is going on (static text). Any frequency. */
  void (*report)(struct lab_running *running, int64_t done, int64_t total, const char *unit, const char *message);
  void (*figures)(struct lab_running *running, const struct lab_train_figures *figures); /* of a training; any frequency */
  void *runner;
};

/* Runs a stats job to its end: 0, or -1 with an error; ERROR_CANCELLED when `stopping` said so, its state then is in the
 * store. Parameters are those the job was created with. */
int stats_job_run(struct lab_running *running, const char *parameters, struct error *error) MUST_CHECK;

/* Whether a job that ended early could go on as things are: 0, or -1 with what is in the way. Cheap; under the caller's lease. */
int stats_job_check(struct lab *lab, const struct store_job *job, struct error *error) MUST_CHECK;
int eval_job_check(struct lab *lab, const struct store_job *job, struct error *error) MUST_CHECK;

/* Checks arguments against what is loaded and writes them as JSON text into the arena. */
const char *stats_job_parameters(struct lab *lab, const struct lab_stats_args *args, struct arena *arena,
                                 struct error *error) MUST_CHECK;

/* The same for a training (train.c). */
struct lab_train_args;
int train_job_run(struct lab_running *running, const char *parameters, struct error *error) MUST_CHECK;
int train_job_check(struct lab *lab, const struct store_job *job, struct error *error) MUST_CHECK;
/* Nothing queued or running but the job `id` (0: one that is still to be made) trains into the folder of these parameters: ERROR_CONFLICT. */
int train_job_claim(struct lab *lab, int64_t id, const char *parameters, struct error *error) MUST_CHECK;
const char *train_job_parameters(struct lab *lab, const struct lab_train_args *args, struct arena *arena, struct error *error) MUST_CHECK;

/* The same for a map (map_job.c). */
int map_job_run(struct lab_running *running, const char *parameters, struct error *error) MUST_CHECK;
int map_job_check(struct lab *lab, const struct store_job *job, struct error *error) MUST_CHECK;
const char *map_job_parameters(struct lab *lab, const struct lab_map_args *args, struct arena *arena, struct error *error) MUST_CHECK;

/* The same for an evaluation (eval.c). */
int eval_job_run(struct lab_running *running, const char *parameters, struct error *error) MUST_CHECK;
const char *eval_job_parameters(struct lab *lab, const struct lab_eval_args *args, struct arena *arena,
                                struct error *error) MUST_CHECK;

#endif
