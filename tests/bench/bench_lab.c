/* bench_lab: what edits, taps and the patching matrix cost on a whole model.
 *
 *   bench_lab FOLDER        a GPT-2-family folder (make bench generates a GPT-2-small-shaped one)
 *
 * Patching: the matrix of 12 layers x 16 positions of a text of 16 tokens as one request, beside the plain loop: one full run
 * of the text per cell, one after the other, each with its row put in (what a notebook does). Both are timed from request to
 * result; the rows of the plain loop are there beforehand.
 *
 * Decode: streams that generate together, with edits and taps live at every position, beside the same streams without. What is
 * looked for is a few parts in a thousand, which a machine that others use shows only to a paired measurement: the same weights are
 * served as two models, of which the worker runs a step each in turn, so that every step with edits stands beside one
 * without, milliseconds away; processor time of the worker's thread leaves out what others take from it. Which of the two comes
 * first changes from round to round. Printed is the median of the pairs' differences, with the interval that holds the true
 * median in 95 of 100 cases (order statistics, no assumption about the noise). The first row of each kind compares nothing with
 * nothing: its interval is what the method can tell. Where that is not fine enough, sixteen times as many edits are measured and
 * told for one part of them ("per"): what an edit costs is its row's arithmetic, its vectors' way through the caches and its place in the
 * step's tables, and none of these has a part in common. STEERD_BENCH_PAIRS asks for more pairs than usual, STEERD_BENCH_ROWS for the
 * rows alone whose names hold it. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "core/base/log.h"
#include "core/engine/engine.h"
#include "core/laboratory.h"
#include "tests/bench/limits.h"
#include "tests/unit/lab_waiter.h"

#define PAIRS 96      /* unless STEERD_BENCH_PAIRS says otherwise */
#define NEW_TOKENS 24 /* of each stream in a round */
#define STREAMS 16
#define TOKENS 16
#define PROMPT 2

static void fail(const struct error *error) {
  fprintf(stderr, "bench_lab: %s\n", error->text);
  exit(1);
}

static void check(int failed, const struct error *error) {
  if (failed) fail(error);
}

static void must_end(struct lab_job *job) {
  struct error error;
  if (wait_for(job) == LAB_JOB_DONE) return;
  lab_job_error(job, &error);
  fail(&error);
}

/* Of the calling thread. */
static double processor_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double best(const double *values, int n) {
  double least = values[0];
  for (int i = 1; i < n; i++)
    if (values[i] < least) least = values[i];
  return least;
}

/* ---- the patching matrix ---- */

static double matrix(struct lab *lab, const struct lab_model_info *model, const int64_t *clean, const int64_t *corrupted) {
  static const int64_t answers[2] = {10, 20};
  struct error error = ERROR_INIT;
  struct lab_job *job;
  struct lab_patch_args args = {.model = model, .clean = {.ids = clean, .n_ids = TOKENS},
                                .corrupted = {.ids = corrupted, .n_ids = TOKENS}, .point = "resid_pre",
                                .answers = {{.ids = answers, .n_ids = 1}, {.ids = answers + 1, .n_ids = 1}}};
  int64_t from = clock_ns();
  check(lab_patch(lab, &args, waker, &job, &error), &error);
  must_end(job);
  double seconds = limits_seconds(from);
  lab_job_free(job);
  return seconds;
}

static double loop(struct lab *lab, const struct lab_model_info *model, const int64_t *corrupted, const float *row) {
  struct error error = ERROR_INIT;
  int64_t last = -1, from = clock_ns();
  for (int layer = 0; layer < model->n_layer; layer++) {
    for (int64_t position = 0; position < TOKENS; position++) {
      char point[32];
      snprintf(point, sizeof point, "resid_pre.%d", layer);
      struct lab_edit edit = {.op = LAB_EDIT_PATCH, .point = point, .index = -1, .where = LAB_LISTED, .positions = &position,
                              .n_positions = 1, .special = true, .rows = row, .n_rows = 1, .row_width = (size_t)model->d_model};
      struct lab_input input = {.ids = corrupted, .n_ids = TOKENS};
      struct lab_run_args args = {.model = model, .inputs = &input, .n_inputs = 1, .edits = &edit, .n_edits = 1,
                                  .stop_at_layer = INT64_MIN, .positions = &last, .n_positions = 1, .top_k = 1};
      struct lab_job *job;
      check(lab_run(lab, &args, waker, &job, &error), &error);
      must_end(job);
      lab_job_free(job);
    }
  }
  return limits_seconds(from);
}

static void bench_patching(const char *folder) {
  struct error error = ERROR_INIT;
  struct lab_model_spec spec = {"bench", folder};
  struct lab_options options = {.models = &spec, .n_models = 1, .backend = "cpu", .threads = bench_threads(), .max_queue = 64,
                                .max_step_rows = 256, .max_sessions = 16};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail(&error);
  const struct lab_model_info *model;
  lab_models(lab, &model);
  int64_t clean[TOKENS], corrupted[TOKENS];
  for (int i = 0; i < TOKENS; i++) clean[i] = corrupted[i] = 100 + 37 * i;
  corrupted[9]++;
  float *row = calloc((size_t)model->d_model, sizeof *row);
  double ours[3], plain[3];
  for (int i = 0; i < 3; i++) {
    ours[i] = matrix(lab, model, clean, corrupted);
    plain[i] = loop(lab, model, corrupted, row);
  }
  double a = best(ours, 3), b = best(plain, 3);
  printf("patching %d layers x %d positions   one request %7.2f s   plain loop %7.2f s   %.1f times\n", model->n_layer, TOKENS,
         a, b, b / a);
  free(row);
  lab_close(lab);
}

/* ---- decode with edits and taps ---- */

enum edits { NO_EDITS, ADDS, CLAMPS };

struct row {
  const char *name;
  int streams;
  enum edits kind;
  int n;        /* edits of each stream */
  int parts;    /* the figure is told for one of so many; 0: for all */
  bool differ;  /* each stream at layers of its own */
  bool taps;    /* resid_post at all layers */
};

static const struct row rows[] = {
    {"1 stream, nothing attached", 1, NO_EDITS, 0, 0, false, false},
    {"1 stream, 1 add", 1, ADDS, 1, 0, false, false},
    {"1 stream, 16 adds", 1, ADDS, 16, 0, false, false},
    {"1 stream, 64 adds", 1, ADDS, 64, 0, false, false},
    {"1 stream, 64 clamps (rank one)", 1, CLAMPS, 64, 0, false, false},
    {"1 stream, 256 adds", 1, ADDS, 256, 0, false, false},
    {"1 stream, 1024 adds, per 64", 1, ADDS, 1024, 16, false, false},
    {"1 stream, 1024 clamps, per 64", 1, CLAMPS, 1024, 16, false, false},
    {"1 stream, resid_post taps at all layers", 1, NO_EDITS, 0, 0, false, true},
    {"16 streams, nothing attached", STREAMS, NO_EDITS, 0, 0, false, false},
    {"16 streams, 16 different edits", STREAMS, CLAMPS, 1, 0, true, false},
    {"16 streams, 256 different edits, per 16", STREAMS, CLAMPS, 16, 16, true, false},
    {"16 streams, 16 edits each (256)", STREAMS, ADDS, 16, 0, true, false},
    {"16 streams, resid_post taps at all layers", STREAMS, NO_EDITS, 0, 0, false, true},
};
#define N_ROWS (sizeof rows / sizeof *rows)

/* Two tasks at once, one on each model. The worker's thread writes, and is waited for. */
struct run {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int running;
  struct error error;
  struct half *ends[4 * NEW_TOKENS]; /* whose step ended, in the order of time */
  double at[4 * NEW_TOKENS];         /* when */
  int n_ends;
};
struct half {
  struct run *run;
  int streams, tokens;
};

/* A step has ended when the last of its streams has its token. */
static bool on_token(void *context, int sequence, const struct engine_token *token) {
  struct half *half = context;
  struct run *run = half->run;
  (void)sequence, (void)token;
  if (++half->tokens % half->streams || run->n_ends == (int)(sizeof run->at / sizeof *run->at)) return true;
  run->at[run->n_ends] = processor_seconds();
  run->ends[run->n_ends++] = half;
  return true;
}

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  (void)context, (void)sequence, (void)tapped, (void)error;
  return 0;
}

static void on_done(void *context, const struct error *error) {
  struct run *run = ((struct half *)context)->run;
  pthread_mutex_lock(&run->mutex);
  run->running--;
  if (error) run->error = *error;
  pthread_cond_signal(&run->changed);
  pthread_mutex_unlock(&run->mutex);
}

static const struct engine_events events = {.token = on_token, .tapped = on_tapped, .done = on_done};

static struct edit_list *make_edits(const struct row *row, const struct model *model, int stream, const float *v) {
  struct error error = ERROR_INIT;
  struct edit_list *list = edit_list_new(&error);
  for (int i = 0; list && i < row->n; i++) {
    int layer = (i + (row->differ ? 5 * stream : 0)) % model->arch.n_layer;
    struct edit edit = {.point = {layer, SITE_RESID_PRE}, .kind = row->kind == ADDS ? EDIT_ROW_ADD : EDIT_ROW_FEATURE_SET,
                        .column_end = (int32_t)model->arch.d_model, .value = 0.01f * (float)(1 + i), .v = v,
                        .enc = row->kind == ADDS ? NULL : v, .fold = 1, .prompt = true, .generated = true};
    check(edit_list_add(list, &edit, &error), &error);
  }
  if (!list) fail(&error);
  return list;
}

static void start(struct engine *engine, const struct model *model, const struct row *row, bool plain, const float *v,
                  struct half *half) {
  struct engine_sequence sequences[STREAMS];
  struct point taps[256];
  int32_t tokens[PROMPT];
  struct error error = ERROR_INIT;
  int n_taps = row->taps && !plain ? model->arch.n_layer : 0;
  for (int i = 0; i < PROMPT; i++) tokens[i] = 100 + 11 * i;
  for (int l = 0; l < n_taps; l++) taps[l] = (struct point){l, SITE_RESID_POST};
  for (int s = 0; s < row->streams; s++)
    sequences[s] = (struct engine_sequence){.tokens = tokens, .n_tokens = PROMPT, .last_layer = model->arch.n_layer,
                                            .edits = row->n && !plain ? make_edits(row, model, s, v) : NULL, .taps = taps,
                                            .n_taps = n_taps, .max_new = NEW_TOKENS, .eos = -1, .n_logprobs = -1};
  struct engine_task_args args = {.model = model, .sequences = sequences, .n_sequences = row->streams, .events = &events,
                                  .context = half};
  struct engine_task *task;
  check(engine_submit(engine, &args, &task, &error), &error);
}

/* A round: appends the shares by which steps with edits took longer than the plain ones beside them, and their plain times. */
static int measure(struct engine *engine, const struct model *const models[2], const struct row *row, int edited, const float *v,
                   double *shares, double *plain, int most) {
  struct run run = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 2, ERROR_INIT, {NULL}, {0}, 0};
  struct half halves[2] = {{&run, row->streams, 0}, {&run, row->streams, 0}};
  int n = 0;
  for (int i = 0; i < 2; i++) start(engine, models[i], row, i != edited, v, &halves[i]);
  pthread_mutex_lock(&run.mutex);
  while (run.running) pthread_cond_wait(&run.changed, &run.mutex);
  pthread_mutex_unlock(&run.mutex);
  check(run.error.code != ERROR_NONE, &run.error);
  for (int i = 2; i < run.n_ends && n < most; i++) {
    if (run.ends[i] == run.ends[i - 1] || run.ends[i - 1] == run.ends[i - 2]) continue; /* one ran alone */
    double first = run.at[i - 1] - run.at[i - 2], second = run.at[i] - run.at[i - 1];
    bool last = run.ends[i] == &halves[edited];
    plain[n] = last ? first : second;
    shares[n] = (last ? second : first) / plain[n] - 1;
    n++;
    i++; /* each step is in one pair */
  }
  return n;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void bench_row(struct engine *engine, const struct model *const models[2], const struct row *row, const float *v, int pairs) {
  double *shares = malloc((size_t)pairs * sizeof *shares), *plain = malloc((size_t)pairs * sizeof *plain);
  int n = 0;
  for (int round = 0; n < pairs; round++) n += measure(engine, models, row, round % 2, v, shares + n, plain + n, pairs - n);
  qsort(shares, (size_t)n, sizeof *shares, ascending);
  qsort(plain, (size_t)n, sizeof *plain, ascending);
  int reach = (int)(0.98 * sqrt((double)n)); /* of a binomial with p = 1/2: 1.96 of its deviations */
  int low = n / 2 - reach > 0 ? n / 2 - reach : 0, high = n / 2 + reach < n ? n / 2 + reach : n - 1;
  double percent = 100.0 / (row->parts ? row->parts : 1);
  printf("decode  %-44s %8.3f ms a step   %+6.2f %%   (%+.2f to %+.2f)\n", row->name, plain[n / 2] * 1e3, shares[n / 2] * percent,
         shares[low] * percent, shares[high] * percent);
  fflush(stdout);
  free(shares);
  free(plain);
}

static void bench_decode(const char *folder) {
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open("cpu", 1, &error); /* one thread: the worker's, whose time is counted */
  struct model *model = backend ? model_open("bench", folder, backend, &error) : NULL;
  const char *asked = getenv("STEERD_BENCH_PAIRS"), *only = getenv("STEERD_BENCH_ROWS");
  int pairs = asked && atoi(asked) > 0 ? atoi(asked) : PAIRS;
  if (!model) fail(&error);
  struct model twin = *model; /* the same weights behind another name: the worker takes a step of each in turn */
  const struct model *models[] = {model, &twin};
  struct engine_options options = {.max_queue = 8, .max_sessions = STREAMS, .max_step_rows = 256};
  struct engine *engine = engine_new(backend, models, 2, &options, &error);
  if (!engine) fail(&error);
  float *v = malloc((size_t)model->arch.d_model * sizeof *v);
  double first[8], warm[8];
  for (int64_t i = 0; i < model->arch.d_model; i++) v[i] = (float)(i % 7 - 3) * 0.01f;
  measure(engine, models, &rows[0], 0, v, first, warm, 8); /* the first run touches every weight */
  for (size_t i = 0; i < N_ROWS; i++)
    if (!only || strstr(rows[i].name, only)) bench_row(engine, models, &rows[i], v, pairs);
  free(v);
  engine_free(engine);
  model_close(model);
  backend_close(backend);
}

static void quiet(void *context, enum log_level level, const char *text) { (void)context, (void)level, (void)text; }

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: bench_lab FOLDER\n");
    return 2;
  }
  log_set_sink(quiet, NULL);
  if (!getenv("STEERD_BENCH_ROWS")) bench_patching(argv[1]);
  bench_decode(argv[1]);
  return 0;
}
