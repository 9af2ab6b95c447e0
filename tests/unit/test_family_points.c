/* Cold points of every family, layer by layer and value by value, against transformers and TransformerLens
 * (tests/vectors/points/make_family_points.py): from one prefill, token by token, and on every backend. Points that
 * test_instrument.c has vectors of are not here again. No point may be left out: what the model has and nobody recorded
 * fails. */
#include "tests/unit/plan_bench.h"

#include <unistd.h>

#define POINTS "tests/vectors/points/"
#define FAMILIES "tests/vectors/families/"

static const char *const backends[] = {"ref", "cpu-generic", "cpu-avx2", "cpu-avx512"};

static const struct family {
  const char *folder, *vectors;
} families[] = {
    {"gpt2-crfm", "gpt2-crfm"},         {"gpt_neo", "gpt_neo"},       {"gpt_neox-sequential", "gpt_neox-sequential"},
    {"gptj", "gptj"},                   {"llama-scaled", "llama-scaled"}, {"mistral", "mistral"},
    {"qwen2", "qwen2"},                 {"gemma", "gemma"},           {"gemma3", "gemma3"},
    {"gemma3-multimodal", "gemma3"}, /* the same weights behind other names and an older config */
    {"phi", "phi"},                     {"phi3", "phi3"},             {"stablelm", "stablelm"},
    {"stablelm-parallel", "stablelm-parallel"}, {"stablelm-heads", "stablelm-heads"}, {"opt", "opt"}, {"opt-350m", "opt-350m"},       {"toy-attn-only", "toy-attn-only"},
    {"toy-gelu", "toy-gelu"},           {"toy-solu", "toy-solu"},     {"toy-solu-gains", "toy-solu-gains"},
    {"toy-shortformer", "toy-shortformer"},
};

/* What a run left: all rows of a point, and the vectors' share of them. */
struct view {
  struct bench *b;
  const struct tensors *want;
  int32_t n;          /* positions */
  const int32_t *rows; /* those that were recorded */
  size_t n_rows;
  const char *how; /* of the run, for messages */
};

/* The recorded rows of a point as the vectors have them: scores and patterns as [heads, rows, keys], hidden scores as
 * -1e30. */
static float *read_rows(const struct view *v, struct point point, size_t *count) {
  struct point_shape shape = point_shape(&v->b->model->arch, point.site);
  size_t width = (size_t)bench_width(v->b, point.site), n = (size_t)v->n, heads = shape.square ? (size_t)shape.heads : 1;
  float *all = malloc(n * width * sizeof *all);
  size_t per = shape.square ? n : width;
  float *out = malloc(heads * v->n_rows * per * sizeof *out);
  bench_point(v->b, point, v->n, all);
  for (size_t h = 0; h < heads; h++)
    for (size_t r = 0; r < v->n_rows; r++)
      for (size_t i = 0; i < per; i++)
        out[(h * v->n_rows + r) * per + i] = fmaxf(all[(size_t)v->rows[r] * width + h * BENCH_KEYS + i], -1e30f);
  free(all);
  *count = heads * v->n_rows * per;
  return out;
}

static void compare_recorded(const struct view *v, struct point point, const char *name) {
  size_t count, recorded_count;
  char what[160];
  float *recorded = vectors_f32(v->want, name, &recorded_count), *got = read_rows(v, point, &count);
  snprintf(what, sizeof what, "%s on %s, %s: %s", v->b->model->path, v->b->backend->ops->name, v->how, name);
  if (count != recorded_count) fail_msg("%s: %zu numbers, recorded are %zu", what, count, recorded_count);
  if (!vectors_agree(what, got, recorded, count)) fail_msg("%s", what);
  free(recorded);
  free(got);
}

/* Copies of a row, one for each head, on its way to a norm: not recorded, they are the row. */
static bool is_copy(enum site site) {
  return site == SITE_HEAD_IN || site == SITE_Q_IN || site == SITE_K_IN || site == SITE_V_IN || site == SITE_MLP_RESID;
}

static void compare_copies(const struct view *v, struct point point) {
  struct point from = {point.layer, point.site == SITE_MLP_RESID ? SITE_RESID_MID : SITE_RESID_PRE};
  size_t d = (size_t)v->b->model->arch.d_model, width = (size_t)bench_width(v->b, point.site), n = (size_t)v->n;
  float *rows = malloc(n * d * sizeof *rows), *copies = malloc(n * width * sizeof *copies);
  bench_point(v->b, from, v->n, rows);
  bench_point(v->b, point, v->n, copies);
  for (size_t r = 0; r < n; r++)
    for (size_t at = 0; at < width; at += d) assert_memory_equal(copies + r * width + at, rows + r * d, d * sizeof *rows);
  free(rows);
  free(copies);
}

static bool stands_at(const struct arch *arch, struct point point) {
  bool first = point.site <= SITE_POS_EMBED, last = point.site >= SITE_FINAL_SCALE;
  if (point_missing(arch, point.site)) return false;
  return first ? point.layer == 0 : last == (point.layer == arch->n_layer);
}

/* Every point that the model has; how many were compared. Hot ones may be recorded elsewhere (test_families.c). */
static size_t compare_all(const struct view *v) {
  size_t compared = 0;
  char name[POINT_NAME_BYTES];
  for (int i = 0; i < point_count(v->b->model->arch.n_layer); i++) {
    struct point point = {i / SITE_COUNT, (enum site)(i % SITE_COUNT)};
    if (!stands_at(&v->b->model->arch, point)) continue;
    if (site_is_hot(point.site) && !tensors_find(v->want, point_name(point, name))) continue;
    if (is_copy(point.site)) {
      compare_copies(v, point);
      continue;
    }
    compare_recorded(v, point, point_name(point, name));
    compared++;
  }
  return compared;
}

static void check_on(struct bench *b, const struct tensors *want) {
  size_t n, n_rows, v;
  int32_t *ids = vectors_i32(want, "ids", &n), *rows = vectors_i32(want, "rows", &n_rows);
  struct view view = {b, want, (int32_t)n, rows, n_rows, "prefill"};
  v = (size_t)b->model->arch.vocabulary;
  float *logits = malloc(n * v * sizeof *logits);
  bench_run(b, ids, 0, (int32_t)n, logits);
  assert_int_equal(compare_all(&view), tensors_count(want) - 2); /* ids and rows; the rest are points */
  for (int32_t i = 0; i < (int32_t)n; i++) bench_run(b, ids, i, 1, logits + (size_t)i * v);
  view.how = "token by token";
  compare_all(&view);
  free(logits);
  free(rows);
  free(ids);
}

static void check_model(const char *path, const char *vectors, opener *open) {
  char name[128];
  snprintf(name, sizeof name, POINTS "family-%s.safetensors", vectors);
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
    struct bench b;
    if (bench_open_with(&b, backends[i], path, open) != 0) continue;
    struct tensors *want = vectors_open(name);
    check_on(&b, want);
    tensors_close(want);
    bench_close(&b);
  }
}

static void test_family(void **state) {
  const struct family *family = *state;
  char folder[128];
  snprintf(folder, sizeof folder, FAMILIES "%s", family->folder);
  check_model(folder, family->vectors, model_open_weights);
}

/* ---- files that are no folders ---- */

static void test_llama2c(void **state) {
  (void)state;
  check_model(POINTS "llama2c/version0.bin", "llama2c", model_open);
  check_model(POINTS "llama2c/version1.bin", "llama2c", model_open);
}

/* Paths in an ini start at the data's folder unless they are absolute, so it is written here. */
static void test_workshop(void **state) {
  (void)state;
  char ini[] = "/tmp/test_family_points_XXXXXX.ini", here[2048];
  int file = mkstemps(ini, 4);
  assert_true(file >= 0 && getcwd(here, sizeof here));
  dprintf(file, "[model]\nid = w\nfamily = workshop\nweights = %s/" POINTS "workshop/weights.pth\n"
                "vocabulary = %s/" POINTS "workshop/names.txt\nn_head = 4\nnorm_eps = 1e-5\n", here, here);
  close(file);
  check_model(ini, "workshop", model_open);
  unlink(ini);
}

int main(void) {
  enum { N = sizeof families / sizeof *families };
  struct CMUnitTest tests[N + 2];
  memset(tests, 0, sizeof tests);
  for (size_t k = 0; k < N; k++)
    tests[k] = (struct CMUnitTest){.name = families[k].folder, .test_func = test_family,
                                   .initial_state = (void *)(uintptr_t)&families[k]};
  tests[N] = (struct CMUnitTest)cmocka_unit_test(test_llama2c);
  tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(test_workshop);
  return _cmocka_run_group_tests("family points", tests, N + 2, NULL, NULL);
}
