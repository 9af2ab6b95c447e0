/* runner.c: long jobs, one after the other: a thread takes the oldest queued one from the store, runs it, records
 * how it ended. Progress is told to watchers at once and to the store with every checkpoint of the job.
 *
 * A stop of the daemon leaves the job `running` in the store; the next start queues it again. A cancel ends it. */
#include <stdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/lab/runner.h"
#include "core/training.h"

#define TELL_NS 200000000 /* watchers are woken at most five times a second */

struct lab_watch {
  struct lab_watch *next;
  struct lab_waker waker;
};

struct lab_runner {
  struct lab *lab;
  pthread_t thread;
  bool started;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool stop, cancel;          /* the daemon; the running job */
  int64_t current;            /* job id; 0: none */
  int64_t done, total, begin_done, begin_ns, told_ns;
  const char *unit, *message; /* static texts */
  bool trains;
  struct lab_train_figures training;
  int64_t owed; /* a job whose end the store did not take yet; 0: none */
  enum store_job_state owed_state;
  char owed_why[sizeof ((struct error *)0)->text]; /* "": it was cancelled or is done */
  struct lab_watch *watches;
  bool (*tell)(void *context, const struct lab_progress *progress); /* command line */
  void *tell_context;
};

/* ---- watchers ---- */

struct lab_watch *lab_watch(struct lab *lab, struct lab_waker waker) {
  struct lab_runner *runner = lab->runner;
  struct lab_watch *watch = runner ? calloc(1, sizeof *watch) : NULL;
  if (!watch) return NULL;
  watch->waker = waker;
  pthread_mutex_lock(&runner->mutex);
  watch->next = runner->watches;
  runner->watches = watch;
  pthread_mutex_unlock(&runner->mutex);
  return watch;
}

void lab_unwatch(struct lab *lab, struct lab_watch *watch) {
  if (!watch) return;
  struct lab_runner *runner = lab->runner;
  pthread_mutex_lock(&runner->mutex);
  for (struct lab_watch **at = &runner->watches; *at; at = &(*at)->next) {
    if (*at != watch) continue;
    *at = watch->next;
    break;
  }
  pthread_mutex_unlock(&runner->mutex);
  free(watch);
}

/* Under the mutex, so that lab_unwatch can promise silence. */
static void wake_watchers(struct lab_runner *runner) {
  for (struct lab_watch *watch = runner->watches; watch; watch = watch->next) watch->waker.wake(watch->waker.context);
}

/* ---- progress ---- */

static double rate_of(const struct lab_runner *runner) {
  double seconds = (double)(clock_ns() - runner->begin_ns) * 1e-9;
  return seconds > 0 ? (double)(runner->done - runner->begin_done) / seconds : 0;
}

/* Under the mutex: the running job's figures over what the store said last. */
static void overlay(const struct lab_runner *runner, struct lab_progress *progress) {
  progress->rate = 0;
  progress->seconds_left = -1;
  progress->trains = false;
  if (runner->current == 0 || runner->current != progress->job.id) return;
  progress->job.done = runner->done;
  progress->job.total = runner->total;
  progress->job.unit = runner->unit;
  progress->job.message = runner->message;
  progress->trains = runner->trains;
  progress->training = runner->training;
  progress->rate = rate_of(runner);
  if (progress->rate > 0 && runner->total > 0)
    progress->seconds_left = (double)(runner->total - runner->done) / progress->rate;
}

/* Under the mutex: how a job ended that the store still believes to run. */
static int overlay_owed(const struct lab_runner *runner, struct lab_progress *progress, struct arena *arena, struct error *error) {
  if (runner->owed == 0 || runner->owed != progress->job.id) return 0;
  progress->job.state = runner->owed_state;
  if (!runner->owed_why[0]) return 0;
  progress->job.error = arena_text(arena, runner->owed_why, strlen(runner->owed_why), error);
  return progress->job.error ? 0 : -1;
}

static bool tell_caller(struct lab_runner *runner, int64_t id) {
  struct lab_progress progress;
  memset(&progress, 0, sizeof progress);
  progress.job.id = id;
  progress.job.state = STORE_RUNNING;
  pthread_mutex_lock(&runner->mutex);
  overlay(runner, &progress);
  pthread_mutex_unlock(&runner->mutex);
  return runner->tell(runner->tell_context, &progress);
}

static bool stopping(struct lab_running *running) {
  struct lab_runner *runner = running->runner;
  pthread_mutex_lock(&runner->mutex);
  bool stop = runner->stop || runner->cancel;
  pthread_mutex_unlock(&runner->mutex);
  return stop;
}

static void report(struct lab_running *running, int64_t done, int64_t total, const char *unit, const char *message) {
  struct lab_runner *runner = running->runner;
  int64_t now = clock_ns();
  pthread_mutex_lock(&runner->mutex);
  if (runner->message != message) { /* a new phase has its own rate */
    runner->begin_ns = now;
    runner->begin_done = done;
    runner->told_ns = 0;
  }
  runner->done = done;
  runner->total = total;
  runner->unit = unit;
  runner->message = message;
  bool due = now - runner->told_ns >= TELL_NS;
  if (due) {
    runner->told_ns = now;
    wake_watchers(runner);
  }
  pthread_mutex_unlock(&runner->mutex);
  if (due && runner->tell && tell_caller(runner, running->id)) {
    pthread_mutex_lock(&runner->mutex);
    runner->stop = true;
    pthread_mutex_unlock(&runner->mutex);
  }
}

static void keep_figures(struct lab_running *running, const struct lab_train_figures *figures) {
  struct lab_runner *runner = running->runner;
  pthread_mutex_lock(&runner->mutex);
  runner->trains = true;
  runner->training = *figures;
  pthread_mutex_unlock(&runner->mutex);
}

/* ---- running one ---- */

static int set_state(struct lab_runner *runner, int64_t id, enum store_job_state state, const char *why,
                     struct error *error) {
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.state = (int)state;
  update.error = why;
  return store_job_update(runner->lab->store, id, &update, error);
}

/* The end of a job that a full disk kept out of the store, once more. The mutex is held. */
static int pay_owed(struct lab_runner *runner, struct error *error) {
  if (runner->owed == 0) return 0;
  if (set_state(runner, runner->owed, runner->owed_state, runner->owed_why[0] ? runner->owed_why : NULL, error) != 0) return -1;
  runner->owed = 0;
  return 0;
}

static bool owes(struct lab_runner *runner) {
  pthread_mutex_lock(&runner->mutex);
  bool failed = pay_owed(runner, NULL) != 0;
  pthread_mutex_unlock(&runner->mutex);
  return failed;
}

/* How a job ended, into the store; it is nobody's from here on. One that the daemon's stop interrupted, whatever it ran
 * into on the way (a draining engine refuses work), stays `running`: it goes on at the next start. The mutex is held
 * over both: who reads that a job has ended may resume it. */
static void end(struct lab_runner *runner, int64_t id, int failed, const struct error *why) {
  struct error error = ERROR_INIT;
  bool cancelled = failed && why->code == ERROR_CANCELLED;
  enum store_job_state state = !failed ? STORE_DONE : cancelled ? STORE_CANCELLED : STORE_FAILED;
  pthread_mutex_lock(&runner->mutex);
  bool interrupted = failed && runner->stop && !runner->cancel;
  if (!interrupted) {
    runner->owed = id;
    runner->owed_state = state;
    snprintf(runner->owed_why, sizeof runner->owed_why, "%s", failed && !cancelled ? why->text : "");
    if (pay_owed(runner, &error) != 0)
      log_error("the end of job %lld could not be recorded yet: %s", (long long)id, error.text);
  }
  runner->current = 0;
  wake_watchers(runner);
  pthread_mutex_unlock(&runner->mutex);
}

/* From the queue, in one step for whoever cancels or resumes it. ERROR_CANCELLED: it was cancelled since it was seen
 * there, and the store has its end. */
static int take(struct lab_runner *runner, const struct store_job *job, struct error *error) {
  pthread_mutex_lock(&runner->mutex);
  int failed = set_state(runner, job->id, STORE_RUNNING, NULL, error);
  if (failed && error->code == ERROR_ARGUMENT) error->code = ERROR_CANCELLED;
  if (!failed) runner->current = job->id;
  runner->cancel = runner->trains = false;
  runner->done = job->done; /* where it was left */
  runner->total = job->total;
  runner->unit = runner->message = NULL;
  pthread_mutex_unlock(&runner->mutex);
  return failed;
}

/* What this version can do. */
static const struct job_kind {
  const char *word;
  int (*run)(struct lab_running *running, const char *parameters, struct error *error);
  int (*check)(struct lab *lab, const struct store_job *job, struct error *error);
  /* Whether it gets in the way of no other job that is queued or runs, under the runner's mutex; NULL: none does. */
  int (*claim)(struct lab *lab, int64_t id, const char *parameters, struct error *error);
  const char *unit; /* that it counts in, before it says so itself */
} kinds[] = {{"stats", stats_job_run, stats_job_check, NULL, "tokens"}, {"eval", eval_job_run, eval_job_check, NULL, "tokens"},
             {"train", train_job_run, train_job_check, train_job_claim, "steps"}, {"map", map_job_run, map_job_check, NULL, "features"}};

static const struct job_kind *find_kind(const char *word, struct error *error) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i].word, word) == 0) return &kinds[i];
  error_set(error, ERROR_UNSUPPORTED, "jobs of kind '%s' are not run by this version", word);
  return NULL;
}

static const char *first_unit(const char *word) {
  const struct job_kind *kind = find_kind(word, NULL);
  return kind ? kind->unit : NULL;
}

static int run_job(struct lab_runner *runner, const struct store_job *job, struct error *error) {
  struct lab_running running = {.lab = runner->lab, .id = job->id, .stopping = stopping, .report = report,
                                .figures = keep_figures, .runner = runner};
  if (take(runner, job, error) != 0) return -1;
  const struct job_kind *kind = find_kind(job->kind, error);
  int failed = kind ? kind->run(&running, job->parameters, error) : -1;
  end(runner, job->id, failed, error);
  return failed;
}

/* ---- the thread ---- */

/* The oldest queued job; false when there is none. */
static bool next_job(struct lab_runner *runner, struct arena *arena, struct store_job *out) {
  struct store_job *jobs;
  size_t n = 0;
  struct error error = ERROR_INIT;
  if (store_job_list(runner->lab->store, STORE_QUEUED, NULL, 0, 1000, arena, &jobs, &n, &error) != 0)
    log_error("queued jobs could not be read: %s", error.text);
  if (n) *out = jobs[n - 1]; /* newest first */
  return n > 0;
}

static void *runner_main(void *argument) {
  struct lab_runner *runner = argument;
  for (;;) {
    struct arena arena;
    struct store_job job;
    struct error error = ERROR_INIT;
    arena_init(&arena, 0);
    pthread_mutex_lock(&runner->mutex);
    bool stop = runner->stop;
    pthread_mutex_unlock(&runner->mutex);
    bool idle = stop || owes(runner) || !next_job(runner, &arena, &job);
    if (!idle && run_job(runner, &job, &error) != 0 && error.code != ERROR_CANCELLED) {
      log_error("job %lld failed: %s", (long long)job.id, error.text);
      idle = true; /* a store that takes no end has the same job on top: not in a tight loop */
    }
    arena_clear(&arena);
    pthread_mutex_lock(&runner->mutex);
    /* A job made since next_job looked would have signalled: look again at least once a second. */
    if (idle && !runner->stop) {
      struct timespec until;
      clock_gettime(CLOCK_REALTIME, &until);
      until.tv_sec++;
      pthread_cond_timedwait(&runner->changed, &runner->mutex, &until);
    }
    stop = runner->stop;
    pthread_mutex_unlock(&runner->mutex);
    if (stop) return NULL;
  }
}

/* Jobs that were running when an earlier process ended. */
static int requeue(struct lab *lab, struct error *error) {
  struct arena arena;
  struct store_job *jobs;
  size_t n = 0;
  arena_init(&arena, 0);
  int failed = store_job_list(lab->store, STORE_RUNNING, NULL, 0, 1000, &arena, &jobs, &n, error);
  for (size_t i = 0; !failed && i < n; i++) failed = store_job_resume(lab->store, jobs[i].id, error);
  arena_clear(&arena);
  return failed;
}

int runner_open_jobs(struct lab *lab, bool start, struct error *error) {
  if (!lab->store) return 0;
  struct lab_runner *runner = calloc(1, sizeof *runner);
  if (!runner) return error_memory(error, sizeof *runner);
  runner->lab = lab;
  pthread_mutex_init(&runner->mutex, NULL);
  pthread_cond_init(&runner->changed, NULL);
  lab->runner = runner;
  if (!start) return 0;
  if (requeue(lab, error) != 0) return -1;
  if (pthread_create(&runner->thread, NULL, runner_main, runner) != 0)
    return error_set(error, ERROR_IO, "the thread of long jobs could not be started");
  runner->started = true;
  return 0;
}

void runner_stop_jobs(struct lab *lab) {
  struct lab_runner *runner = lab->runner;
  if (!runner) return;
  pthread_mutex_lock(&runner->mutex);
  runner->stop = true;
  pthread_cond_signal(&runner->changed);
  pthread_mutex_unlock(&runner->mutex);
}

void runner_close_jobs(struct lab *lab) {
  struct lab_runner *runner = lab->runner;
  if (!runner) return;
  runner_stop_jobs(lab);
  if (runner->started) pthread_join(runner->thread, NULL);
  pthread_cond_destroy(&runner->changed);
  pthread_mutex_destroy(&runner->mutex);
  free(runner);
  lab->runner = NULL;
}

/* ---- verbs ---- */

/* There is another job: the runner looks, and so do watchers. The mutex is held. */
static void nudge(struct lab_runner *runner) {
  pthread_cond_signal(&runner->changed);
  wake_watchers(runner);
}

static int tell_running(int64_t id, struct error *error) {
  return error_set_field(error, ERROR_CONFLICT, "id", "job %lld is running: there is nothing to resume", (long long)id);
}

/* A new job (*id 0), or one that ended early, into the queue: no two at once that get in each other's way. */
static int enqueue(struct lab *lab, const char *word, const char *parameters, int64_t *id, struct error *error) {
  const struct job_kind *kind = find_kind(word, error);
  if (!kind) return -1;
  pthread_mutex_lock(&lab->runner->mutex);
  int failed = *id && lab->runner->current == *id ? tell_running(*id, error) : kind->claim ? kind->claim(lab, *id, parameters, error) : 0;
  if (!failed) failed = *id ? store_job_resume(lab->store, *id, error) : store_job_create(lab->store, word, parameters, id, error);
  if (!failed) nudge(lab->runner);
  pthread_mutex_unlock(&lab->runner->mutex);
  return failed;
}

int lab_stats_start(struct lab *lab, const struct lab_stats_args *args, int64_t *id, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  struct arena arena;
  arena_init(&arena, 0);
  const char *parameters = stats_job_parameters(lab, args, &arena, error);
  *id = 0;
  int failed = parameters ? enqueue(lab, "stats", parameters, id, error) : -1;
  arena_clear(&arena);
  return failed;
}

int lab_eval_start(struct lab *lab, const struct lab_eval_args *args, int64_t *id, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  struct arena arena;
  arena_init(&arena, 0);
  const char *parameters = eval_job_parameters(lab, args, &arena, error);
  *id = 0;
  int failed = parameters ? enqueue(lab, "eval", parameters, id, error) : -1;
  arena_clear(&arena);
  return failed;
}

int lab_train_start(struct lab *lab, const struct lab_train_args *args, int64_t *id, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  struct arena arena;
  arena_init(&arena, 0);
  const char *parameters = train_job_parameters(lab, args, &arena, error);
  *id = 0;
  int failed = parameters ? enqueue(lab, "train", parameters, id, error) : -1;
  arena_clear(&arena);
  return failed;
}

int lab_map_start(struct lab *lab, const struct lab_map_args *args, int64_t *id, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  struct arena arena;
  arena_init(&arena, 0);
  const char *parameters = map_job_parameters(lab, args, &arena, error);
  *id = 0;
  int failed = parameters ? enqueue(lab, "map", parameters, id, error) : -1;
  arena_clear(&arena);
  return failed;
}

/* Whether a job that ended early could go on, with a lease of its own: whoever follows a job for hours has none. */
static int check_resume(struct lab *lab, const struct store_job *job, struct error *error) {
  struct lab_lease lease;
  const struct job_kind *kind = find_kind(job->kind, error);
  if (!kind) return -1;
  lab_lease_begin(lab, &lease);
  int failed = kind->check(lab, job, error);
  lab_lease_end(lab, &lease);
  return failed;
}

static bool ended_early(const struct store_job *job) { return job->state == STORE_FAILED || job->state == STORE_CANCELLED; }

/* Why a job cannot be resumed, into the arena; NULL there: it can. And what it counts in. */
static int tell_rest(struct lab *lab, struct lab_progress *progress, struct arena *arena, struct error *error) {
  struct error why = ERROR_INIT;
  const struct store_job *job = &progress->job;
  progress->refusal = NULL;
  if (!job->unit) progress->job.unit = first_unit(job->kind);
  if (ended_early(job) && check_resume(lab, job, &why) == 0) return 0;
  if (ended_early(job))
    progress->refusal = arena_text(arena, why.text, strlen(why.text), error);
  else
    progress->refusal = arena_printf(arena, error, "it is %s%s", store_job_word(job->state),
                                     job->state == STORE_DONE ? ": start a new one" : "");
  return progress->refusal ? 0 : -1;
}

/* An unfinished job of this kind with these parameters, queued again; 0 when there is none. One that failed is left behind:
 * its state may be what it failed on (a text that has changed), and a new one costs no more than time. */
static int find_unfinished(struct lab *lab, const char *word, const char *parameters, int64_t *id, struct error *error) {
  struct arena arena;
  struct store_job *jobs;
  size_t n = 0;
  *id = 0;
  arena_init(&arena, 0);
  int failed = store_job_list(lab->store, -1, word, 0, 1000, &arena, &jobs, &n, error);
  for (size_t i = 0; !failed && !*id && i < n; i++)
    if (jobs[i].state != STORE_DONE && jobs[i].state != STORE_FAILED && strcmp(jobs[i].parameters, parameters) == 0)
      *id = jobs[i].id;
  if (*id) failed = store_job_resume(lab->store, *id, error);
  arena_clear(&arena);
  return failed;
}

typedef bool (*tell_progress)(void *context, const struct lab_progress *progress);

static int run_here(struct lab *lab, const char *word, const char *parameters, tell_progress tell, void *context, struct error *error) {
  struct arena arena;
  struct store_job job;
  int64_t id;
  lab->runner->tell = tell;
  lab->runner->tell_context = context;
  if (find_unfinished(lab, word, parameters, &id, error) != 0) return -1;
  if (!id && store_job_create(lab->store, word, parameters, &id, error) != 0) return -1;
  arena_init(&arena, 0);
  int failed = store_job_find(lab->store, id, &arena, &job, error) == 1 ? run_job(lab->runner, &job, error) : -1;
  arena_clear(&arena);
  return failed;
}

int lab_stats_run(struct lab *lab, const struct lab_stats_args *args, tell_progress tell, void *context, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  struct arena arena;
  arena_init(&arena, 0);
  const char *parameters = stats_job_parameters(lab, args, &arena, error);
  int failed = parameters ? run_here(lab, "stats", parameters, tell, context, error) : -1;
  arena_clear(&arena);
  return failed;
}

int lab_map_run(struct lab *lab, const struct lab_map_args *args, tell_progress tell, void *context, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  struct arena arena;
  arena_init(&arena, 0);
  const char *parameters = map_job_parameters(lab, args, &arena, error);
  int failed = parameters ? run_here(lab, "map", parameters, tell, context, error) : -1;
  arena_clear(&arena);
  return failed;
}

int lab_long_job(struct lab *lab, int64_t id, struct arena *arena, struct lab_progress *out, struct error *error) {
  int found = lab->store ? store_job_find(lab->store, id, arena, &out->job, error) : 0;
  if (found < 0) return -1;
  if (!found) return error_set_field(error, ERROR_NOT_FOUND, "id", "there is no job %lld", (long long)id);
  pthread_mutex_lock(&lab->runner->mutex);
  overlay(lab->runner, out);
  int failed = overlay_owed(lab->runner, out, arena, error);
  pthread_mutex_unlock(&lab->runner->mutex);
  if (failed) return -1;
  return tell_rest(lab, out, arena, error);
}

int lab_long_jobs(struct lab *lab, struct arena *arena, struct lab_progress **out, size_t *n, struct error *error) {
  struct store_job *jobs;
  *out = NULL;
  *n = 0;
  if (!lab->store) return 0;
  if (store_job_list(lab->store, -1, NULL, 0, 100, arena, &jobs, n, error) != 0) return -1;
  *out = arena_array(arena, *n, sizeof **out, error);
  if (!*out) return -1;
  int failed = 0;
  pthread_mutex_lock(&lab->runner->mutex);
  for (size_t i = 0; !failed && i < *n; i++) {
    (*out)[i].job = jobs[i];
    overlay(lab->runner, &(*out)[i]);
    failed = overlay_owed(lab->runner, &(*out)[i], arena, error);
  }
  pthread_mutex_unlock(&lab->runner->mutex);
  if (failed) return -1;
  for (size_t i = 0; i < *n; i++)
    if (tell_rest(lab, &(*out)[i], arena, error) != 0) return -1;
  return 0;
}

int lab_long_job_cancel(struct lab *lab, int64_t id, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  if (store_job_cancel(lab->store, id, error) < 0) return -1;
  pthread_mutex_lock(&lab->runner->mutex);
  if (lab->runner->current == id) lab->runner->cancel = true;
  wake_watchers(lab->runner);
  pthread_mutex_unlock(&lab->runner->mutex);
  return 0;
}

/* Only what ended early can go on, and not what can only fail again. One that is queued is where it was to come to. */
static int check_resumable(struct lab *lab, const struct store_job *job, struct error *error) {
  struct error why = ERROR_INIT;
  if (job->state == STORE_RUNNING) return tell_running(job->id, error);
  if (job->state == STORE_DONE)
    return error_set_field(error, ERROR_CONFLICT, "id", "job %lld is done: start a new one", (long long)job->id);
  if (job->state == STORE_QUEUED || check_resume(lab, job, &why) == 0) return 0;
  return error_set_field(error, ERROR_CONFLICT, "id", "job %lld cannot be resumed: %s", (long long)job->id, why.text);
}

int lab_long_job_resume(struct lab *lab, int64_t id, struct error *error) {
  if (!lab->store) return lab_needs_store(error);
  pthread_mutex_lock(&lab->runner->mutex);
  int owed = pay_owed(lab->runner, error);
  pthread_mutex_unlock(&lab->runner->mutex);
  if (owed) return -1;
  struct arena arena;
  struct store_job job;
  arena_init(&arena, 0);
  int found = store_job_find(lab->store, id, &arena, &job, error);
  int failed = found > 0   ? check_resumable(lab, &job, error)
               : found < 0 ? -1
                           : error_set_field(error, ERROR_NOT_FOUND, "id", "there is no job %lld", (long long)id);
  if (!failed) failed = enqueue(lab, job.kind, job.parameters, &id, error);
  arena_clear(&arena);
  return failed;
}
