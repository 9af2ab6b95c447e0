/* bench_lab: what edits, taps and the patching matrix cost on a whole model.
 *
 *   bench_lab FOLDER        a GPT-2-family folder (make bench generates a GPT-2-small-shaped one)
 *
 * Patching: the matrix of 12 layers x 16 positions of a text of 16 tokens as one request, beside the plain loop: one full run
 * of the text per cell, one after the other, each with its row put in (what a notebook does). Both are timed from request to
 * result; the rows of the plain loop are there beforehand.
 *
 * Decode: NEW_TOKENS steps of streams that generate together, prompts of 2 tokens included, with edits and taps live at every
 * position. What is looked for is a few parts in a thousand, so it is processor time of one thread that is counted: it leaves
 * out what other programs take. Rounds alternate between all rows, each is divided by the plain row of its round, medians are
 * printed. */
#include <pthread.h>

#include "core/base/log.h"
#include "core/engine/engine.h"
#include "core/laboratory.h"
#include "tests/bench/limits.h"
#include "tests/unit/lab_waiter.h"

#define ROUNDS 11
#define NEW_TOKENS 24
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

static double processor_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
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
  bool differ;  /* each stream at layers of its own */
  bool taps;    /* resid_post at all layers */
};

static const struct row rows[] = {
    {"1 stream, nothing attached", 1, NO_EDITS, 0, false, false},
    {"1 stream, 1 add", 1, ADDS, 1, false, false},
    {"1 stream, 16 adds", 1, ADDS, 16, false, false},
    {"1 stream, 64 adds", 1, ADDS, 64, false, false},
    {"1 stream, 64 clamps (rank one)", 1, CLAMPS, 64, false, false},
    {"1 stream, 256 adds", 1, ADDS, 256, false, false},
    {"1 stream, resid_post taps at all layers", 1, NO_EDITS, 0, false, true},
    {"16 streams, nothing attached", STREAMS, NO_EDITS, 0, false, false},
    {"16 streams, 16 different edits", STREAMS, CLAMPS, 1, true, false},
    {"16 streams, 16 edits each (256)", STREAMS, ADDS, 16, true, false},
    {"16 streams, resid_post taps at all layers", STREAMS, NO_EDITS, 0, false, true},
};
#define N_ROWS (sizeof rows / sizeof *rows)

struct run {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool done;
  struct error error;
};

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  (void)context, (void)sequence, (void)token;
  return true;
}

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  (void)context, (void)sequence, (void)tapped, (void)error;
  return 0;
}

static void on_done(void *context, const struct error *error) {
  struct run *run = context;
  pthread_mutex_lock(&run->mutex);
  run->done = true;
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

/* Seconds for NEW_TOKENS tokens of every stream. */
static double decode(struct engine *engine, const struct model *model, const struct row *row, const float *v) {
  struct engine_sequence sequences[STREAMS];
  struct point taps[256];
  int32_t tokens[PROMPT];
  struct error error = ERROR_INIT;
  struct run run = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, ERROR_INIT};
  int n_taps = row->taps ? model->arch.n_layer : 0;
  for (int i = 0; i < PROMPT; i++) tokens[i] = 100 + 11 * i;
  for (int l = 0; l < n_taps; l++) taps[l] = (struct point){l, SITE_RESID_POST};
  for (int s = 0; s < row->streams; s++)
    sequences[s] = (struct engine_sequence){.tokens = tokens, .n_tokens = PROMPT, .last_layer = model->arch.n_layer,
                                            .edits = row->n ? make_edits(row, model, s, v) : NULL, .taps = taps,
                                            .n_taps = n_taps, .max_new = NEW_TOKENS, .eos = -1, .n_logprobs = -1};
  struct engine_task_args args = {.model = model, .sequences = sequences, .n_sequences = row->streams, .events = &events,
                                  .context = &run};
  struct engine_task *task;
  double from = processor_seconds();
  check(engine_submit(engine, &args, &task, &error), &error);
  pthread_mutex_lock(&run.mutex);
  while (!run.done) pthread_cond_wait(&run.changed, &run.mutex);
  pthread_mutex_unlock(&run.mutex);
  check(run.error.code != ERROR_NONE, &run.error);
  return processor_seconds() - from;
}

static void bench_decode(const char *folder) {
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open("cpu", 1, &error);
  struct model *model = backend ? model_open("bench", folder, backend, &error) : NULL;
  if (!model) fail(&error);
  const struct model *models[] = {model};
  struct engine_options options = {.max_queue = 8, .max_sessions = STREAMS, .max_step_rows = 256};
  struct engine *engine = engine_new(backend, models, 1, &options, &error);
  if (!engine) fail(&error);
  float *v = malloc((size_t)model->arch.d_model * sizeof *v);
  for (int64_t i = 0; i < model->arch.d_model; i++) v[i] = (float)(i % 7 - 3) * 0.01f;
  double seconds[N_ROWS][ROUNDS], shares[ROUNDS];
  decode(engine, model, &rows[0], v); /* the first run touches every weight */
  for (int round = 0; round < ROUNDS; round++)
    for (size_t i = 0; i < N_ROWS; i++) seconds[i][round] = decode(engine, model, &rows[i], v);
  for (size_t i = 0, plain = 0; i < N_ROWS; i++) {
    if (rows[i].n == 0 && !rows[i].taps) plain = i;
    for (int round = 0; round < ROUNDS; round++) shares[round] = seconds[i][round] / seconds[plain][round];
    double share = limits_median(shares, ROUNDS), step = best(seconds[i], ROUNDS) / NEW_TOKENS * 1e3;
    printf("decode  %-44s %8.3f ms a step   %+6.2f %%\n", rows[i].name, step, (share - 1) * 100);
  }
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
  bench_patching(argv[1]);
  bench_decode(argv[1]);
  return 0;
}
