/* train.c: the training job: a text through the engine's background into a trainer, a state in the folder now and then that a killed
 * process goes on from, the dictionary at the end. Owns the order of things; what a run is to be stands in train_plan.c. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/lab/caller.h"
#include "core/lab/sources.h"
#include "core/lab/train.h"
#include "core/model/points.h"

#define CHECKPOINT_NS 20000000000
#define CHECKPOINT_SHARE 20 /* keeping a state takes a twentieth of the time at most */
#define BESIDE_OTHERS 19    /* niceness of threads that work beside a daemon's */
#define IN_VAIN "what it was given cannot be trained on" /* message of a job that failed and would again */

struct train_job {
  struct lab *lab;
  struct lab_running *running;
  struct train_plan plan;
  struct train_hold hold;
  const char *name; /* of the folder, as the client said it */
  int64_t was_done, was_total; /* steps, as the job's row tells of them */
  struct trainer *trainer;
  struct feed *feed;
  float *batch[FEED_POINTS];
  struct lab_train_figures figures;
  int64_t kept_ns, keeping_ns; /* when the state was kept; how long that took */
  struct lab_train_found found;
  struct error error;
  bool failed;
};

static bool stopping(void *context) {
  const struct train_job *job = context;
  return job->running->stopping(job->running);
}

static void report(const struct train_job *job, const char *message) {
  job->running->report(job->running, trainer_steps(job->trainer), job->plan.options.steps, "steps", message);
}

/* ---- the folder of a job ---- */

static bool is_name(const char *text) {
  size_t n = text ? strlen(text) : 0, fine = text ? strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") : 0;
  return n > 0 && n <= 100 && n == fine && text[0] != '.';
}

const char *lab_train_refusal(const struct lab *lab) {
  if (lab->train_folder) return NULL;
  if (lab->options.train_folder) return "the folder for dictionaries that this server trains, the first of the setting 'source_folders', is not there: "
                                        "make it, then start the server again";
  return "this server has no folder for dictionaries that it trains: the setting 'source_folders' (--source-folders FOLDER) names one";
}

/* A client names no path: a name in the folder that the settings give. */
static int place_out(const struct lab *lab, const char *name, char out[TRAIN_PATH_BYTES], struct error *error) {
  const char *refusal = lab_train_refusal(lab);
  if (refusal) return error_set_field(error, ERROR_UNSUPPORTED, "out", "%s", refusal);
  if (!is_name(name))
    return error_set_field(error, ERROR_ARGUMENT, "out",
                           "out '%.100s' is not a name of 1 to 100 letters, digits, '.', '_' and '-', the first of them not a '.'", name ? name : "");
  if (snprintf(out, TRAIN_PATH_BYTES, "%s/%s", lab->train_folder, name) < TRAIN_PATH_BYTES) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "out", "the path of '%s' is too long", name);
}

/* `out` of the parameters of a job. */
static bool writes_to(const struct store_job *row, const char *out) {
  struct error ignored = ERROR_INIT;
  struct json_node *node = json_parse(row->parameters, strlen(row->parameters), 8, &ignored);
  bool same = node && !strcmp(json_text_or(json_get(node, "out"), ""), out);
  json_free(node);
  return same;
}

static int check_rows(const struct lab *lab, enum store_job_state state, const char *out, int64_t id, struct error *error) {
  struct arena arena;
  struct store_job *rows;
  size_t n = 0;
  arena_init(&arena, 0);
  int failed = store_job_list(lab->store, (int)state, "train", 0, STORE_JOB_PAGE, &arena, &rows, &n, error);
  for (size_t i = 0; !failed && i < n; i++)
    if (rows[i].id != id && writes_to(&rows[i], out))
      failed = error_set_field(error, ERROR_CONFLICT, "out", "job %lld is %s and trains into '%.100s' too: wait for it, cancel it, or name another folder",
                               (long long)rows[i].id, store_job_word(state), out);
  arena_clear(&arena);
  return failed;
}

static int check_jobs(const struct lab *lab, const char *out, int64_t id, struct error *error) {
  return check_rows(lab, STORE_RUNNING, out, id, error) != 0 || check_rows(lab, STORE_QUEUED, out, id, error) != 0 ? -1 : 0;
}

/* The folder as it is: nobody but the job `id` trains into it, and what was begun there was begun so. */
static int check_out(const struct lab *lab, const struct train_plan *plan, int64_t id, struct error *error) {
  struct train_plan placed = *plan;
  char folder[TRAIN_PATH_BYTES];
  placed.args.out = folder;
  return place_out(lab, plan->args.out, folder, error) != 0 || check_jobs(lab, plan->args.out, id, error) != 0 ||
                 train_folder_check(folder, error) != 0 || train_state_check(&placed, error) != 0
             ? -1
             : 0;
}

const char *train_job_parameters(struct lab *lab, const struct lab_train_args *args, struct arena *arena, struct error *error) {
  struct train_plan plan;
  struct lab_train_args told;
  if (train_plan_make(lab, args, &plan, error) != 0 || check_out(lab, &plan, 0, error) != 0) return NULL;
  train_plan_tell(&plan, &told);
  return train_args_write(&told, arena, error);
}

int train_job_check(struct lab *lab, const struct store_job *row, struct error *error) {
  struct lab_train_args args;
  struct train_plan plan;
  if (row->state == STORE_FAILED && row->message && !strcmp(row->message, IN_VAIN))
    return error_set(error, ERROR_CONFLICT, "it would fail again on the same: start a new one once that is mended");
  struct json_node *node = json_parse(row->parameters, strlen(row->parameters), 8, error);
  if (!node) return error_prefix(error, "the job's parameters");
  train_args_read(node, &args);
  int failed = train_plan_make(lab, &args, &plan, error) != 0 || check_out(lab, &plan, row->id, error) != 0;
  json_free(node);
  return failed ? -1 : 0;
}

int train_job_claim(struct lab *lab, int64_t id, const char *parameters, struct error *error) {
  struct json_node *node = json_parse(parameters, strlen(parameters), 8, error);
  if (!node) return error_prefix(error, "the job's parameters");
  int failed = check_jobs(lab, json_text_or(json_get(node, "out"), ""), id, error);
  json_free(node);
  return failed;
}

/* ---- states ---- */

/* Where it goes on from, for whoever looks at a job that does not run. */
static int note_steps(const struct train_job *job, struct error *error) {
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  if (!job->running->id) return 0;
  update.done = trainer_steps(job->trainer);
  update.total = job->plan.options.steps;
  update.unit = "steps";
  update.message = "training";
  return store_job_update(job->lab->store, job->running->id, &update, error);
}

static int keep(struct train_job *job, struct error *error) {
  struct feed_state state;
  int64_t begin = clock_ns();
  feed_state(job->feed, &state);
  int failed = train_state_keep(&job->plan, job->trainer, &state, error);
  if (!failed) failed = note_steps(job, error);
  job->kept_ns = clock_ns();
  job->keeping_ns = job->kept_ns - begin;
  return failed;
}

static bool is_due(const struct train_job *job) {
  double asked = job->plan.args.checkpoint;
  int64_t since = clock_ns() - job->kept_ns, own = (int64_t)job->lab->options.checkpoint_ms * 1000000;
  int64_t least = asked >= 0 ? (int64_t)(asked * 1e9) : own ? own : CHECKPOINT_NS;
  return since >= least && since >= CHECKPOINT_SHARE * job->keeping_ns;
}

/* What it has come to is kept; who asks again goes on from there. Before its first step it has come to nothing. */
static int stopped(struct train_job *job, struct error *error) {
  int64_t steps = job->trainer ? trainer_steps(job->trainer) : 0;
  error_clear(error);
  if (steps == 0 && train_state_is_there(job->plan.args.out))
    return error_set(error, ERROR_CANCELLED, "stopped before it went on: '%.200s' still holds what was kept there", job->plan.args.out);
  if (steps == 0)
    return error_set(error, ERROR_CANCELLED, "stopped before the first step: there was nothing to keep, and the same training begins anew");
  if (keep(job, error) != 0) return -1;
  return error_set(error, ERROR_CANCELLED, "stopped at step %lld of %lld, which is kept in '%.200s': %s", (long long)steps,
                   (long long)job->plan.options.steps, job->plan.args.out, job->running->id ? "it can be resumed" : "the same command goes on from there");
}

/* ---- running ---- */

static int open_corpus(struct train_job *job, struct error *error) {
  struct train_plan *plan = &job->plan;
  struct corpus_options options = {.lines = plan->args.lines, .context = plan->context, .bos = plan->bos, .max_tokens = plan->args.max_tokens,
                                   .stop = stopping, .stop_context = job};
  job->running->report(job->running, job->was_done, job->was_total, "steps", "reading the text");
  plan->corpus = corpus_open(plan->args.corpus, plan->opened->model->tokenizer, &options, error);
  return plan->corpus ? train_plan_settle(plan, error) : -1;
}

static void on_rows(void *context, int64_t rows, int64_t total) {
  const struct train_job *job = context;
  (void)rows;
  (void)total;
  report(job, "training");
}

static int make_batches(struct train_job *job, struct error *error) {
  const struct train_options *o = &job->plan.options;
  const int64_t widths[FEED_POINTS] = {o->width, o->width_out};
  for (int i = 0; i < job->plan.n_points; i++) {
    size_t bytes = (size_t)o->batch * (size_t)widths[i] * sizeof(float);
    if (!(job->batch[i] = malloc(bytes))) return error_memory(error, bytes);
  }
  return 0;
}

/* The first rows tell where the text's activations lie. */
static int begin_training(struct train_job *job, struct error *error) {
  const struct train_options *o = &job->plan.options;
  struct feed_options feed = train_plan_feed(job->lab, &job->plan);
  struct feed_state state = {0, 0, 0};
  const float *rows[FEED_POINTS];
  feed.stop = stopping;
  feed.context = job;
  feed.progress = on_rows;
  job->trainer = trainer_new(o, "cpu", job->lab->threads, error);
  if (!job->trainer || make_batches(job, error) != 0) return -1;
  int found = train_state_find(&job->plan, job->trainer, &state, error);
  if (found < 0 || !(job->feed = feed_new(&feed, &state, error))) return -1;
  report(job, "training");
  if (found) return 0;
  if (feed_rows(job->feed, rows, error) != 0) return -1;
  return trainer_begin(job->trainer, rows[0], rows[1], o->batch * job->plan.buffer_batches, error);
}

static void tell_step(struct train_job *job, const struct train_figures *now) {
  job->figures = (struct lab_train_figures){now->mse, now->sparsity, now->aux, now->l0, now->explained, now->dead, job->plan.options.n_feat,
                                            trainer_steps(job->trainer) * job->plan.options.batch};
  job->running->figures(job->running, &job->figures);
  report(job, "training");
}

static int train(struct train_job *job, struct error *error) {
  struct train_figures figures;
  job->kept_ns = clock_ns();
  while (trainer_steps(job->trainer) < job->plan.options.steps) {
    if (stopping(job)) return error_set(error, ERROR_CANCELLED, "stopped between two steps");
    if (feed_batch(job->feed, job->batch, error) != 0) return -1;
    if (trainer_step(job->trainer, job->batch[0], job->batch[1], &figures, error) != 0) return -1;
    tell_step(job, &figures);
    if (is_due(job) && keep(job, error) != 0) return -1;
  }
  return 0;
}

static int store_result(const struct train_job *job, struct error *error) {
  const struct lab_train_found *found = &job->found;
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  jw_member_text(&w, "path", job->name);
  jw_member_int(&w, "layer", found->layer);
  jw_member_int(&w, "features", found->features);
  jw_member_int(&w, "tokens", found->tokens);
  jw_member_int(&w, "heldOutTokens", found->held_out);
  jw_member_f64(&w, "l0", found->l0);
  jw_member_f64(&w, "mse", found->mse);
  jw_member_f64(&w, "explainedVariance", found->explained);
  jw_member_int(&w, "dead", found->dead);
  jw_close(&w, '}');
  update.done = update.total = found->steps;
  update.unit = "steps";
  update.message = "trained";
  update.result = text.data;
  int failed = buffer_check(&text, error);
  if (!failed) failed = store_job_update(job->lab->store, job->running->id, &update, error);
  buffer_clear(&text);
  return failed;
}

/* Once the dictionary is there whole, and the job knows, nothing is left to go on from. */
static int finish(struct train_job *job, struct error *error) {
  struct train_plan *plan = &job->plan;
  char name[POINT_NAME_BYTES], made[POINT_NAME_BYTES];
  const char *slash = strrchr(plan->args.corpus, '/');
  struct train_about about = {.model = plan->args.model_id, .hook = point_name(plan->points[0], name),
                              .hook_out = plan->n_points > 1 ? point_name(plan->points[1], made) : NULL,
                              .dataset = slash ? slash + 1 : plan->args.corpus, .context = plan->context, .prepend_bos = plan->bos,
                              .heads = plan->heads, .processed = plan->opened->model->processed, .l0 = (double)NAN,
                              .explained = (double)NAN};
  report(job, "writing the dictionary");
  if (keep(job, error) != 0 || trainer_write(job->trainer, plan->args.out, &about, error) != 0) return -1;
  job->found = (struct lab_train_found){.layer = plan->points[0].layer, .width = plan->options.width, .features = plan->options.n_feat,
                                        .steps = plan->options.steps, .tokens = plan->options.steps * plan->options.batch};
  report(job, "held-out text");
  if (train_judge(job->lab, plan, &job->found, error) != 0) return -1;
  about.l0 = job->found.l0;
  about.explained = job->found.explained;
  if (trainer_describe(job->trainer, plan->args.out, &about, error) != 0 || (job->running->id && store_result(job, error) != 0)) return -1;
  train_state_drop(plan->args.out);
  return 0;
}

static int run_held(struct train_job *job, struct error *error) {
  if (open_corpus(job, error) != 0 || begin_training(job, error) != 0) return -1;
  return train(job, error);
}

/* Whatever it is doing when somebody stops it, it ends in one way. */
static int run_all(struct train_job *job, struct error *error) {
  const char *out = job->plan.args.out;
  if (train_folder_hold(out, &job->hold, error) != 0) return -1;
  int failed = run_held(job, error);
  if (failed && error->code == ERROR_CANCELLED) failed = stopped(job, error);
  if (!failed) failed = finish(job, error);
  train_folder_release(out, &job->hold);
  return failed;
}

/* Threads that it starts have its niceness: beside a daemon they give way to whoever is served. */
static void *train_main(void *context) {
  struct train_job *job = context;
  if (job->lab->options.run_jobs && setpriority(PRIO_PROCESS, 0, BESIDE_OTHERS) != 0) log_warn("training runs at the priority of what is served");
  job->failed = run_all(job, &job->error) != 0;
  feed_free(job->feed);
  trainer_free(job->trainer);
  corpus_close(job->plan.corpus);
  for (int i = 0; i < FEED_POINTS; i++) free(job->batch[i]);
  return NULL;
}

/* In a thread of its own, since niceness cannot be taken back. */
static int run(struct train_job *job, struct error *error) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, train_main, job) != 0) return error_set(error, ERROR_IO, "the thread of the training could not be started");
  pthread_join(thread, NULL);
  if (!job->failed) return 0;
  return error_set_field(error, job->error.code, job->error.field, "%s", job->error.text);
}

/* ---- as a job ---- */

/* 1: it was through when the process died. */
static int look_at_row(struct train_job *job, struct error *error) {
  struct arena arena;
  struct store_job row;
  arena_init(&arena, 0);
  int found = store_job_find(job->lab->store, job->running->id, &arena, &row, error);
  int through = found > 0 ? row.result != NULL : found;
  job->was_done = found > 0 ? row.done : 0;
  job->was_total = found > 0 ? row.total : 0;
  arena_clear(&arena);
  return through;
}

/* A text that is too short, a state that is damaged, a loss that is no number: as long as the job is the same, so is its end. */
static int note_failure(const struct lab_running *running, struct error *error) {
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  struct error ignored = ERROR_INIT;
  update.message = IN_VAIN;
  bool vain = error->code == ERROR_ARGUMENT || error->code == ERROR_FORMAT;
  if (vain && store_job_update(running->lab->store, running->id, &update, &ignored) != 0) log_warn("job %lld: %s", (long long)running->id, ignored.text);
  return -1;
}

int train_job_run(struct lab_running *running, const char *parameters, struct error *error) {
  struct lab_train_args args;
  char folder[TRAIN_PATH_BYTES];
  struct json_node *node = json_parse(parameters, strlen(parameters), 8, error);
  if (!node) return error_prefix(error, "the job's parameters");
  struct train_job *job = calloc(1, sizeof *job);
  train_args_read(node, &args);
  const char *name = args.out;
  int failed = job ? place_out(running->lab, args.out, folder, error) : error_memory(error, sizeof *job);
  if (!failed) {
    args.out = folder;
    job->name = name;
    job->lab = running->lab;
    job->running = running;
    failed = look_at_row(job, error);
  }
  if (!failed) failed = train_plan_make(running->lab, &args, &job->plan, error) != 0 || run(job, error) != 0 ? note_failure(running, error) : 0;
  free(job);
  json_free(node);
  return failed < 0 ? -1 : 0;
}

/* ---- in the calling thread ---- */

static int tell_found(const struct train_job *job, struct arena *arena, struct lab_train_found *out, struct error *error) {
  const struct train_plan *plan = &job->plan;
  char name[POINT_NAME_BYTES], made[POINT_NAME_BYTES];
  *out = job->found;
  point_name(plan->points[0], name);
  if (plan->n_points > 1) point_name(plan->points[1], made);
  out->folder = arena_text(arena, plan->args.out, strlen(plan->args.out), error);
  out->point = arena_text(arena, name, strlen(name), error);
  out->to = plan->n_points > 1 ? arena_text(arena, made, strlen(made), error) : NULL;
  return out->folder && out->point && (out->to || plan->n_points == 1) ? 0 : -1;
}

int lab_train_run(struct lab *lab, const struct lab_train_args *args, bool (*tell)(void *context, const struct lab_progress *progress),
                  void *context, struct arena *arena, struct lab_train_found *out, struct error *error) {
  struct lab_caller caller = {.kind = "train", .tell = tell, .context = context};
  struct lab_running running = caller_running(lab, &caller);
  struct train_job *job = calloc(1, sizeof *job);
  if (!job) return error_memory(error, sizeof *job);
  job->lab = lab;
  job->running = &running;
  int failed = train_plan_make(lab, args, &job->plan, error) != 0 || run(job, error) != 0 || tell_found(job, arena, out, error) != 0;
  free(job);
  return failed ? -1 : 0;
}
