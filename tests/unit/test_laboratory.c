/* The laboratory over the tiny GPT-2: the same bits whatever runs beside it, sequences that take their turns in little
 * memory, dictionary edits inside steps, cancelling, and what is refused. What the numbers are is tested over HTTP, beside a
 * twin in NumPy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/base/spool.h"
#include "core/laboratory.h"
#include "tests/unit/lab_waiter.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define TOKENS 70 /* more than a block of keys */

static const struct lab_source_spec sources[] = {{"tiny", "1-res-relu", TINY "sources/1-res-relu"},
                                                 {"tiny", "0-mlp-topk", TINY "sources/0-mlp-topk"}};
static const struct lab_model_spec model = {"tiny", TINY "model"};

/* ---- a lab ---- */

static struct lab_job *done(struct lab_job *job) {
  if (wait_for(job) == LAB_JOB_DONE) return job;
  struct error error;
  lab_job_error(job, &error);
  fail_msg("%s", error.text);
  return NULL;
}

struct shape {
  const char *backend;
  int threads, step_rows, sessions;
  size_t kv_bytes;
};

static struct lab *try_lab(struct shape shape, struct error *error) {
  struct lab_options options = {.models = &model, .n_models = 1, .sources = sources,
                                .n_sources = sizeof sources / sizeof sources[0], .backend = shape.backend,
                                .threads = shape.threads, .max_queue = 64, .max_step_rows = shape.step_rows,
                                .max_sessions = shape.sessions, .kv_bytes = shape.kv_bytes, .queue_timeout_ms = 60000,
                                .generation_timeout_ms = 60000};
  return lab_open(&options, error);
}

static struct lab *open_lab(struct shape shape) {
  struct error error = ERROR_INIT;
  struct lab *lab = try_lab(shape, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static const struct lab_model_info *tiny(struct lab *lab) { return lab_find_model(lab, NULL, NULL); }

/* ---- requests ---- */

static int64_t tokens[2][TOKENS];
static const int64_t answers[2] = {258, 257};

static void make_tokens(void) {
  for (int i = 0; i < TOKENS; i++) tokens[0][i] = tokens[1][i] = i ? (i * 37 + 11) % 500 : 511;
  tokens[1][30] = 400;
}

static struct lab_job *start_patch(struct lab *lab, enum lab_axes axes, const char *point) {
  static const int64_t positions[] = {0, 5, 29, 30, 63, 64, 69};
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  struct lab_patch_args args = {.model = tiny(lab), .clean = {.ids = tokens[0], .n_ids = TOKENS},
                                .corrupted = {.ids = tokens[1], .n_ids = TOKENS}, .point = point, .axes = axes,
                                .answers = {{.ids = answers, .n_ids = 1}, {.ids = answers + 1, .n_ids = 1}},
                                .positions = positions,
                                .n_positions = axes == LAB_LAYER_POSITION ? sizeof positions / sizeof positions[0] : 0};
  if (lab_patch(lab, &args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  return job;
}

/* The cells of a finished patch; freed by the caller. */
static double *cells_of(struct lab_job *job, size_t *n) {
  const struct lab_patch_result *result = lab_patch_result(done(job));
  *n = result->n_layers * result->n_columns;
  double *cells = malloc(*n * sizeof *cells);
  memcpy(cells, result->values, *n * sizeof *cells);
  lab_job_free(job);
  return cells;
}

static double *patch(struct lab *lab, enum lab_axes axes, const char *point, size_t *n) {
  return cells_of(start_patch(lab, axes, point), n);
}

/* Texts of 70 - first tokens, one less, ... */
static struct lab_job *start_texts(struct lab *lab, const struct lab_edit *edits, size_t n_edits, size_t first, size_t n_inputs) {
  static const char *const points[] = {"resid_post.2"};
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  struct lab_input inputs[64];
  for (size_t i = 0; i < n_inputs; i++) inputs[i] = (struct lab_input){.ids = tokens[0], .n_ids = TOKENS - (first + i) % 60};
  struct lab_run_args args = {.model = tiny(lab), .inputs = inputs, .n_inputs = n_inputs, .points = points, .n_points = 1,
                              .edits = edits, .n_edits = n_edits, .stop_at_layer = INT64_MIN, .loss = true};
  if (lab_run(lab, &args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  return job;
}

static struct lab_job *start_run(struct lab *lab, const struct lab_edit *edits, size_t n_edits, size_t n_inputs) {
  return start_texts(lab, edits, n_edits, 0, n_inputs);
}

/* All activations of a finished run. */
static float *rows_of(struct lab_job *job, size_t *n) {
  struct error error = ERROR_INIT;
  const struct lab_run_result *result = lab_run_result(done(job));
  *n = (size_t)result->bytes / sizeof(float);
  float *rows = malloc((size_t)result->bytes);
  assert_int_equal(lab_run_read(job, 0, rows, (size_t)result->bytes, &error), 0);
  lab_job_free(job);
  return rows;
}

static const struct lab_edit splice = {.op = LAB_EDIT_SPLICE, .source_id = "1-res-relu", .index = -1, .special = true};
static const struct lab_edit topk = {.op = LAB_EDIT_CLAMP, .source_id = "0-mlp-topk", .index = 7, .value = 3, .special = true,
                                     .include_error = true};
static const struct lab_edit clamp = {.op = LAB_EDIT_CLAMP, .source_id = "1-res-relu", .index = 7, .value = 3, .special = true,
                                      .include_error = true};
static const struct lab_edit zero = {.op = LAB_EDIT_ZERO, .point = "z.1", .index = -1, .special = true};

/* ---- same bits ---- */

static void test_patching_has_the_same_bits_in_any_company(void **state) {
  (void)state;
  static const struct shape shapes[] = {{"cpu", 1, 256, 16, 0}, {"cpu", 2, 64, 16, 0}, {"cpu", 3, 16, 2, 0}, {"cpu", 2, 700, 64, 0}};
  static const struct { enum lab_axes axes; const char *point; } kinds[] = {
      {LAB_LAYER_POSITION, "resid_pre"}, {LAB_LAYER_POSITION, "mlp_out"}, {LAB_LAYER_HEAD, "z"}, {LAB_LAYER, "attn_out"}};
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
    double *first = NULL;
    size_t n_first = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
      struct lab *lab = open_lab(shapes[s]);
      struct lab_job *other = start_run(lab, &splice, 1, 3), *twin = start_patch(lab, kinds[k].axes, kinds[k].point);
      size_t n, m;
      double *cells = patch(lab, kinds[k].axes, kinds[k].point, &n), *again = cells_of(twin, &m);
      lab_job_free(done(other));
      assert_int_equal(n, m);
      assert_memory_equal(cells, again, n * sizeof *cells);
      if (first) assert_int_equal(n, n_first);
      if (first) assert_memory_equal(cells, first, n * sizeof *cells);
      free(again);
      if (first) free(cells);
      else first = cells, n_first = n;
      lab_close(lab);
    }
    free(first);
  }
}

static void test_the_obvious_backend_agrees(void **state) {
  (void)state;
  size_t n, m;
  struct lab *lab = open_lab((struct shape){"cpu", 2, 256, 16, 0});
  double *fast = patch(lab, LAB_LAYER_POSITION, "resid_mid", &n);
  lab_close(lab);
  lab = open_lab((struct shape){"ref", 1, 256, 16, 0});
  double *plain = patch(lab, LAB_LAYER_POSITION, "resid_mid", &m);
  lab_close(lab);
  assert_int_equal(n, m);
  for (size_t i = 0; i < n; i++) assert_true(fabs(fast[i] - plain[i]) < 5e-4); /* two logits, docs/decisions.md 18; sharp attention */
  free(fast);
  free(plain);
}

static void test_edits_of_many_requests_share_steps(void **state) {
  (void)state;
  const struct lab_edit *const edits[] = {&splice, &topk, &clamp, &zero, NULL};
  enum { KINDS = 5, JOBS = 15 };
  float *alone[KINDS];
  size_t n[KINDS], m;
  struct lab *lab = open_lab((struct shape){"cpu", 2, 64, 16, 0});
  for (int k = 0; k < KINDS; k++) alone[k] = rows_of(start_run(lab, edits[k], edits[k] != NULL, 1), &n[k]);
  struct lab_stats before, after;
  lab_stats(lab, &before);
  struct lab_job *jobs[JOBS];
  for (int i = 0; i < JOBS; i++) jobs[i] = start_run(lab, edits[i % KINDS], edits[i % KINDS] != NULL, 1);
  for (int i = 0; i < JOBS; i++) {
    float *rows = rows_of(jobs[i], &m);
    assert_int_equal(m, n[i % KINDS]);
    assert_memory_equal(rows, alone[i % KINDS], m * sizeof *rows);
    free(rows);
  }
  lab_stats(lab, &after);
  /* 15 texts of 70 tokens in steps of 64 rows: one by one they would take two steps each. */
  assert_true(after.steps - before.steps < 2 * JOBS);
  for (int i = 0; i < KINDS; i++)
    for (int j = 0; j < i; j++) assert_memory_not_equal(alone[i], alone[j], n[i] * sizeof(float));
  for (int k = 0; k < KINDS; k++) free(alone[k]);
  lab_close(lab);
}

/* ---- turns and memory ---- */

/* Nothing runs and nothing is held. The engine gives memory back before it tells that a task is done: no waiting. */
static void assert_idle(struct lab *lab) {
  struct lab_stats stats;
  lab_stats(lab, &stats);
  assert_int_equal(stats.running, 0);
  assert_int_equal(stats.kv_used_bytes, 0);
}

/* One context of keys and values: many requests that each hold a base and want cells must not wait for each other. */
/* Bytes of so many blocks of keys and values: the least memory that is accepted holds two contexts of 160 positions, 9 blocks each. */
static size_t blocks_bytes(size_t blocks) {
  struct error error = ERROR_INIT;
  size_t kv = 1 << 16;
  struct lab *lab = NULL;
  for (; !lab; kv += 1 << 14) lab = try_lab((struct shape){"cpu", 2, 64, 16, kv}, &error);
  lab_close(lab);
  return (kv - (1 << 14)) / 18 * blocks;
}

static void test_turns_in_the_memory_of_one_context(void **state) {
  (void)state;
  size_t n, m;
  struct lab *wide = open_lab((struct shape){"cpu", 2, 256, 16, 0});
  double *want = patch(wide, LAB_LAYER_POSITION, "resid_pre", &n);
  lab_close(wide);
  /* A patch of 70 tokens holds 6 blocks and needs 6 more to get on: in 18 blocks three of them can hold theirs and wait for each
   * other, if nothing is kept back. */
  struct lab *lab = open_lab((struct shape){"cpu", 2, 64, 16, blocks_bytes(18)});
  struct lab_job *jobs[6];
  for (int i = 0; i < 6; i++) jobs[i] = i % 2 ? start_run(lab, &zero, 1, 9) : start_patch(lab, LAB_LAYER_POSITION, "resid_pre");
  for (int i = 0; i < 6; i++) {
    if (i % 2) {
      lab_job_free(done(jobs[i]));
      continue;
    }
    double *cells = cells_of(jobs[i], &m);
    assert_int_equal(n, m);
    assert_memory_equal(cells, want, n * sizeof *cells);
    free(cells);
  }
  assert_idle(lab);
  free(want);
  lab_close(lab);
}

/* Cells that share the first block of their text give it back, and short runs would like to have it. It belongs to the next cell. */
static void test_what_a_task_keeps_back_stays_its_own(void **state) {
  (void)state;
  enum { ROUNDS = 30, RUNS = 6 };
  size_t n, m;
  struct lab *wide = open_lab((struct shape){"cpu", 2, 256, 16, 0});
  double *want = patch(wide, LAB_LAYER_POSITION, "resid_pre", &n);
  lab_close(wide);
  struct lab *lab = open_lab((struct shape){"cpu", 2, 16, 16, blocks_bytes(18)});
  for (int round = 0; round < ROUNDS; round++) {
    struct lab_job *runs[RUNS], *cells = start_patch(lab, LAB_LAYER_POSITION, "resid_pre");
    for (int i = 0; i < RUNS; i++) {
      usleep(200); /* while cells run */
      runs[i] = start_texts(lab, &zero, 1, 10, 1);
    }
    double *got = cells_of(cells, &m);
    assert_int_equal(n, m);
    assert_memory_equal(got, want, n * sizeof *got);
    free(got);
    for (int i = 0; i < RUNS; i++) lab_job_free(done(runs[i]));
  }
  assert_idle(lab);
  free(want);
  lab_close(lab);
}

static void test_more_texts_than_sessions(void **state) {
  (void)state;
  size_t n, m;
  struct lab *lab = open_lab((struct shape){"cpu", 2, 64, 3, 0});
  float *many = rows_of(start_run(lab, NULL, 0, 60), &n), *one = rows_of(start_run(lab, NULL, 0, 1), &m);
  assert_memory_equal(many, one, m * sizeof *one);
  assert_memory_equal(many + m, one, (m - 48) * sizeof *one); /* the second text is one token shorter */
  free(many);
  free(one);
  lab_close(lab);
}

static void test_cancelling_gives_everything_back(void **state) {
  (void)state;
  struct lab *lab = open_lab((struct shape){"cpu", 1, 16, 4, 0});
  for (int i = 0; i < 12; i++) {
    struct lab_job *job = i % 2 ? start_run(lab, &splice, 1, 40) : start_patch(lab, LAB_LAYER_POSITION, "resid_pre");
    usleep((useconds_t)(i * 700));
    lab_job_cancel(job);
    wait_for(job); /* done already, or failed */
    lab_job_free(job);
  }
  struct lab_job *left = start_patch(lab, LAB_LAYER_HEAD, "z");
  lab_job_free(left); /* the asker leaves without waiting */
  size_t n;
  free(patch(lab, LAB_LAYER, "z", &n));
  assert_idle(lab);
  lab_close(lab);
}

static void test_closing_ends_what_runs(void **state) {
  (void)state;
  struct lab *lab = open_lab((struct shape){"cpu", 1, 16, 2, 0});
  struct lab_job *jobs[4];
  for (int i = 0; i < 4; i++) jobs[i] = start_patch(lab, LAB_LAYER_POSITION, "resid_pre");
  for (int i = 0; i < 4; i++) lab_job_free(jobs[i]);
  lab_close(lab);
}

/* ---- limits ---- */

static void test_requests_are_bounded(void **state) {
  (void)state;
  struct lab *lab = open_lab((struct shape){"cpu", 1, 64, 4, 0});
  struct lab_input *inputs = calloc(20000, sizeof *inputs);
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  for (int i = 0; i < 20000; i++) inputs[i] = (struct lab_input){.ids = tokens[0], .n_ids = TOKENS};
  struct lab_run_args args = {.model = tiny(lab), .inputs = inputs, .n_inputs = 20000, .stop_at_layer = INT64_MIN, .loss = true};
  assert_int_equal(lab_run(lab, &args, waker, &job, &error), -1); /* 1.4 million positions */
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_non_null(strstr(error.text, "1048576"));
  static const char *const points[] = {"blocks.*"};
  error = (struct error)ERROR_INIT;
  args.points = points;
  args.n_points = 1;
  args.n_inputs = 10000;
  assert_int_equal(lab_run(lab, &args, waker, &job, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_string_equal(error.field, "points");
  free(inputs);
  lab_close(lab);
}

/* ---- spool ---- */

static void test_spool(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  char out[8] = "";
  struct spool *spool = spool_open(&error);
  assert_non_null(spool);
  assert_int_equal(spool_write(spool, 100, "behind", 6, &error), 0);
  assert_int_equal(spool_write(spool, 0, "before", 6, &error), 0);
  assert_int_equal(spool_read(spool, 100, out, 6, &error), 0);
  assert_string_equal(out, "behind");
  assert_int_equal(spool_read(spool, 50, out, 6, &error), 0);
  assert_memory_equal(out, "\0\0\0\0\0\0", 6);
  assert_int_equal(spool_read(spool, 103, out, 6, &error), -1);
  assert_int_equal(error.code, ERROR_IO);
  spool_close(spool);
  spool_close(NULL);
  error = (struct error)ERROR_INIT;
  setenv("TMPDIR", "/nowhere/at/all", 1);
  assert_null(spool_open(&error));
  assert_non_null(strstr(error.text, "/nowhere/at/all"));
  unsetenv("TMPDIR");
}

static void quiet(void *context, enum log_level level, const char *text) { (void)context, (void)level, (void)text; }

int main(void) {
  static const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_patching_has_the_same_bits_in_any_company),
      cmocka_unit_test(test_the_obvious_backend_agrees),
      cmocka_unit_test(test_edits_of_many_requests_share_steps),
      cmocka_unit_test(test_turns_in_the_memory_of_one_context),
      cmocka_unit_test(test_what_a_task_keeps_back_stays_its_own),
      cmocka_unit_test(test_more_texts_than_sessions),
      cmocka_unit_test(test_cancelling_gives_everything_back),
      cmocka_unit_test(test_closing_ends_what_runs),
      cmocka_unit_test(test_requests_are_bounded),
      cmocka_unit_test(test_spool),
  };
  log_set_sink(quiet, NULL);
  make_tokens();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
