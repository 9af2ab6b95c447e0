/* Direct effects (core/model/direct.h): of logits against backward.h, which tests/unit/test_backward.c holds against PyTorch: there every MLP's
 * output is put in place by an edit, through which nothing flows. Vectors at layers are held against PyTorch by
 * tests/http/test_lab_graph.py; here, that a batch leaves nothing behind and that lanes do not meet. */
#include <stdlib.h>
#include <string.h>

#include "core/model/direct.h"
#include "tests/unit/plan_bench.h"

#define FAMILIES "tests/vectors/families/"

enum { RIGHT = 5, WRONG = 11, N = 7 };
static const int32_t ids[N] = {7, 31, 5, 64, 12, 90, 41};
static const char *const all_backends[] = {"ref", "cpu-generic", "cpu-avx2", "cpu-avx512"};

/* What came to every layer's output and, behind them, to the stream: [n_layer + 1][lanes][N][width]. */
struct came {
  struct bench *b;
  float *at;
  int64_t width;
  int lanes;
  int32_t n_layer, told;
};

static float *came_at(const struct came *came, int32_t layer, int lane) {
  return came->at + ((int64_t)layer * came->lanes + lane) * N * came->width;
}

static void read_rows(struct backend *backend, struct rows rows, int32_t n, int64_t width, float *to) {
  for (int32_t row = 0; row < n; row++)
    assert_int_equal(backend->ops->read(backend, to + row * width, span_at(rows.at, (size_t)(row * rows.ld) * sizeof(float)),
                                        (size_t)width * sizeof(float), NULL), 0);
}

static int on_wrote(void *context, int32_t layer, struct rows gradients, int64_t width, struct error *error) {
  struct came *came = context;
  (void)error;
  assert_int_equal(width, came->width);
  read_rows(came->b->backend, gradients, came->lanes * N, width, came_at(came, layer < 0 ? came->n_layer : layer, 0));
  came->told++;
  return 0;
}

static const struct direct_events events = {on_wrote, NULL};

struct run {
  struct bench *b;
  struct direct_layer layers[MAX_LAYERS];
  struct direct *direct;
  struct came came;
};

static void finish(struct run *run, int (*slice)(struct direct *, struct error *)) {
  struct error error = ERROR_INIT;
  int more;
  while ((more = slice(run->direct, &error)) > 0) {}
  if (more < 0) fail_msg("%s", error.text);
}

static void run_open(struct run *run, struct bench *b, enum site in) {
  struct error error = ERROR_INIT;
  const struct arch *arch = &b->model->arch;
  *run = (struct run){.b = b};
  for (int l = 0; l < arch->n_layer; l++) run->layers[l] = (struct direct_layer){in, SITE_MLP_OUT, 0};
  struct direct_args args = {.ids = ids, .n_tokens = N, .layers = run->layers, .most_bytes = (size_t)1 << 30, .events = &events,
                             .context = &run->came};
  run->direct = direct_new(b->plan, &args, &error);
  if (!run->direct) fail_msg("%s", error.text);
  finish(run, direct_forward);
  run->came = (struct came){.b = b, .width = arch->d_model, .lanes = direct_lanes(run->direct), .n_layer = arch->n_layer};
  size_t floats = (size_t)(arch->n_layer + 1) * (size_t)run->came.lanes * N * (size_t)arch->d_model;
  run->came.at = calloc(floats, sizeof *run->came.at);
  assert_int_equal(run->came.lanes, DIRECT_LANES); /* so short a text has room for all */
}

static void run_close(struct run *run) {
  direct_free(run->direct);
  free(run->came.at);
}

/* Layers that nothing comes to are not told. */
static void send(struct run *run, const struct direct_target *targets, int n) {
  size_t floats = (size_t)(run->came.n_layer + 1) * DIRECT_LANES * N * (size_t)run->came.width;
  memset(run->came.at, 0, floats * sizeof *run->came.at);
  run->came.lanes = n;
  direct_begin(run->direct, targets, n);
  finish(run, direct_back);
}

/* ---- logits, against the gradient ---- */

struct seen {
  struct run *run;
  float *at; /* [n_layer + 1][N][width] */
};

static int on_logits(void *context, int text, int32_t position, const float *logits, float *gradient, struct error *error) {
  (void)context;
  (void)text;
  (void)logits;
  (void)error;
  assert_int_equal(position, N - 1);
  gradient[RIGHT] = 1;
  gradient[WRONG] = -1;
  return 0;
}

static int on_seen(void *context, const struct backward_seen *what, struct error *error) {
  struct seen *seen = context;
  int64_t width = seen->run->came.width;
  int32_t at = what->point.site == SITE_MLP_OUT ? what->point.layer : seen->run->came.n_layer;
  (void)error;
  read_rows(seen->run->b->backend, what->gradients, N, width, seen->at + at * N * width);
  return 0;
}

static const struct backward_events gradient_events = {on_logits, on_seen};

/* Every MLP's output as it is, put there. */
static struct memory *put_outputs(struct run *run, struct edit_item *items, int32_t *begin) {
  struct backend *backend = run->b->backend;
  int64_t width = run->came.width;
  size_t each = N * (size_t)width * sizeof(float);
  struct memory *memory;
  float *rows = malloc(each);
  assert_int_equal(backend->ops->alloc(backend, each * (size_t)run->came.n_layer, &memory, NULL), 0);
  for (int32_t l = 0; l < run->came.n_layer; l++) {
    struct span at = {memory, each * (size_t)l};
    read_rows(backend, direct_values(run->direct, (struct point){l, SITE_MLP_OUT}), N, width, rows);
    assert_int_equal(backend->ops->write(backend, at, rows, each, NULL), 0);
    items[l] = (struct edit_item){.kind = EDIT_ROW_REPLACE, .rows = {0, N}, .column_end = (int32_t)width, .v = at};
  }
  int32_t n = 0;
  for (int p = 0; p <= point_count(run->came.n_layer); p++) {
    begin[p] = n;
    n += p % SITE_COUNT == SITE_MLP_OUT && p / SITE_COUNT < run->came.n_layer;
  }
  free(rows);
  return memory;
}

static float *gradients_of(struct run *run) {
  struct edit_item items[MAX_LAYERS];
  int32_t begin[MAX_POINTS + 1];
  struct point points[MAX_LAYERS + 1];
  struct error error = ERROR_INIT;
  int32_t n_layer = run->came.n_layer;
  struct memory *memory = put_outputs(run, items, begin);
  for (int32_t l = 0; l < n_layer; l++) points[l] = (struct point){l, SITE_MLP_OUT};
  points[n_layer] = (struct point){0, SITE_RESID_PRE};
  struct seen seen = {run, calloc((size_t)(n_layer + 1) * N * (size_t)run->came.width, sizeof(float))};
  struct backward_args args = {.ids = {ids}, .n_tokens = N, .edits = items, .edit_begin = begin, .hold_norms = true, .hold_pattern = true,
                               .points = points, .n_points = n_layer + 1, .first = N - 1, .last = N - 1, .most_bytes = (size_t)1 << 30,
                               .events = &gradient_events, .context = &seen};
  struct backward *backward = backward_new(run->b->plan, &args, &error);
  if (!backward) fail_msg("%s", error.text);
  int more;
  while ((more = backward_slice(backward, &error)) > 0) {}
  if (more < 0) fail_msg("%s", error.text);
  backward_free(backward);
  run->b->backend->ops->free(run->b->backend, memory);
  return seen.at;
}

/* Two sums of the same numbers in f32, in other orders: 1e-5 of the largest. */
static void near(const char *what, const float *got, const float *want, size_t n) {
  double largest = 0, worst = 0;
  for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)want[i]));
  for (size_t i = 0; i < n; i++) {
    double off = fabs((double)got[i] - (double)want[i]);
    if (!(off <= worst)) worst = off;
  }
  if (!(worst <= 1e-5 * largest)) fail_msg("%s: off by %.3g, the largest is %.3g", what, worst, largest);
}

static void check_logits(struct run *run) {
  int32_t n_layer = run->came.n_layer;
  const struct direct_target targets[] = {{n_layer, N - 1, RIGHT, NULL}, {n_layer, N - 1, WRONG, NULL}};
  float *want = gradients_of(run);
  send(run, targets, 2);
  assert_int_equal(run->came.told, n_layer + 1);
  size_t floats = N * (size_t)run->came.width;
  for (int32_t l = 0; l <= n_layer; l++) {
    char what[160];
    float *got = came_at(&run->came, l, 0);
    const float *wrong = came_at(&run->came, l, 1);
    for (size_t i = 0; i < floats; i++) got[i] -= wrong[i];
    snprintf(what, sizeof what, "%s on %s, layer %d", run->b->model->path, run->b->backend->ops->name, (int)l);
    near(what, got, want + (size_t)l * floats, floats);
  }
  free(want);
}

/* ---- batches ---- */

/* A batch of everything at once, once more, and one by one. */
static void check_batch(struct run *run) {
  int32_t n_layer = run->came.n_layer;
  int64_t width = run->came.width;
  float *vector = malloc((size_t)width * sizeof *vector);
  struct direct_target targets[DIRECT_LANES];
  for (int64_t i = 0; i < width; i++) vector[i] = (float)((i * 37 % 19) - 9) / 10;
  for (int i = 0; i < DIRECT_LANES; i++) targets[i] = (struct direct_target){i % (n_layer + 1), N - 1, RIGHT, vector};
  for (int i = 0; i < DIRECT_LANES; i++)
    if (targets[i].layer < n_layer) targets[i].position = (i * 5) % N;
  send(run, targets, DIRECT_LANES);
  size_t floats = N * (size_t)width, all = floats * DIRECT_LANES * (size_t)(n_layer + 1);
  float *first = malloc(all * sizeof *first), *alone = malloc(floats * sizeof *alone);
  memcpy(first, run->came.at, all * sizeof *first);
  send(run, targets, DIRECT_LANES);
  assert_memory_equal(first, run->came.at, all * sizeof *first);
  for (int i = 0; i < DIRECT_LANES; i++) {
    send(run, &targets[i], 1);
    for (int32_t l = 0; l <= n_layer; l++) {
      memcpy(alone, came_at(&run->came, l, 0), floats * sizeof *alone);
      run->came.lanes = DIRECT_LANES;
      near("a lane beside others", first + (size_t)(came_at(&run->came, l, i) - run->came.at), alone, floats);
      run->came.lanes = 1;
    }
  }
  free(vector);
  free(first);
  free(alone);
}

static void check_model(const char *folder, enum site in, bool capped) {
  for (size_t i = 0; i < sizeof all_backends / sizeof *all_backends; i++) {
    struct bench b;
    struct run run;
    if (bench_open_with(&b, all_backends[i], folder, model_open_weights) != 0) continue;
    run_open(&run, &b, in);
    if (!capped) check_logits(&run); /* the gradient of a capped logit is not the logit's own */
    check_batch(&run);
    run_close(&run);
    bench_close(&b);
  }
}

static void test_tiny(void **state) {
  (void)state;
  check_model(TINY "model", SITE_LN2_NORMALIZED, false);
  check_model(TINY "model", SITE_RESID_MID, false);
}

static void test_families(void **state) {
  (void)state;
  check_model(FAMILIES "gemma2", SITE_MLP_IN, true);
  check_model(FAMILIES "gemma3", SITE_MLP_IN, false);
  check_model(FAMILIES "llama", SITE_MLP_IN, false);
  check_model(FAMILIES "qwen3", SITE_LN2_NORMALIZED, false);
  check_model(FAMILIES "gpt_neox", SITE_LN2_NORMALIZED, false); /* attention and MLP side by side */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny), cmocka_unit_test(test_families)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
