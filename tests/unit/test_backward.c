/* Gradients of whole models: of every family against PyTorch's autograd (tests/vectors/gradients/make.py), and against differences of
 * forward passes that add a little to a point, which know nothing of a way back. */
#include "core/model/backward.h"
#include "tests/unit/plan_bench.h"

#define FAMILIES "tests/vectors/families/"
#define GRADIENTS "tests/vectors/gradients/"

enum { RIGHT = 5, WRONG = 11 };

static const char *const all_backends[] = {"ref", "cpu-generic", "cpu-avx2", "cpu-avx512"};

/* What is wanted of one text, and what came of it: gradients and values of every point asked for. */
struct gradient_run {
  struct bench *b;
  struct backward_args args;
  bool of_loss;
  double value;
  struct point points[MAX_POINTS];
  float *values[MAX_POINTS], *gradients[MAX_POINTS]; /* [n_tokens][width], of args.points */
  float *others[MAX_POINTS]; /* values of the second text */
  int64_t width[MAX_POINTS];
  int slices;
};

/* The logit of one token less that of another; or the mean loss. */
static int on_logits(void *context, int text, int32_t position, const float *logits, float *gradient, struct error *error) {
  struct gradient_run *run = context;
  (void)error;
  if (text > 0) return 0;
  if (!run->of_loss) {
    run->value = (double)logits[RIGHT] - (double)logits[WRONG];
    gradient[RIGHT] = 1;
    gradient[WRONG] = -1;
    return 0;
  }
  int64_t n = run->b->model->arch.vocabulary;
  double largest = -INFINITY, sum = 0, each = 1.0 / (run->args.n_tokens - 1);
  int32_t next = run->args.ids[0][position + 1];
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, logits[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)logits[i] - largest);
  for (int64_t i = 0; i < n; i++) gradient[i] = (float)(each * (exp((double)logits[i] - largest) / sum - (i == next)));
  run->value += each * (largest + log(sum) - (double)logits[next]);
  return 0;
}

static void read_all(struct gradient_run *run, struct rows rows, int64_t width, float *to) {
  for (int32_t row = 0; row < run->args.n_tokens; row++)
    assert_int_equal(run->b->backend->ops->read(run->b->backend, to + row * width, span_at(rows.at, (size_t)(row * rows.ld) * sizeof(float)),
                                                (size_t)width * sizeof(float), NULL), 0);
}

static int on_seen(void *context, const struct backward_seen *seen, struct error *error) {
  struct gradient_run *run = context;
  (void)error;
  for (int i = 0; i < run->args.n_points; i++) {
    if (point_index(run->points[i]) != point_index(seen->point)) continue;
    size_t floats = (size_t)run->args.n_tokens * (size_t)seen->width;
    assert_null(run->values[i]);
    run->values[i] = malloc(floats * sizeof(float));
    run->gradients[i] = malloc(floats * sizeof(float));
    run->width[i] = seen->width;
    read_all(run, seen->values, seen->width, run->values[i]);
    read_all(run, seen->gradients, seen->width, run->gradients[i]);
    if (!run->args.ids[1]) continue;
    struct rows others = seen->values;
    others.at = span_at(others.at, (size_t)(run->args.n_tokens * others.ld) * sizeof(float));
    run->others[i] = malloc(floats * sizeof(float));
    read_all(run, others, seen->width, run->others[i]);
  }
  return 0;
}

static const struct backward_events events = {on_logits, on_seen};

static void run_free(struct gradient_run *run) {
  for (int i = 0; i < run->args.n_points; i++) {
    free(run->values[i]);
    free(run->gradients[i]);
    free(run->others[i]);
    run->values[i] = run->gradients[i] = run->others[i] = NULL;
  }
}

static void run_all(struct gradient_run *run) {
  struct error error = ERROR_INIT;
  run->args.points = run->points;
  run->args.events = &events;
  run->args.context = run;
  if (!run->args.most_bytes) run->args.most_bytes = (size_t)1 << 30;
  run->args.first = run->of_loss ? 0 : run->args.n_tokens - 1;
  run->args.last = run->of_loss ? run->args.n_tokens - 2 : run->args.n_tokens - 1;
  run->value = 0;
  struct backward *backward = backward_new(run->b->plan, &run->args, &error);
  if (!backward) fail_msg("%s", error.text);
  int more;
  while ((more = backward_slice(backward, &error)) > 0) run->slices++;
  if (more < 0) fail_msg("%s", error.text);
  backward_free(backward);
}

/* ---- against PyTorch ---- */

/* |a - b| <= 1e-4 rms + 1e-6 of the largest gradient of the model: recorded are float64 results; f32 sums of some hundred terms, through at
 * most three layers there and back, stay an order below the first. What goes to queries and keys is a difference of numbers as large
 * as what flows through the layer, whose rounding is the second. */
static void agree(const char *what, const float *got, const float *want, size_t n, double largest) {
  double square = 0, worst = 0;
  for (size_t i = 0; i < n; i++) square += (double)want[i] * want[i];
  double limit = 1e-4 * sqrt(square / (double)n) + 1e-6 * largest;
  for (size_t i = 0; i < n; i++) {
    double off = fabs((double)got[i] - want[i]);
    if (!(off <= worst)) worst = off;
  }
  if (!(worst <= limit)) fail_msg("%s: off by %.3g, allowed %.3g", what, worst, limit);
}

/* Points of the vectors, under "loss/" or without. */
static void ask_recorded(struct gradient_run *run, const struct tensors *want, const char *prefix) {
  run->args.n_points = 0;
  for (int i = 0; i < point_count(run->b->model->arch.n_layer); i++) {
    char name[POINT_NAME_BYTES], key[80];
    struct point point = {i / SITE_COUNT, (enum site)(i % SITE_COUNT)};
    snprintf(key, sizeof key, "%s%s", prefix, point_name(point, name));
    if (tensors_find(want, key)) run->points[run->args.n_points++] = point;
  }
  assert_true(run->args.n_points > 0);
}

static double largest_gradient(const struct gradient_run *run) {
  double largest = 0;
  for (int i = 0; i < run->args.n_points; i++)
    for (int64_t k = 0; run->gradients[i] && k < run->width[i] * run->args.n_tokens; k++)
      largest = fmax(largest, fabs((double)run->gradients[i][k]));
  return largest;
}

static void compare_recorded(struct gradient_run *run, const struct tensors *want, const char *prefix, const int32_t *rows, size_t n_rows) {
  for (int i = 0; i < run->args.n_points; i++) {
    char name[POINT_NAME_BYTES], key[80], what[160];
    size_t n, width = (size_t)run->width[i];
    snprintf(key, sizeof key, "%s%s", prefix, point_name(run->points[i], name));
    snprintf(what, sizeof what, "%s on %s: %s", run->b->model->path, run->b->backend->ops->name, key);
    if (!run->gradients[i]) fail_msg("%s was not seen", what);
    float *recorded = vectors_f32(want, key, &n), *got = malloc(n * sizeof *got);
    assert_int_equal(n, n_rows * width);
    for (size_t r = 0; r < n_rows; r++) memcpy(got + r * width, run->gradients[i] + (size_t)rows[r] * width, width * sizeof *got);
    agree(what, got, recorded, n, largest_gradient(run));
    free(recorded);
    free(got);
  }
}

static void check_number(struct gradient_run *run, const struct tensors *want, const char *name) {
  size_t n;
  float *recorded = vectors_f32(want, name, &n);
  agree(name, &(float){(float)run->value}, recorded, 1, 10); /* logits are below 10 */
  free(recorded);
}

static void check_vectors(struct bench *b, const struct tensors *want) {
  size_t n, n_rows;
  int32_t *ids = vectors_i32(want, "ids", &n), *rows = vectors_i32(want, "rows", &n_rows);
  struct gradient_run run = {.b = b, .args = {.ids = {ids}, .n_tokens = (int32_t)n}};
  ask_recorded(&run, want, "");
  run_all(&run);
  compare_recorded(&run, want, "", rows, n_rows);
  check_number(&run, want, "value");
  run_free(&run);
  run.of_loss = true;
  ask_recorded(&run, want, "loss/");
  run_all(&run);
  compare_recorded(&run, want, "loss/", rows, n_rows);
  check_number(&run, want, "loss");
  run_free(&run);
  free(ids);
  free(rows);
}

static void check_model(const char *folder, const char *vectors) {
  char name[128];
  snprintf(name, sizeof name, GRADIENTS "%s.safetensors", vectors);
  for (size_t i = 0; i < sizeof all_backends / sizeof *all_backends; i++) {
    struct bench b;
    if (bench_open_with(&b, all_backends[i], folder, model_open_weights) != 0) continue;
    struct tensors *want = vectors_open(name);
    check_vectors(&b, want);
    tensors_close(want);
    bench_close(&b);
  }
}

static void test_family(void **state) {
  char folder[128];
  snprintf(folder, sizeof folder, FAMILIES "%s", (const char *)*state);
  check_model(folder, *state);
}

static void test_tiny(void **state) {
  (void)state;
  check_model(TINY "model", "tiny-gpt2");
}

/* ---- against differences ---- */

/* The metric of a forward pass of a step, with the bench's edits. */
static double forward_value(struct bench *b, const int32_t *ids, int32_t n) {
  size_t v = (size_t)b->model->arch.vocabulary;
  float *logits = malloc((size_t)n * v * sizeof *logits);
  bench_run(b, ids, 0, n, logits);
  const float *last = logits + (size_t)(n - 1) * v;
  double value = (double)last[RIGHT] - (double)last[WRONG];
  free(logits);
  return value;
}

static struct span put(struct bench *b, struct memory **memory, const float *v, size_t n) {
  struct error error = ERROR_INIT;
  assert_int_equal(b->backend->ops->alloc(b->backend, n * sizeof *v, memory, &error), 0);
  assert_int_equal(b->backend->ops->write(b->backend, (struct span){*memory, 0}, v, n * sizeof *v, &error), 0);
  return (struct span){*memory, 0};
}

/* Logits are rounded to 2^-24 of numbers below 10 after a few layers: about 1e-5, over 2^-6. Against the length of the gradient, since a
 * direction may cross it. */
#define SIDE 0x1p-7f
#define DIFFERENCE 5e-3

/* How the metric grows along v at one row of a point, where the bench has edits [1, 1 + more_edits) beside. */
static double slope(struct bench *b, const int32_t *ids, int32_t n, struct edit_item *items) {
  static const double weights[] = {1, -8, 8, -1}; /* of -2, -1, 1, 2 steps, over 12: off by the fourth power of a step */
  static const float steps[] = {-2, -1, 1, 2};
  double sum = 0;
  for (int k = 0; k < 4; k++) {
    items[0].value = steps[k] * SIDE;
    sum += weights[k] * forward_value(b, ids, n);
  }
  return sum / (12.0 * (double)SIDE);
}

static void check_slope(struct gradient_run *run, int i, struct point point, int32_t row, struct edit_item *items) {
  struct bench *b = run->b;
  struct memory *memory;
  char name[POINT_NAME_BYTES];
  int64_t width = run->width[i];
  float *v = malloc((size_t)width * sizeof *v);
  const float *g = run->gradients[i] + row * width;
  double length = 0, along = 0;
  for (int64_t k = 0; k < width; k++) length += (double)g[k] * g[k];
  length = sqrt(length) + 1e-9;
  for (int64_t k = 0; k < width; k++) v[k] = (float)((k % 3 - 1.0) / sqrt((double)width) + (double)g[k] / length);
  for (int64_t k = 0; k < width; k++) along += (double)g[k] * v[k];
  items[0] = (struct edit_item){.kind = EDIT_ROW_ADD, .rows = {row, row + 1}, .column_begin = 0, .column_end = (int32_t)width};
  items[0].v = put(b, &memory, v, (size_t)width);
  b->edit = items;
  b->edit_point = point;
  double want = slope(b, run->args.ids[0], run->args.n_tokens, items);
  if (!(fabs(along - want) <= DIFFERENCE * fmax(length, 0.1)))
    fail_msg("%s on %s, row %d of %s: %.6g, a difference gives %.6g", b->model->path, b->backend->ops->name, row, point_name(run->points[i], name),
             along, want);
  b->edit = NULL;
  b->backend->ops->free(b->backend, memory);
  free(v);
}

static void ask_everything(struct gradient_run *run) {
  const struct arch *arch = &run->b->model->arch;
  for (int i = 0; i < point_count(arch->n_layer); i++) {
    struct point point = {i / SITE_COUNT, (enum site)(i % SITE_COUNT)};
    if (point.layer == arch->n_layer || !backward_has(point.site) || point_missing(arch, point.site)) continue;
    if (point.site > SITE_POS_EMBED || point.layer == 0) run->points[run->args.n_points++] = point;
  }
}

/* Of a device, which may be an emulated one, every so manieth is tried: its lists are the same, and what ops of backends differ in test_vjp.c
 * looks at. */
static int stride(void) { return getenv("STEERD_TEST_BACKEND") ? 9 : 1; }

/* Every point of a model that has a gradient, at two positions of it. */
static void check_everything(const char *folder) {
  static const int32_t ids[] = {7, 31, 5, 64, 12, 90, 41, 3, 77, 20, 55};
  struct bench b;
  if (bench_open_with(&b, "cpu", folder, model_open_weights) != 0) return;
  struct gradient_run run = {.b = &b, .args = {.ids = {ids}, .n_tokens = 11}};
  b.tapped = 0;
  ask_everything(&run);
  run_all(&run);
  struct edit_item item;
  for (int k = 0; k < run.args.n_points; k++) assert_non_null(run.gradients[k]);
  for (int k = 0; k < run.args.n_points; k += stride()) {
    check_slope(&run, k, run.points[k], 10, &item);
    check_slope(&run, k, run.points[k], 6, &item);
  }
  run_free(&run);
  bench_close(&b);
}

static void test_everything(void **state) {
  (void)state;
  check_everything(TINY "model");
  check_everything(FAMILIES "gemma2");
  check_everything(FAMILIES "qwen3");
  check_everything(FAMILIES "stablelm-heads");
  check_everything(FAMILIES "toy-solu");
  check_everything(FAMILIES "toy-shortformer");
  check_everything(FAMILIES "opt-350m");
}

/* Edits of every kind at a layer's input: what stands in front of them is the end of the layer below, where gradients have gone
 * through them. */
static void test_edits(void **state) {
  (void)state;
  static const int32_t ids[] = {7, 31, 5, 64, 12, 90, 41, 3, 77, 20, 55};
  enum { N = 11, WIDTH = 48 };
  float v[WIDTH * N], enc[WIDTH];
  double square = 0;
  struct bench b;
  if (bench_open(&b, "cpu", TINY "model") != 0) return;
  b.tapped = 0;
  for (int i = 0; i < WIDTH * N; i++) v[i] = (float)((i * 37 % 19) - 9) / 30;
  for (int i = 0; i < 36; i++) square += (double)v[i] * v[i];
  for (int i = 0; i < 36; i++) v[i] = (float)(v[i] / sqrt(square)); /* of unit length, as the kinds that measure want it */
  for (int i = 0; i < WIDTH; i++) enc[i] = i < 36 ? 3 * v[i] : 0; /* what is taken out of the row takes the feature below its threshold */
  struct memory *memory[2];
  struct span v_at = put(&b, &memory[0], v, WIDTH * N), enc_at = put(&b, &memory[1], enc, WIDTH);
  for (int kind = EDIT_ROW_ADD; kind <= EDIT_ROW_FEATURE_SCALE; kind++) {
    struct edit_item items[2] = {{0}, {.kind = (enum edit_kind)kind, .rows = {2, N}, .column_begin = 4, .column_end = 40,
                                       .value = kind == EDIT_ROW_CAP ? 0.05f : kind >= EDIT_ROW_FEATURE_SET ? 0 : 0.4f, .v = v_at, .enc = enc_at, .bias = 0.3f, .threshold = 0.05f, .fold = 1.3f}};
    int32_t begin[MAX_POINTS + 1];
    for (int p = 0; p <= point_count(3); p++) begin[p] = p > point_index((struct point){1, SITE_RESID_PRE});
    struct gradient_run run = {.b = &b, .args = {.ids = {ids}, .n_tokens = N, .edits = &items[1], .edit_begin = begin, .n_points = 2}};
    run.points[0] = (struct point){0, SITE_RESID_POST};
    run.points[1] = (struct point){1, SITE_RESID_PRE};
    run_all(&run);
    b.more_edits = 1;
    for (int32_t row = 1; row < N; row += 3 * stride()) check_slope(&run, 0, run.points[1], row, items);
    b.more_edits = 0;
    run_free(&run);
  }
  for (int i = 0; i < 2; i++) b.backend->ops->free(b.backend, memory[i]);
  bench_close(&b);
}

/* Edits at cold and derived points, whose ops only instrumented lists have: rows of one head scaled, a layer above what is moved. */
static void test_edits_of_cold_points(void **state) {
  (void)state;
  static const int32_t ids[] = {7, 31, 5, 64, 12, 90, 41, 3, 77, 20, 55};
  static const enum site sites[] = {SITE_HEAD_IN, SITE_Q_IN, SITE_K_IN, SITE_V_IN, SITE_LN1_SCALE, SITE_LN1_NORMALIZED, SITE_ATTN_IN, SITE_Q,
                                    SITE_V, SITE_ATTN_Z, SITE_RESULT, SITE_MLP_RESID, SITE_LN2_NORMALIZED, SITE_MLP_IN, SITE_MLP_PRE,
                                    SITE_MLP_POST};
  enum { N = 11 };
  struct bench b;
  if (bench_open(&b, "cpu", TINY "model") != 0) return;
  b.tapped = 0;
  for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
    int64_t width = bench_width(&b, sites[i]);
    int heads = point_shape(&b.model->arch, sites[i]).heads;
    int32_t first = heads ? (int32_t)(width / heads) : 0, end = heads ? 2 * first : (int32_t)width;
    struct edit_item items[2] = {{0}, {.kind = EDIT_ROW_SCALE, .rows = {3, N}, .column_begin = first, .column_end = end, .value = 0.6f}};
    int32_t begin[MAX_POINTS + 1];
    b.later_point = (struct point){1, sites[i]};
    for (int p = 0; p <= point_count(3); p++) begin[p] = p > point_index(b.later_point);
    struct gradient_run run = {.b = &b, .args = {.ids = {ids}, .n_tokens = N, .edits = &items[1], .edit_begin = begin, .n_points = 1}};
    run.points[0] = (struct point){0, SITE_RESID_POST};
    run_all(&run);
    b.later_edits = 1;
    for (int32_t row = 1; row < N; row += 4 * stride()) check_slope(&run, 0, run.points[0], row, items);
    b.later_edits = 0;
    run_free(&run);
  }
  bench_close(&b);
}

/* ---- what is held ---- */

static double total(const struct gradient_run *run, int i, const float *values) {
  double sum = 0;
  for (int64_t k = 0; k < run->width[i] * run->args.n_tokens; k++) sum += (double)run->gradients[i][k] * values[k];
  return sum;
}

/* Of a stream of zeros norms leave their bias and attention, whose values are then all alike, a constant: what a layer adds of its own. */
static void constant_part(struct bench *b, const int32_t *ids, int32_t n, int layer, float *out) {
  struct edit_item zero = {.kind = EDIT_ROW_FILL, .rows = {0, n}, .column_begin = 0, .column_end = (int32_t)b->model->arch.d_model};
  b->tapped = site_bit(SITE_ATTN_OUT);
  b->edit = &zero;
  b->edit_point = (struct point){layer, SITE_RESID_PRE};
  forward_value(b, ids, n);
  bench_point(b, (struct point){layer, SITE_ATTN_OUT}, n, out);
  b->edit = NULL;
}

/* With patterns and divisors held a model without MLPs is linear: gradients times what stands at a layer's input, and times the layer's own
 * constant, are gradients times what stands at its output, which with the head's own constant is the metric. */
static void check_linear(const char *folder, bool held) {
  static const int32_t ids[] = {7, 31, 5, 64, 12, 90, 41, 3, 77, 20, 55};
  enum { N = 11 };
  struct bench b;
  if (bench_open_with(&b, "cpu", folder, model_open_weights) != 0) return;
  struct error error = ERROR_INIT;
  struct gradient_run run = {.b = &b, .args = {.ids = {ids}, .n_tokens = N, .hold_norms = held, .hold_pattern = held, .n_points = 6}};
  const struct arch *arch = &b.model->arch;
  assert_int_equal(arch->n_layer, 2);
  for (int i = 0; i < 6; i++) run.points[i] = (struct point){i / 3, i % 3 == 0 ? SITE_RESID_PRE : i % 3 == 1 ? SITE_ATTN_OUT : SITE_RESID_POST};
  run_all(&run);
  float *constant = malloc((size_t)N * (size_t)arch->d_model * sizeof *constant), *logits = malloc((size_t)arch->vocabulary * sizeof *logits);
  double off = 0;
  for (int l = 0; l < 2; l++) {
    constant_part(&b, ids, N, l, constant);
    off += fabs(total(&run, 3 * l, run.values[3 * l]) + total(&run, 3 * l + 1, constant) - total(&run, 3 * l + 2, run.values[3 * l + 2]));
  }
  memset(constant, 0, (size_t)arch->d_model * sizeof *constant);
  assert_int_equal(plan_lens(b.plan, constant, 1, &error), 0);
  assert_int_equal(b.backend->ops->read(b.backend, logits, plan_logits(b.plan).at, (size_t)arch->vocabulary * sizeof *logits, &error), 0);
  off += fabs(total(&run, 5, run.values[5]) + (double)logits[RIGHT] - (double)logits[WRONG] - run.value);
  if (held ? off > 1e-4 : off < 1e-2) fail_msg("%s: off by %.3g", folder, off); /* some hundred products of numbers below 10, in f32 */
  free(constant);
  free(logits);
  run_free(&run);
  bench_close(&b);
}

static void test_linear(void **state) {
  (void)state;
  check_linear(FAMILIES "toy-attn-only", true);
  check_linear(FAMILIES "toy-attn-only", false);
}

/* ---- two texts, little memory ---- */

static void same_gradients(const struct gradient_run *a, const struct gradient_run *b) {
  for (int i = 0; i < a->args.n_points; i++) {
    size_t bytes = (size_t)a->args.n_tokens * (size_t)a->width[i] * sizeof(float);
    assert_memory_equal(a->gradients[i], b->gradients[i], bytes);
    assert_memory_equal(a->values[i], b->values[i], bytes);
  }
}

/* What stands at a point on the way back has the bits of a step, in which it was tapped. */
static void check_values(const char *folder) {
  static const int32_t ids[] = {7, 31, 5, 64, 12, 90, 41, 3, 77, 20, 55};
  enum { N = 11 };
  struct bench b;
  if (bench_open_with(&b, "cpu", folder, model_open_weights) != 0) return;
  struct gradient_run run = {.b = &b, .args = {.ids = {ids}, .n_tokens = N}};
  ask_everything(&run);
  run_all(&run);
  forward_value(&b, ids, N);
  for (int i = 0; i < run.args.n_points; i++) {
    char name[POINT_NAME_BYTES];
    size_t floats = N * (size_t)run.width[i];
    float *tapped = malloc(floats * sizeof *tapped);
    bench_point(&b, run.points[i], N, tapped);
    if (memcmp(tapped, run.values[i], floats * sizeof *tapped) != 0) fail_msg("%s: %s has other bits", folder, point_name(run.points[i], name));
    free(tapped);
  }
  run_free(&run);
  bench_close(&b);
}

static void test_values(void **state) {
  (void)state;
  static const char *const some[] = {"gemma2", "qwen3", "gptj", "stablelm-heads", "opt", "opt-350m", "toy-solu-gains", "toy-shortformer"};
  char folder[128];
  for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
    snprintf(folder, sizeof folder, FAMILIES "%s", some[i]);
    check_values(folder);
  }
}

/* A second text changes no bit, and has its own; neither does running layers again instead of keeping what they made. */
static void test_bits(void **state) {
  (void)state;
  enum { N = 70 };
  int32_t ids[N], other[N];
  for (int i = 0; i < N; i++) ids[i] = i * 37 % 500, other[i] = (i * 91 + 7) % 500;
  struct bench b;
  struct error error = ERROR_INIT;
  if (bench_open(&b, "cpu", TINY "model") != 0) return;
  struct gradient_run plain = {.b = &b, .args = {.ids = {ids}, .n_tokens = N}};
  ask_everything(&plain);
  struct gradient_run beside = plain, again = plain;
  run_all(&plain);
  beside.args.ids[1] = other;
  run_all(&beside);
  same_gradients(&plain, &beside);
  struct gradient_run second = beside;
  memset(second.values, 0, sizeof second.values);
  memset(second.gradients, 0, sizeof second.gradients);
  memset(second.others, 0, sizeof second.others);
  second.args.ids[0] = other;
  second.args.ids[1] = NULL;
  run_all(&second);
  for (int i = 0; i < second.args.n_points; i++)
    assert_memory_equal(beside.others[i], second.values[i], N * (size_t)second.width[i] * sizeof(float));
  run_free(&second);
  again.args.events = &events;
  again.args.context = &again;
  again.args.points = again.points;
  struct backward *none;
  for (again.args.most_bytes = 1 << 16; !(none = backward_new(b.plan, &again.args, &error)); again.args.most_bytes += 1 << 14) {
    assert_int_equal(error.code, ERROR_LIMIT);
    error.code = 0;
  }
  backward_free(none);
  run_all(&again);
  same_gradients(&plain, &again);
  run_free(&plain);
  run_free(&beside);
  run_free(&again);
  bench_close(&b);
}

static const char *const families[] = {"gpt2-crfm", "gpt_neo", "gpt_neox", "gpt_neox-sequential", "gptj", "llama", "llama-scaled", "mistral",
                                       "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi", "phi3", "stablelm", "stablelm-parallel",
                                       "stablelm-heads", "opt", "opt-350m", "toy-attn-only", "toy-gelu", "toy-solu", "toy-solu-gains",
                                       "toy-shortformer"};

int main(void) {
  enum { N = sizeof families / sizeof *families };
  const struct CMUnitTest others[] = {
      cmocka_unit_test(test_tiny), cmocka_unit_test(test_everything), cmocka_unit_test(test_edits), cmocka_unit_test(test_linear),
      cmocka_unit_test(test_values),            cmocka_unit_test(test_edits_of_cold_points),
      cmocka_unit_test(test_bits),
  };
  struct CMUnitTest tests[N + sizeof others / sizeof *others];
  memset(tests, 0, sizeof tests);
  for (size_t k = 0; k < N; k++)
    tests[k] = (struct CMUnitTest){.name = families[k], .test_func = test_family, .initial_state = (void *)(uintptr_t)families[k]};
  memcpy(tests + N, others, sizeof others);
  return _cmocka_run_group_tests("gradients", tests, N + sizeof others / sizeof *others, NULL, NULL);
}
