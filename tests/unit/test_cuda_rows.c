/* Rows and the product behind them in one launch (rows_tensor.cu) beside the same in two ("+apart"): the same bits at every
 * point, for any number of rows, with every kind of edit. Needs a device, or the emulated library (STEERD_CUDA_LIBRARY). */
#include "tests/unit/cuda_library.h"
#include "tests/unit/plan_bench.h"

#define HOT (site_bit(SITE_RESID_PRE) | site_bit(SITE_RESID_MID) | site_bit(SITE_RESID_POST) | site_bit(SITE_ATTN_OUT) | \
             site_bit(SITE_MLP_OUT) | site_bit(SITE_ATTN_Z))

/* Widths that are multiples of 8: others are never done in one launch. */
static const struct narrow_model {
  const char *path;
  int fewer; /* launches a layer: one for each norm that a product follows */
} narrow_models[] = {
    {TINY "model-bf16", 2},
    {TINY "model-f16", 2},
    {"config/demo", 2}, /* 256 wide: more than one lap of a team */
    {"tests/vectors/families/gemma", 2},            /* a gate, and its own norm */
    {"tests/vectors/families/gemma3", 2},           /* and norms behind sublayers */
    {"tests/vectors/families/stablelm-parallel", 1} /* the MLP reads the same norm as attention */
};
enum { N_MODELS = sizeof narrow_models / sizeof *narrow_models, N_ROWS = 21 };

/* A sequence read in steps of 1 to 8 rows, and one of 9, which no launch takes whole. */
static const int32_t steps[] = {8, 1, 2, 1, 9};

static struct memory *make_vectors(struct backend *backend, int64_t width) {
  struct error error = ERROR_INIT;
  struct memory *memory;
  size_t bytes = (size_t)width * 2 * sizeof(float);
  float *values = malloc(bytes);
  for (int64_t i = 0; i < 2 * width; i++) values[i] = (float)((i * 37 + i / width * 11) % 29 - 14) / 40;
  assert_int_equal(backend->ops->alloc(backend, bytes, &memory, &error), 0);
  assert_int_equal(backend->ops->write(backend, (struct span){memory, 0}, values, bytes, &error), 0);
  free(values);
  return memory;
}

/* All hot points and logits, one behind the other. */
struct found {
  float *at;
  size_t n;
  long nodes; /* of a step with one row */
  int32_t layers;
};

static void find_all(struct bench *b, struct found *found) {
  const struct arch *arch = &b->model->arch;
  size_t n = (size_t)N_ROWS * (size_t)arch->vocabulary;
  int32_t ids[N_ROWS], from = 0;
  for (int i = 0; i < N_ROWS; i++) ids[i] = i * 7 % arch->vocabulary;
  for (int p = 0; p < point_count(arch->n_layer); p++)
    if (HOT & site_bit((enum site)(p % SITE_COUNT))) n += (size_t)N_ROWS * (size_t)bench_width(b, (enum site)(p % SITE_COUNT));
  *found = (struct found){calloc(n, sizeof(float)), 0, 0, arch->n_layer};
  b->tapped = HOT;
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    bench_run(b, ids, from, steps[i], found->at + found->n);
    found->n += (size_t)steps[i] * (size_t)arch->vocabulary;
    from += steps[i];
  }
  for (int p = 0; p < point_count(arch->n_layer); p++) {
    enum site site = (enum site)(p % SITE_COUNT);
    if (!(HOT & site_bit(site)) || (p / SITE_COUNT == arch->n_layer && site != SITE_RESID_PRE)) continue;
    bench_point(b, (struct point){p / SITE_COUNT, site}, N_ROWS, found->at + found->n);
    found->n += (size_t)N_ROWS * (size_t)bench_width(b, site);
  }
  if (!emulated.launches) return;
  for (int i = 0; i < 3; i++) bench_run(b, ids, N_ROWS - 1, 1, found->at + found->n - arch->vocabulary);
  found->nodes = count_launches(NODES);
}

static void find_with(const char *name, const char *path, const struct edit_item *edit, struct point point, struct found *found) {
  struct bench b;
  struct memory *vectors;
  struct edit_item item;
  if (bench_open_with(&b, name, path, model_open_weights) != 0) fail_msg("%s", name);
  vectors = make_vectors(b.backend, b.model->arch.d_model);
  if (edit) {
    item = *edit;
    item.column_end = (int32_t)b.model->arch.d_model - 3;
    item.v = (struct span){vectors, 0};
    item.enc = (struct span){vectors, (size_t)b.model->arch.d_model * sizeof(float)};
    b.edit = &item;
    b.edit_point = point;
  }
  find_all(&b, found);
  b.backend->ops->free(b.backend, vectors);
  bench_close(&b);
}

static void check_same(const char *mode, const struct narrow_model *model, const struct edit_item *edit, struct point point, bool counted) {
  struct found together, apart;
  char with[48], without[48];
  snprintf(with, sizeof with, "cuda%s", mode);
  snprintf(without, sizeof without, "cuda%s+apart", mode);
  find_with(with, model->path, edit, point, &together);
  find_with(without, model->path, edit, point, &apart);
  assert_int_equal(together.n, apart.n);
  for (size_t i = 0; i < together.n; i++)
    if (memcmp(&together.at[i], &apart.at[i], sizeof(float)) != 0)
      fail_msg("%s, %s, edit %d: value %zu of %zu is %.9g, apart %.9g", mode, model->path, edit ? (int)edit->kind : -1, i, together.n,
               together.at[i], apart.at[i]);
  if (counted && emulated.launches) {
    printf("%s: %ld nodes, %ld apart\n", model->path, together.nodes, apart.nodes);
    assert_int_equal(together.nodes, apart.nodes - model->fewer * together.layers);
  }
  free(together.at);
  free(apart.at);
}

static void test_plain(void **state) {
  (void)state;
  for (int i = 0; i < N_MODELS; i++) {
    check_same("", &narrow_models[i], NULL, (struct point){0, SITE_RESID_PRE}, true);
    check_same("+deterministic", &narrow_models[i], NULL, (struct point){0, SITE_RESID_PRE}, true);
  }
}

/* Of some rows and of all columns but the first two and the last three: teams own elements by their place in the row. */
static void test_edits(void **state) {
  (void)state;
  static const enum edit_kind kinds[] = {EDIT_ROW_ADD, EDIT_ROW_PROJECT, EDIT_ROW_CAP, EDIT_ROW_SCALE, EDIT_ROW_FILL, EDIT_ROW_COPY,
                                         EDIT_ROW_FEATURE_SET, EDIT_ROW_FEATURE_SCALE};
  static const struct point points[] = {{0, SITE_RESID_PRE}, {1, SITE_RESID_PRE}, {0, SITE_ATTN_OUT}, {1, SITE_MLP_OUT}, {1, SITE_RESID_POST}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    struct edit_item edit = {.kind = kinds[k], .rows = {0, 7}, .column_begin = 2, .value = 0.5f, .bias = 0.125f, .fold = 1.25f};
    check_same(k % 2 ? "+deterministic" : "", &narrow_models[k % N_MODELS], &edit, points[k % 5], false);
    check_same("", &narrow_models[3], &edit, points[(k + 2) % 5], false);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_plain), cmocka_unit_test(test_edits), cmocka_unit_test(test_nothing_is_left)};
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
