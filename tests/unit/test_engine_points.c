/* Points through the engine: chunked prompts, generated tokens and shared steps give the rows that one pass over the text
 * gives, bit for bit; points of the head come for every position; a request that looks at too much is told so. */
#include "tests/unit/plan_bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/engine/engine.h"

#define N_PROMPT 66
#define N_NEW 4
#define KEYS (N_PROMPT + N_NEW - 1)
#define MAX_TAPS 8

/* What a task gave: rows of each tap at their positions, tokens, and how it ended. */
struct heard {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool done;
  struct error error;
  float *rows[2][MAX_TAPS]; /* [KEYS][width] */
  int32_t seen[2][MAX_TAPS];
  int32_t tokens[2][N_NEW], n_tokens[2];
};

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  struct heard *heard = context;
  heard->tokens[sequence][heard->n_tokens[sequence]++] = token->token;
  return true;
}

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct heard *heard = context;
  size_t width = (size_t)tapped->width;
  float **rows = &heard->rows[sequence][tapped->tap];
  if (!*rows) *rows = calloc(KEYS * width, sizeof **rows);
  assert_int_equal(tapped->rows.ld, tapped->width);
  heard->seen[sequence][tapped->tap] += tapped->n_rows;
  return tapped->backend->ops->read(tapped->backend, *rows + (size_t)tapped->position * width, tapped->rows.at,
                                    (size_t)tapped->n_rows * width * sizeof(float), error);
}

static void on_done(void *context, const struct error *error) {
  struct heard *heard = context;
  pthread_mutex_lock(&heard->mutex);
  if (error) heard->error = *error;
  heard->done = true;
  pthread_cond_signal(&heard->changed);
  pthread_mutex_unlock(&heard->mutex);
}

static const struct engine_events events = {.token = on_token, .tapped = on_tapped, .done = on_done};

static void heard_wait(struct heard *heard) {
  pthread_mutex_lock(&heard->mutex);
  while (!heard->done) pthread_cond_wait(&heard->changed, &heard->mutex);
  pthread_mutex_unlock(&heard->mutex);
  if (heard->error.code) fail_msg("%s", heard->error.text);
}

static void heard_free(struct heard *heard) {
  for (int s = 0; s < 2; s++)
    for (int i = 0; i < MAX_TAPS; i++) free(heard->rows[s][i]);
}

static struct engine *open_engine(struct bench *b) {
  struct error error = ERROR_INIT;
  /* Steps of 16 rows, of which 3 can have logits: the prompt comes in many pieces. */
  struct engine_options options = {.max_queue = 4, .max_sessions = 3, .max_step_rows = 16, .kv_bytes = 1 << 22};
  const struct model *model = b->model;
  struct engine *engine = engine_new(b->backend, &model, 1, &options, &error);
  if (!engine) fail_msg("%s", error.text);
  return engine;
}

/* The same text in one pass, on the same model. */
static void compare(struct bench *b, const struct heard *heard, int sequence, const int32_t *ids, const struct point *taps,
                    int n_taps) {
  size_t v = (size_t)b->model->arch.vocabulary;
  float *logits = malloc(KEYS * v * sizeof *logits);
  bench_run(b, ids, 0, KEYS, logits);
  for (int i = 0; i < n_taps; i++) {
    struct point_shape shape = point_shape(&b->model->arch, taps[i].site);
    size_t width = (size_t)bench_width(b, taps[i].site);
    float *want = malloc(KEYS * width * sizeof *want);
    bench_point(b, taps[i], KEYS, want);
    assert_int_equal(heard->seen[sequence][i], KEYS);
    for (size_t row = 0; row < KEYS; row++)
      for (size_t h = 0; h < (shape.square ? (size_t)shape.heads : 1); h++) {
        size_t n = shape.square ? KEYS : width, stride = shape.square ? BENCH_KEYS : width;
        const float *got = heard->rows[sequence][i] + (row * (shape.square ? (size_t)shape.heads : 1) + h) * n;
        if (memcmp(got, want + row * width + h * stride, n * sizeof *got) != 0)
          fail_msg("%s of layer %d, row %zu: other bits", site_name(taps[i].site), taps[i].layer, row);
      }
    free(want);
  }
  free(logits);
}

static void test_taps_of_a_generation(void **state) {
  (void)state;
  struct bench b;
  struct error error = ERROR_INIT;
  struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  assert_int_equal(bench_open(&b, "cpu", TINY "model"), 0);
  struct engine *engine = open_engine(&b);
  int32_t ids[2][KEYS + 1];
  const struct point taps[] = {{1, SITE_PATTERN}, {0, SITE_SCORES}, {2, SITE_RESULT}, {3, SITE_FINAL_NORMALIZED},
                               {3, SITE_LOGITS},  {1, SITE_MLP_IN}, {0, SITE_EMBED}};
  const int n_taps = sizeof taps / sizeof *taps;
  struct engine_sequence sequences[2] = {0};
  for (int s = 0; s < 2; s++) {
    for (int i = 0; i < N_PROMPT; i++) ids[s][i] = (i * (31 + s) + 5) % 512;
    sequences[s] = (struct engine_sequence){.tokens = ids[s], .n_tokens = N_PROMPT, .last_layer = 3, .taps = taps,
                                            .n_taps = s ? 1 : n_taps, .max_new = N_NEW, .eos = -1, .n_logprobs = -1};
  }
  struct engine_task_args args = {.model = b.model, .sequences = sequences, .n_sequences = 2, .events = &events, .context = &heard};
  struct engine_task *task;
  if (engine_submit(engine, &args, &task, &error) != 0) fail_msg("%s", error.text);
  heard_wait(&heard);
  engine_free(engine);
  for (int s = 0; s < 2; s++) {
    assert_int_equal(heard.n_tokens[s], N_NEW);
    memcpy(ids[s] + N_PROMPT, heard.tokens[s], (N_NEW - 1) * sizeof *ids[s]);
    compare(&b, &heard, s, ids[s], taps, s ? 1 : n_taps);
  }
  heard_free(&heard);
  bench_close(&b);
}

/* What an engine's backend remembers of its steps is of no use to the next one's, whose buffers may have taken the places of the first's. */
static void test_engines_one_after_the_other(void **state) {
  (void)state;
  struct bench b;
  struct error error = ERROR_INIT;
  int32_t ids[N_PROMPT], first[N_NEW];
  assert_int_equal(bench_open(&b, "cpu", TINY "model"), 0);
  for (int i = 0; i < N_PROMPT; i++) ids[i] = (i * 31 + 5) % 512;
  for (int round = 0; round < 4; round++) {
    struct engine *engine = open_engine(&b);
    struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct engine_sequence sequence = {.tokens = ids, .n_tokens = N_PROMPT, .last_layer = 3, .max_new = N_NEW, .eos = -1, .n_logprobs = -1};
    struct engine_task_args args = {.model = b.model, .sequences = &sequence, .n_sequences = 1, .events = &events, .context = &heard};
    struct engine_task *task;
    if (engine_submit(engine, &args, &task, &error) != 0) fail_msg("%s", error.text);
    heard_wait(&heard);
    engine_free(engine);
    assert_int_equal(heard.n_tokens[0], N_NEW);
    if (round == 0) memcpy(first, heard.tokens[0], sizeof first);
    assert_memory_equal(heard.tokens[0], first, sizeof first);
    heard_free(&heard);
  }
  bench_close(&b);
}

/* One fork of a prompt whose pattern is edited: the leader keeps its bits, the follower does not. */
static void test_an_edited_fork(void **state) {
  (void)state;
  struct bench b;
  struct error error = ERROR_INIT;
  struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  assert_int_equal(bench_open(&b, "cpu", TINY "model"), 0);
  struct engine *engine = open_engine(&b);
  int32_t ids[KEYS + 1];
  for (int i = 0; i < N_PROMPT; i++) ids[i] = (i * 31 + 5) % 512;
  const struct point taps[] = {{1, SITE_PATTERN}, {2, SITE_RESID_POST}};
  int32_t keys = engine_keys(N_PROMPT, N_NEW), head = 2;
  struct edit edit = {.point = taps[0], .kind = EDIT_ROW_FILL, .column_begin = head * keys, .column_end = head * keys + 10,
                      .value = 0, .prompt = true, .generated = true};
  struct edit_list *edits = edit_list_new(&error);
  assert_int_equal(edit_list_add(edits, &edit, &error), 0);
  struct engine_sequence sequences[2];
  for (int s = 0; s < 2; s++)
    sequences[s] = (struct engine_sequence){.tokens = ids, .n_tokens = N_PROMPT, .last_layer = 3, .taps = taps, .n_taps = 2,
                                            .edits = s ? edits : NULL, .fork = s, .max_new = N_NEW, .eos = -1, .n_logprobs = -1};
  struct engine_task_args args = {.model = b.model, .sequences = sequences, .n_sequences = 2, .events = &events, .context = &heard};
  struct engine_task *task;
  if (engine_submit(engine, &args, &task, &error) != 0) fail_msg("%s", error.text);
  heard_wait(&heard);
  engine_free(engine);
  memcpy(ids + N_PROMPT, heard.tokens[0], (N_NEW - 1) * sizeof *ids);
  compare(&b, &heard, 0, ids, taps, 2);
  for (size_t row = 0; row < KEYS; row++)
    for (size_t j = 0; j < 10; j++) assert_true(heard.rows[1][0][(row * 4 + (size_t)head) * KEYS + j] == 0);
  assert_true(memcmp(heard.rows[1][1], heard.rows[0][1], KEYS * 48 * sizeof(float)) != 0);
  heard_free(&heard);
  bench_close(&b);
}

/* ---- edits that take long to bring over ---- */

#define N_EDITS 2000 /* of 66 rows of 48 columns: 24 MiB, six pieces */

/* Holds the engine's thread until all tasks are queued, so that they are admitted together. */
static int hold(void *context, struct plan *plan, struct error *error) {
  (void)plan;
  (void)error;
  pthread_mutex_lock(context);
  pthread_mutex_unlock(context);
  return 0;
}

static void held(void *context, const struct error *error) {
  (void)context;
  (void)error;
}

struct late {
  struct heard heard; /* first: the events are its */
  struct heard *other;
  int32_t others; /* tokens that the other one had when the first row came; -1: none came yet */
};

static int on_late(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct late *late = context;
  if (late->others < 0) late->others = late->other->n_tokens[0];
  return on_tapped(&late->heard, sequence, tapped, error);
}

/* Rows number `e` of the edits; the last edit is what stays. */
static float replaced(int e, size_t i) { return (float)(e % 13) + (float)(i % 101) / 7; }

static struct edit_list *many_replacements(struct point point) {
  struct error error = ERROR_INIT;
  struct edit_list *list = edit_list_new(&error);
  uint8_t mask[N_PROMPT];
  float *rows = malloc((size_t)N_PROMPT * 48 * sizeof *rows);
  memset(mask, 1, sizeof mask);
  for (int e = 0; e < N_EDITS; e++) {
    for (size_t i = 0; i < (size_t)N_PROMPT * 48; i++) rows[i] = replaced(e, i);
    struct edit edit = {.point = point, .kind = EDIT_ROW_REPLACE, .column_end = 48, .v = rows, .prompt = true, .mask = mask,
                        .n_mask = N_PROMPT};
    assert_int_equal(edit_list_add(list, &edit, &error), 0);
  }
  free(rows);
  return list;
}

/* Vectors of edits go over between steps, a piece at a time: a text beside them goes on meanwhile, and every piece arrives. */
static void test_large_edits_hold_nobody_up(void **state) {
  (void)state;
  static const struct engine_events late_events = {.tapped = on_late, .done = on_done};
  static const struct engine_work holding = {.slice = hold, .done = held, .asked = true};
  struct bench b;
  struct error error = ERROR_INIT;
  struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  struct late late = {{.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}, &heard, -1};
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  const struct point tap = {1, SITE_RESID_PRE};
  int32_t ids[N_PROMPT];
  for (int i = 0; i < N_PROMPT; i++) ids[i] = (i * 31 + 5) % 512;
  assert_int_equal(bench_open(&b, "cpu", TINY "model"), 0);
  struct engine *engine = open_engine(&b);
  struct engine_sequence plain = {.tokens = ids, .n_tokens = 4, .last_layer = 3, .max_new = N_NEW, .eos = -1, .n_logprobs = -1};
  struct engine_sequence edited = {.tokens = ids, .n_tokens = N_PROMPT, .last_layer = 3, .taps = &tap, .n_taps = 1, .eos = -1,
                                   .n_logprobs = -1, .edits = many_replacements(tap)};
  struct engine_task_args one = {.model = b.model, .sequences = &plain, .n_sequences = 1, .events = &events, .context = &heard};
  struct engine_task_args other = {.model = b.model, .sequences = &edited, .n_sequences = 1, .events = &late_events, .context = &late};
  struct engine_task *task;
  pthread_mutex_lock(&gate);
  if (engine_submit_work(engine, b.model, &holding, 0, &gate, &task, &error) != 0 || engine_submit(engine, &other, &task, &error) != 0 ||
      engine_submit(engine, &one, &task, &error) != 0)
    fail_msg("%s", error.text);
  pthread_mutex_unlock(&gate);
  heard_wait(&heard);
  heard_wait(&late.heard);
  engine_free(engine);
  assert_int_equal(late.others, N_NEW);
  assert_int_equal(late.heard.seen[0][0], N_PROMPT);
  for (size_t i = 0; i < (size_t)N_PROMPT * 48; i++) assert_true(late.heard.rows[0][0][i] == replaced(N_EDITS - 1, i));
  heard_free(&late.heard);
  bench_close(&b);
}

/* ---- work ---- */

/* What was done in which order: a letter a slice. */
struct turns {
  pthread_mutex_t *gate;
  char *said;
  char letter;
  int left;
  atomic_bool begun;
  struct heard heard;
};

static int take_turn(void *context, struct plan *plan, struct error *error) {
  struct turns *turns = context;
  (void)plan;
  (void)error;
  atomic_store(&turns->begun, true);
  if (turns->gate) pthread_mutex_lock(turns->gate), pthread_mutex_unlock(turns->gate);
  turns->gate = NULL;
  turns->said[strlen(turns->said)] = turns->letter;
  return --turns->left > 0;
}

static void turns_done(void *context, const struct error *error) { on_done(&((struct turns *)context)->heard, error); }

/* Three works, the first two of three slices each; the first slice waits until all have been asked for. late: the others not before it has begun. */
static void expect_turns(bool long_one, bool late, const char *want) {
  static const struct engine_work slow = {.slice = take_turn, .done = turns_done, .asked = true, .long_one = true};
  static const struct engine_work usual = {.slice = take_turn, .done = turns_done, .asked = true};
  struct bench b;
  struct error error = ERROR_INIT;
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  char said[16] = "";
  struct turns all[3];
  for (int i = 0; i < 3; i++)
    all[i] = (struct turns){i ? NULL : &gate, said, (char)('a' + i), i < 2 ? 3 : 1, false,
                            {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}};
  assert_int_equal(bench_open(&b, "cpu", TINY "model"), 0);
  struct engine *engine = open_engine(&b);
  struct engine_task *task;
  pthread_mutex_lock(&gate);
  for (int i = 0; i < 3; i++) {
    if (engine_submit_work(engine, b.model, long_one && i < 2 ? &slow : &usual, 0, &all[i], &task, &error) != 0) fail_msg("%s", error.text);
    while (late && !atomic_load(&all[0].begun)) usleep(100);
  }
  pthread_mutex_unlock(&gate);
  for (int i = 0; i < 3; i++) heard_wait(&all[i].heard);
  engine_free(engine);
  assert_string_equal(said, want);
  bench_close(&b);
}

static void test_long_work_lets_others_come_first(void **state) {
  (void)state;
  for (int late = 0; late < 2; late++) {
    expect_turns(false, late, "aaabbbc");
    expect_turns(true, late, "abcabab");
  }
}

static void test_too_many_points(void **state) {
  (void)state;
  struct bench b;
  struct error error = ERROR_INIT;
  struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  struct point *all;
  size_t n;
  assert_int_equal(bench_open(&b, "cpu", TINY "model"), 0);
  struct engine *engine = open_engine(&b);
  assert_int_equal(points_select("*", &b.model->arch, &all, &n, &error), 0);
  int32_t ids[4] = {1, 2, 3, 4};
  struct engine_sequence sequence = {.tokens = ids, .n_tokens = 4, .last_layer = 3, .taps = all, .n_taps = (int)n, .eos = -1};
  struct engine_task_args args = {.model = b.model, .sequences = &sequence, .n_sequences = 1, .events = &events, .context = &heard};
  struct engine_task *task;
  assert_int_equal(engine_submit(engine, &args, &task, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_non_null(strstr(error.text, "ask for fewer points at once"));
  free(all);
  engine_free(engine);
  bench_close(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_taps_of_a_generation), cmocka_unit_test(test_an_edited_fork),
                                     cmocka_unit_test(test_engines_one_after_the_other),
                                     cmocka_unit_test(test_large_edits_hold_nobody_up), cmocka_unit_test(test_long_work_lets_others_come_first), cmocka_unit_test(test_too_many_points)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
