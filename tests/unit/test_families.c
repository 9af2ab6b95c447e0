/* Every family against PyTorch: tiny random models made by transformers (tests/vectors/families), every hot point of every
 * layer, logits, and 16 greedy tokens; from one prefill, from chunks and token by token, on every backend this machine
 * has. And two real models against what transformers writes with them. */
#include "tests/unit/plan_bench.h"

#define FAMILIES "tests/vectors/families/"
#define N_NEW 16

static const char *backends[] = {"ref", "cpu", "cpu-avx2", "cpu-generic"};

/* points: recorded for a layer: the hot ones (parallel blocks have no resid_mid, attention-only ones no MLP), and for some
 * models cold ones. */
static const struct family {
  const char *folder;
  int points;
} families[] = {
    {"gpt2-crfm", 7},   {"gpt_neo", 7}, {"gpt_neox", 6}, {"gpt_neox-sequential", 7}, {"gptj", 6},   {"llama", 7},
    {"llama-scaled", 12}, {"mistral", 7}, {"qwen2", 7},    {"qwen3", 12},               {"gemma", 7}, {"gemma2", 12},
    {"gemma3", 7},      {"gemma3-multimodal", 7},        {"phi", 6},                 {"phi3", 7},  {"stablelm", 7},
    {"stablelm-parallel", 6},           {"stablelm-heads", 7},        {"opt", 7}, {"opt-350m", 7},   {"toy-attn-only", 9},      {"toy-gelu", 15}, {"toy-solu", 16},
    {"toy-solu-gains", 16}, {"toy-shortformer", 7},
};

static int32_t best(const float *logits, size_t n) {
  size_t at = 0;
  for (size_t i = 1; i < n; i++)
    if (logits[i] > logits[at]) at = i;
  return (int32_t)at;
}

/* The greedy text after `n` ids of which all but the last have been run; ids has room for it. */
static void check_greedy(struct bench *b, const char *what, int32_t *ids, size_t n, const int32_t *want, size_t n_new,
                         float *logits) {
  size_t v = (size_t)b->model->arch.vocabulary;
  for (size_t i = 0; i < n_new; i++) {
    ids[n + i] = best(logits, v);
    if (ids[n + i] != want[i]) fail_msg("%s: greedy token %zu is %d, transformers has %d", what, i, ids[n + i], want[i]);
    if (i + 1 < n_new) bench_run(b, ids, (int32_t)(n + i), 1, logits);
  }
}

/* Chunk by chunk: the points and logits must be those of one prefill, to the bit. */
static void check_chunks(struct bench *b, const char *what, const int32_t *ids, size_t n, int32_t chunk,
                         const float *whole) {
  size_t v = (size_t)b->model->arch.vocabulary;
  float *parts = malloc(n * v * sizeof *parts);
  for (int32_t from = 0; from < (int32_t)n; from += chunk) {
    int32_t rows = (int32_t)n - from < chunk ? (int32_t)n - from : chunk;
    bench_run(b, ids, from, rows, parts + (size_t)from * v);
  }
  if (memcmp(parts, whole, n * v * sizeof *parts) != 0) fail_msg("%s: chunks of %d give other bits", what, chunk);
  free(parts);
}

/* How often a step comes to a hot point of a layer: an edit there must not be made twice. */
static int times(const struct op *ops, size_t count, enum site site) {
  int n = 0;
  for (size_t i = 0; i < count; i++) {
    const struct op *op = &ops[i];
    if (op->code == OP_BEGIN) n += site == SITE_RESID_PRE;
    if (op->code == OP_ATTEND) n += site == SITE_ATTN_Z;
    if (op->code == OP_POINT) n += site == op->u.point.site;
    if (op->code == OP_SUBLAYER) n += (site == op->u.sublayer.out_site) + (op->u.sublayer.resid_site && site == op->u.sublayer.resid_site);
  }
  return n;
}

static void check_sites(const struct bench *b, const char *what) {
  for (int32_t layer = 0; layer < b->model->arch.n_layer; layer++) {
    size_t count;
    const struct op *ops = plan_segment(b->plan, layer, &count);
    for (int site = 1; site < SITE_COUNT; site++) {
      int want = site_is_hot((enum site)site) && !point_missing(&b->model->arch, (enum site)site);
      if (times(ops, count, (enum site)site) != want) fail_msg("%s: layer %d comes to site %d %d times", what, layer, site, times(ops, count, (enum site)site));
    }
  }
}

static void check_family(const struct family *family, const char *backend) {
  struct bench b;
  char path[256], what[128];
  snprintf(path, sizeof path, FAMILIES "%s", family->folder);
  snprintf(what, sizeof what, "%s on %s", family->folder, backend);
  if (bench_open_with(&b, backend, path, model_open_weights) != 0) return;
  snprintf(path, sizeof path, FAMILIES "%s/expected.safetensors", family->folder);
  struct tensors *want = vectors_open(path);
  size_t n, count, v = (size_t)b.model->arch.vocabulary;
  check_sites(&b, what);
  int32_t *recorded = vectors_i32(want, "ids", &n), *follow = vectors_i32(want, "greedy", &count);
  int32_t ids[MAX_ROWS];
  memcpy(ids, recorded, n * sizeof *ids);
  assert_int_equal(count, N_NEW);
  float *logits = malloc(n * v * sizeof *logits), *expected = vectors_f32(want, "logits", &count);
  assert_int_equal(count, n * v);
  bench_run(&b, ids, 0, (int32_t)n, logits);
  if (compare_points(&b, want, "", (int32_t)n) != family->points * b.model->arch.n_layer) fail_msg("%s: points", what);
  if (!vectors_agree(what, logits, expected, count)) fail_msg("%s: logits", what);
  check_chunks(&b, what, ids, n, 5, logits);
  check_chunks(&b, what, ids, n, 1, logits);
  b.tapped = 0; /* the fused ops, where every point was tapped before */
  check_chunks(&b, what, ids, n, (int32_t)n, logits);
  check_chunks(&b, what, ids, n, 1, logits);
  b.tapped = SITES_HOT;
  check_chunks(&b, what, ids, n, 1, logits);
  if (compare_points(&b, want, "", (int32_t)n) != family->points * b.model->arch.n_layer) fail_msg("%s: decode", what);
  check_greedy(&b, what, ids, n, follow, N_NEW, logits + (n - 1) * v);
  free(recorded);
  free(follow);
  free(logits);
  free(expected);
  tensors_close(want);
  bench_close(&b);
}

static void test_family(void **state) {
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) check_family(*state, backends[i]);
}

/* ---- real models ---- */

static void check_real(const char *name, const char *backend, const char *folder) {
  struct bench b;
  char key[128];
  struct tensors *want = vectors_open(FAMILIES "real.safetensors");
  if (bench_open_with(&b, backend, folder, model_open_weights) == 0) {
    size_t n, n_new, count;
    snprintf(key, sizeof key, "%s/ids", name);
    int32_t *recorded = vectors_i32(want, key, &n), ids[MAX_ROWS];
    memcpy(ids, recorded, n * sizeof *ids);
    snprintf(key, sizeof key, "%s/greedy", name);
    int32_t *follow = vectors_i32(want, key, &n_new);
    snprintf(key, sizeof key, "%s/logits", name);
    float *expected = vectors_f32(want, key, &count), *logits = malloc(count * sizeof *logits);
    bench_run(&b, ids, 0, (int32_t)n, logits);
    assert_true(vectors_agree(key, logits, expected, count));
    check_greedy(&b, name, ids, n, follow, n_new, logits + (n - 1) * (size_t)b.model->arch.vocabulary);
    free(recorded);
    free(follow);
    free(expected);
    free(logits);
  }
  tensors_close(want);
  bench_close(&b);
}

static void test_real_models(void **state) {
  (void)state;
  static const char *const names[] = {"stories260K", "babyllama105"};
  const char *data = getenv("STEERD_DATA");
  for (size_t k = 0; k < 2; k++) {
    char folder[512], file[600];
    snprintf(folder, sizeof folder, "%s/models/%s/hf", data ? data : "../shared/data", names[k]);
    snprintf(file, sizeof file, "%s/config.json", folder);
    FILE *there = fopen(file, "rb");
    if (!there) {
      printf("skip: %s is not there (set STEERD_DATA)\n", names[k]);
      continue;
    }
    fclose(there);
    for (size_t i = 0; i < 2; i++) check_real(names[k], backends[i], folder);
  }
}

/* A test for each family, so that what fails has its name. */
int main(void) {
  enum { N = sizeof families / sizeof *families };
  struct CMUnitTest tests[N + 1];
  memset(tests, 0, sizeof tests);
  for (size_t k = 0; k < N; k++)
    tests[k] = (struct CMUnitTest){.name = families[k].folder, .test_func = test_family,
                                   .initial_state = (void *)(uintptr_t)&families[k]};
  tests[N] = (struct CMUnitTest)cmocka_unit_test(test_real_models);
  return _cmocka_run_group_tests("families", tests, N + 1, NULL, NULL);
}
