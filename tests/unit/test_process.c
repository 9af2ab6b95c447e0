/* Processed weights against TransformerLens (tests/vectors/processed): every point, logits, what the unembedding makes of a
 * direction; and that the probabilities of the next token stay those of the model as stored. */
#include "tests/unit/plan_bench.h"

#include "core/model/process.h"

#define PROCESSED "tests/vectors/processed/"
#define FAMILIES "tests/vectors/families/"

static const char *backends[] = {"ref", "cpu-generic", "cpu"};
#define N_BACKENDS (sizeof backends / sizeof backends[0])

static const struct {
  const char *vectors, *folder;
  int lines; /* of process_lines */
} models[] = {{PROCESSED "tiny-gpt2.safetensors", TINY "model", 4},     {PROCESSED "llama.safetensors", FAMILIES "llama", 3},
              {PROCESSED "gpt_neox.safetensors", FAMILIES "gpt_neox", 4}, {PROCESSED "gptj.safetensors", FAMILIES "gptj", 4},
              {PROCESSED "qwen2.safetensors", FAMILIES "qwen2", 3},     {PROCESSED "qwen3.safetensors", FAMILIES "qwen3", 3},
              {PROCESSED "gemma2.safetensors", FAMILIES "gemma2", 2}};
#define N_MODELS (sizeof models / sizeof models[0])

/* ---- against TransformerLens ---- */

/* A point of n rows as the vectors have it: scores and patterns as [heads, q, k], hidden scores as -1e30. */
static float *read_point(struct bench *b, struct point point, size_t n, size_t *count) {
  size_t width = (size_t)bench_width(b, point.site);
  float *rows = malloc(n * width * sizeof *rows);
  bench_point(b, point, (int32_t)n, rows);
  struct point_shape shape = point_shape(&b->model->arch, point.site);
  *count = n * width;
  if (!shape.square) return rows;
  *count = (size_t)shape.heads * n * n;
  float *out = malloc(*count * sizeof *out);
  for (size_t h = 0; h < (size_t)shape.heads; h++)
    for (size_t q = 0; q < n; q++)
      for (size_t k = 0; k < n; k++) out[(h * n + q) * n + k] = fmaxf(rows[q * width + h * BENCH_KEYS + k], -1e30f);
  free(rows);
  return out;
}

static int compare_points_of(struct bench *b, const struct tensors *want, size_t n) {
  struct error error = ERROR_INIT;
  int compared = 0;
  for (size_t i = 0; i < tensors_count(want); i++) {
    const char *name = tensors_at(want, i)->name;
    struct point point;
    size_t count, have;
    if (!strchr(name, '.') && strncmp(name, "hook", 4) != 0) continue; /* ids, direction, probabilities */
    if (point_find(name, &b->model->arch, &point, &error) != 0) fail_msg("%s", error.text);
    float *recorded = vectors_f32(want, name, &count), *got = read_point(b, point, n, &have);
    assert_int_equal(have, count);
    assert_true(vectors_agree(name, got, recorded, count));
    free(recorded);
    free(got);
    compared++;
  }
  return compared;
}

/* A direction that is not centred sees whether the rows of the unembedding are. */
static void compare_direction(struct bench *b, const struct tensors *want) {
  struct error error = ERROR_INIT;
  size_t d, v;
  float *direction = vectors_f32(want, "direction", &d), *recorded = vectors_f32(want, "direction/logits", &v);
  float *got = malloc(v * sizeof *got);
  assert_int_equal(plan_unembed(b->plan, direction, 1, &error), 0);
  assert_int_equal(b->backend->ops->read(b->backend, got, plan_logits(b->plan).at, v * sizeof *got, &error), 0);
  assert_true(vectors_agree("direction/logits", got, recorded, v));
  free(direction);
  free(recorded);
  free(got);
}

static void softmax(float *x, size_t n) {
  double most = x[0], sum = 0;
  for (size_t i = 1; i < n; i++) most = fmax(most, x[i]);
  for (size_t i = 0; i < n; i++) sum += exp(x[i] - most);
  for (size_t i = 0; i < n; i++) x[i] = (float)(exp(x[i] - most) / sum);
}

static void compare_probabilities(const struct bench *b, const struct tensors *want, float *logits, size_t n) {
  size_t count, v = (size_t)b->model->arch.vocabulary;
  float *recorded = vectors_f32(want, "probabilities", &count);
  assert_int_equal(count, n * v);
  for (size_t r = 0; r < n; r++) {
    softmax(logits + r * v, v);
    /* logits agree to 1e-4 of their size at worst (decision 18), so that a probability moves by that part of itself */
    for (size_t i = 0; i < v; i++)
      assert_true(fabsf(logits[r * v + i] - recorded[r * v + i]) <= 1e-4f * recorded[r * v + i] + 1e-7f);
  }
  free(recorded);
}

static void compare_model(struct bench *b, const char *path) {
  struct tensors *want = vectors_open(path);
  size_t n;
  int32_t *ids = vectors_i32(want, "ids", &n);
  float *logits = malloc(n * (size_t)b->model->arch.vocabulary * sizeof *logits);
  bench_run(b, ids, 0, (int32_t)n, logits);
  assert_true(compare_points_of(b, want, n) >= 30);
  compare_direction(b, want);
  compare_probabilities(b, want, logits, n);
  free(logits);
  free(ids);
  tensors_close(want);
}

static void test_values(void **state) {
  (void)state;
  for (size_t m = 0; m < N_MODELS; m++)
    for (size_t i = 0; i < N_BACKENDS; i++) {
      struct bench b;
      if (bench_open_with(&b, backends[i], models[m].folder, model_open_weights_processed) != 0) continue;
      compare_model(&b, models[m].vectors);
      bench_close(&b);
    }
}

/* ---- every family ---- */

/* The probabilities of a model as stored are those of the processed one, in every family there is. */
static void test_probabilities_stay(void **state) {
  static const char *const folders[] = {"gemma", "gemma3", "gpt2-crfm", "gpt_neo", "gpt_neox-sequential", "mistral", "opt",
                                        "phi", "phi3", "stablelm", "stablelm-parallel", "stablelm-heads", "toy-attn-only", "toy-gelu",
                                        "toy-solu", "toy-solu-gains"};
  (void)state;
  for (size_t m = 0; m < sizeof folders / sizeof *folders; m++) {
    float *logits[2];
    size_t count = 0, v = 0;
    for (int processed = 0; processed < 2; processed++) {
      struct bench b;
      char folder[128];
      int32_t ids[20];
      snprintf(folder, sizeof folder, FAMILIES "%s", folders[m]);
      opener *open = processed ? model_open_weights_processed : model_open_weights;
      assert_int_equal(bench_open_with(&b, "ref", folder, open), 0);
      v = (size_t)b.model->arch.vocabulary;
      count = 20 * v;
      for (int i = 0; i < 20; i++) ids[i] = (i * 37 + 11) % (int32_t)v;
      logits[processed] = malloc(count * sizeof *logits[0]);
      b.tapped = 0;
      bench_run(&b, ids, 0, 20, logits[processed]);
      for (size_t r = 0; r < 20; r++) softmax(logits[processed] + r * v, v);
      bench_close(&b);
    }
    for (size_t i = 0; i < count; i++) /* as above; both are computed here, hence twice */
      if (fabsf(logits[0][i] - logits[1][i]) > 2e-4f * logits[0][i] + 1e-7f)
        fail_msg("%s: probability %zu of row %zu is %g, processed %g", folders[m], i % v, i / v, (double)logits[0][i],
                 (double)logits[1][i]);
    free(logits[0]);
    free(logits[1]);
  }
}

/* ---- what is told and refused ---- */

static void test_description(void **state) {
  (void)state;
  for (size_t m = 0; m < N_MODELS; m++) {
    struct bench plain, b;
    const char *lines[PROCESS_LINES];
    assert_int_equal(bench_open_with(&plain, "ref", models[m].folder, model_open_weights), 0);
    assert_int_equal(bench_open_with(&b, "ref", models[m].folder, model_open_weights_processed), 0);
    assert_int_equal(process_lines(&b.model->stored, lines), models[m].lines);
    assert_true(b.model->processed && !plain.model->processed);
    assert_true(arch_has(&b.model->arch, HAS_UNEMBED) && !arch_has(&b.model->arch, HAS_GAINS));
    assert_int_equal(b.model->weights.parameters, plain.model->weights.parameters);
    assert_int_equal(b.model->weights.dtype, plain.model->weights.dtype);
    assert_true(b.model->weights.once.matrix[SLOT_UNEMBED] != b.model->weights.once.matrix[SLOT_EMBED]);
    bench_close(&plain);
    bench_close(&b);
  }
}

static void test_what_is_refused(void **state) {
  (void)state;
  static const char *const refused[][2] = {{"toy-shortformer", "shortformer"}, {"opt-350m", "norms the residual stream itself"}};
  for (size_t i = 0; i < 2; i++) {
    struct error error = ERROR_INIT;
    char folder[128];
    struct backend *backend = backend_open("ref", 1, &error);
    snprintf(folder, sizeof folder, FAMILIES "%s", refused[i][0]);
    assert_null(model_open_weights_processed("short", folder, backend, &error));
    assert_int_equal(error.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, refused[i][1]));
    backend_close(backend);
  }
}

/* Rounded weights of a processed model are processed ones. */
static void test_rounded_again(void **state) {
  (void)state;
  struct bench b;
  struct weights rounded;
  struct error error = ERROR_INIT;
  assert_int_equal(bench_open_with(&b, "cpu-generic", TINY "model", model_open_weights_processed), 0);
  assert_int_equal(model_load_weights(b.model, DTYPE_BF16, &rounded, &error), 0);
  assert_int_equal(rounded.once.matrix[SLOT_UNEMBED]->dtype, DTYPE_BF16);
  assert_null(rounded.layers[0].vector[SLOT_NORM1_GAIN].memory);
  weights_free(&rounded, b.backend);
  bench_close(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_probabilities_stay),
                                     cmocka_unit_test(test_description), cmocka_unit_test(test_what_is_refused),
                                     cmocka_unit_test(test_rounded_again)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
