/* test_neurons.c: the neurons of a layer as a dictionary, in models of every family: activations are those that were recorded, rows of
 * W_out make the MLP's recorded output, and reach the logits that PyTorch gives them (tests/vectors/neurons). */
#include "tests/unit/plan_bench.h"

#include "core/analysis/tables.h"

#define FAMILIES "tests/vectors/families/"
#define HERE "tests/vectors/neurons/"
enum { LAYER = 1, RECORDED = 3 };
static const uint32_t neurons[RECORDED] = {3, 17, 29}; /* of which make.py says more */

static const char *const backends[] = {"ref", "cpu-generic", "cpu-avx2", "cpu-avx512"};
static const char *const families[] = {
    "gpt2-crfm", "gpt_neo", "gpt_neox", "gpt_neox-sequential", "gptj", "llama", "llama-scaled", "mistral", "qwen2", "qwen3", "gemma",
    "gemma2", "gemma3", "phi", "phi3", "stablelm", "stablelm-parallel", "stablelm-heads", "opt", "opt-350m", "toy-gelu", "toy-solu",
    "toy-solu-gains"};

static struct dict *open_neurons(const struct model *model, int layer) {
  struct error error = ERROR_INIT;
  struct dict *dict = dict_open_neurons(model, layer, &error);
  if (!dict) fail_msg("%s", error.text);
  return dict;
}

/* ---- activations and what they make ---- */

/* [n][d_mlp] of codes, which leave out nothing but zeros. */
static float *dense_codes(const struct bench *b, const struct dict *dict, int32_t n) {
  struct error error = ERROR_INIT;
  struct sparse codes;
  size_t width = (size_t)dict_info(dict)->n_feat;
  float *out = calloc((size_t)n * width, sizeof *out);
  sparse_init(&codes);
  struct rows rows = {{b->taps, b->tap_offset[point_index(dict_info(dict)->in)]}, (int64_t)width};
  assert_int_equal(dict_encode(dict, rows, n - 1, &codes, &error), 0); /* in two parts: rows are appended */
  rows.at = span_at(rows.at, (size_t)(n - 1) * width * sizeof(float));
  assert_int_equal(dict_encode(dict, rows, 1, &codes, &error), 0);
  assert_int_equal(codes.n_rows, n);
  for (size_t r = 0; r < codes.n_rows; r++)
    for (size_t e = codes.start[r]; e < codes.start[r + 1]; e++) {
      assert_true(codes.value[e] != 0 && (e == codes.start[r] || codes.index[e] > codes.index[e - 1]));
      out[r * width + (size_t)codes.index[e]] = codes.value[e];
    }
  sparse_clear(&codes);
  return out;
}

/* One neuron has the same bits alone; its column of the encoder is its place. */
static void check_alone(const struct bench *b, const struct dict *dict, const float *dense, int32_t n) {
  size_t width = (size_t)dict_info(dict)->n_feat;
  float *rows = malloc((size_t)n * width * sizeof *rows), *one = malloc((size_t)n * sizeof *one), *column = malloc(width * sizeof *column);
  bench_point((struct bench *)(uintptr_t)b, dict_info(dict)->in, n, rows);
  assert_true(dict_features_independent(dict));
  for (size_t f = 0; f < width; f += 7) {
    dict_feature_values(dict, (int64_t)f, rows, (size_t)n, one);
    dict_encoder_column(dict, (int64_t)f, column);
    for (size_t r = 0; r < (size_t)n; r++) assert_memory_equal(&one[r], &dense[r * width + f], sizeof *one);
    for (size_t i = 0; i < width; i++) assert_true(column[i] == (i == f ? 1.0f : 0.0f));
  }
  free(rows);
  free(one);
  free(column);
}

/* Between two positions the MLP's output differs by what the neurons do: its bias does not. */
static void check_output(struct bench *b, const struct dict *dict, const float *dense, int32_t n, const char *what) {
  const struct dict_info *info = dict_info(dict);
  size_t width = (size_t)info->d_out, n_feat = (size_t)info->n_feat;
  float *out = malloc((size_t)n * width * sizeof *out), *row = malloc(width * sizeof *row), *made = malloc(width * sizeof *made);
  double *sum = calloc(width, sizeof *sum);
  bench_point(b, info->out, n, out);
  for (size_t f = 0; f < n_feat; f++) {
    dict_decoder_row(dict, (int64_t)f, row);
    for (size_t i = 0; i < width; i++) sum[i] += (double)row[i] * ((double)dense[(size_t)(n - 1) * n_feat + f] - dense[f]);
  }
  for (size_t i = 0; i < width; i++) {
    out[i] = out[(size_t)(n - 1) * width + i] - out[i];
    made[i] = (float)sum[i];
  }
  if (!vectors_agree(what, made, out, width)) fail_msg("%s: rows of W_out", what);
  free(out);
  free(row);
  free(made);
  free(sum);
}

/* recorded NULL: against what the model itself has at the point. */
static void check_layer(struct bench *b, int layer, const struct tensors *recorded, int32_t n, const char *what) {
  struct dict *dict = open_neurons(b->model, layer);
  const struct dict_info *info = dict_info(dict);
  assert_true(info->kind == DICT_NEURONS && info->n_feat == b->model->arch.d_mlp && !dict_splices(dict) && dict_prepared(dict));
  assert_string_equal(dict_title(info), "neurons");
  float *dense = dense_codes(b, dict, n);
  char name[64];
  snprintf(name, sizeof name, "blocks.%d.mlp.hook_post", layer);
  if (recorded) {
    size_t count;
    float *want = vectors_f32(recorded, name, &count);
    assert_int_equal(count, (size_t)n * (size_t)info->n_feat);
    if (!vectors_agree(name, dense, want, count)) fail_msg("%s: %s", what, name);
    free(want);
  }
  check_alone(b, dict, dense, n);
  check_output(b, dict, dense, n, what);
  free(dense);
  dict_close(dict);
}

/* ---- logits ---- */

struct seen {
  float *logits; /* [RECORDED][vocabulary] */
  size_t vocabulary;
};

static void see(void *context, int i, const float *logits) {
  struct seen *seen = context;
  memcpy(seen->logits + (size_t)i * seen->vocabulary, logits, seen->vocabulary * sizeof *logits);
}

static void check_logits(struct bench *b, const struct tensors *want, const char *name) {
  struct error error = ERROR_INIT;
  char key[96];
  size_t count, vocabulary = (size_t)b->model->arch.vocabulary;
  struct seen seen = {malloc(RECORDED * vocabulary * sizeof(float)), vocabulary};
  struct dict *dict = open_neurons(b->model, LAYER);
  snprintf(key, sizeof key, "%s/promotes", name);
  float *recorded = vectors_f32(want, key, &count);
  assert_int_equal(count, RECORDED * vocabulary);
  if (tables_each(dict, b->plan, (int64_t)vocabulary, neurons, RECORDED, see, &seen, &error) != 0) fail_msg("%s", error.text);
  if (!vectors_agree(key, seen.logits, recorded, count)) fail_msg("%s", key);
  dict_close(dict);
  free(recorded);
  free(seen.logits);
}

/* ---- tests ---- */

static void check_family(const char *name, const char *folder, const char *vectors, opener *open) {
  struct tensors *want = vectors_open(HERE "expected.safetensors"), *recorded = vectors ? vectors_open(vectors) : NULL;
  char key[96];
  size_t n;
  snprintf(key, sizeof key, "%.*s/ids", (int)strcspn(name, "?"), name);
  int32_t *ids = vectors_i32(want, key, &n);
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
    struct bench b;
    if (bench_open_with(&b, backends[i], folder, open) != 0) continue;
    float *logits = malloc(n * (size_t)b.model->arch.vocabulary * sizeof *logits);
    bench_run(&b, ids, 0, (int32_t)n, logits);
    for (int l = 0; l < b.model->arch.n_layer; l++) check_layer(&b, l, recorded, (int32_t)n, name);
    check_logits(&b, want, name);
    free(logits);
    bench_close(&b);
  }
  free(ids);
  tensors_close(want);
  tensors_close(recorded);
}

static void test_family(void **state) {
  const char *name = *state;
  char folder[128], vectors[160];
  snprintf(folder, sizeof folder, FAMILIES "%s", name);
  snprintf(vectors, sizeof vectors, "%s/expected.safetensors", folder);
  check_family(name, folder, vectors, model_open_weights);
}

static void test_tiny_gpt2(void **state) {
  (void)state;
  check_family("tiny-gpt2", TINY "model", NULL, model_open_weights);
}

/* W_out is in no file so: its outputs are centred, and where the norm inside the MLP has gains, they are in it. */
static void test_processed(void **state) {
  (void)state;
  struct bench b;
  check_family("tiny-gpt2?process", TINY "model", NULL, model_open_weights_processed);
  if (bench_open_with(&b, "cpu", FAMILIES "toy-solu-gains", model_open_weights_processed) != 0) return;
  static const int32_t ids[] = {5, 9, 40, 11, 63};
  float *logits = malloc(5 * (size_t)b.model->arch.vocabulary * sizeof *logits);
  bench_run(&b, ids, 0, 5, logits);
  for (int l = 0; l < b.model->arch.n_layer; l++) check_layer(&b, l, NULL, 5, "toy-solu-gains?process");
  free(logits);
  bench_close(&b);
}

static void test_no_mlp(void **state) {
  (void)state;
  struct bench b;
  struct error error = ERROR_INIT;
  if (bench_open_with(&b, "ref", FAMILIES "toy-attn-only", model_open_weights) != 0) return;
  assert_null(dict_open_neurons(b.model, 0, &error));
  assert_int_equal(error.code, ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.text, "has no MLP"));
  bench_close(&b);
}

static void test_prints_differ(void **state) {
  (void)state;
  struct bench b;
  char prints[3][17];
  if (bench_open_with(&b, "ref", TINY "model", model_open_weights) != 0) return;
  for (int i = 0; i < 3; i++) {
    struct dict *dict = open_neurons(b.model, i < 2 ? i : 0);
    dict_fingerprint(dict, prints[i]);
    dict_close(dict);
  }
  assert_string_not_equal(prints[0], prints[1]);
  assert_string_equal(prints[0], prints[2]);
  bench_close(&b);
}

int main(void) {
  enum { N = sizeof families / sizeof *families };
  struct CMUnitTest tests[N + 4];
  memset(tests, 0, sizeof tests);
  for (size_t k = 0; k < N; k++)
    tests[k] = (struct CMUnitTest){.name = families[k], .test_func = test_family, .initial_state = (void *)(uintptr_t)families[k]};
  tests[N] = (struct CMUnitTest)cmocka_unit_test(test_tiny_gpt2);
  tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(test_processed);
  tests[N + 2] = (struct CMUnitTest)cmocka_unit_test(test_no_mlp);
  tests[N + 3] = (struct CMUnitTest)cmocka_unit_test(test_prints_differ);
  return _cmocka_run_group_tests("neurons", tests, N + 4, NULL, NULL);
}
