/* The compiled forward pass against recorded activations: every hot point and the logits of the tiny GPT-2 (PyTorch)
 * and of villes (NumPy), on every backend this machine has; prefill, chunked prefill and decode must give the same
 * bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "core/model/plan.h"
#include "core/model/points.h"
#include "tests/unit/vectors.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define MAX_ROWS 256
#define MAX_LAYERS 8

static const char *backends[] = {"ref", "cpu", "cpu-avx2", "cpu-generic"};

/* A model, its plan, a KV cache for one sequence, and tables for steps over it. */
struct bench {
  struct backend *backend;
  struct model *model;
  struct plan *plan;
  struct memory *kv, *taps;
  int32_t table[MAX_LAYERS * 4];
  int32_t token[MAX_ROWS], position[MAX_ROWS], source[MAX_ROWS], logit_row[MAX_ROWS];
  uint8_t origin[MAX_ROWS];
  struct step_slot slot;
  struct row_range range[MAX_LAYERS + 1];
  struct tap_item tap_items[MAX_LAYERS * SITE_COUNT];
  int32_t tap_begin[MAX_LAYERS * SITE_COUNT + 1];
  size_t tap_offset[MAX_LAYERS * SITE_COUNT];
};

static int bench_open(struct bench *b, const char *backend, const char *path) {
  struct error error = ERROR_INIT;
  memset(b, 0, sizeof *b);
  b->backend = backend_open(backend, 2, &error);
  if (!b->backend) {
    printf("skip: backend %s: %s\n", backend, error.text);
    return -1;
  }
  b->model = model_open("test", path, b->backend, &error);
  if (!b->model) fail_msg("%s", error.text);
  struct plan_limits limits = {MAX_ROWS, MAX_ROWS};
  b->plan = plan_new(b->model, limits, &error);
  if (!b->plan) fail_msg("%s", error.text);
  const struct arch *arch = &b->model->arch;
  assert_true(arch->n_layer <= MAX_LAYERS);
  size_t block = b->backend->ops->kv_block_bytes(b->backend, arch->n_kv_head, arch->d_head);
  assert_int_equal(b->backend->ops->alloc(b->backend, block * (size_t)arch->n_layer * 4, &b->kv, &error), 0);
  for (int i = 0; i < arch->n_layer * 4; i++) b->table[i] = i;
  size_t bytes = 0;
  for (int i = 0; i < arch->n_layer * SITE_COUNT; i++) {
    b->tap_offset[i] = bytes;
    b->tap_begin[i] = i;
    bytes += (size_t)plan_site_width(arch, (enum site)(i % SITE_COUNT)) * MAX_ROWS * sizeof(float);
  }
  b->tap_begin[arch->n_layer * SITE_COUNT] = arch->n_layer * SITE_COUNT;
  assert_int_equal(b->backend->ops->alloc(b->backend, bytes, &b->taps, &error), 0);
  return 0;
}

static void bench_close(struct bench *b) {
  if (!b->backend) return;
  b->backend->ops->free(b->backend, b->kv);
  b->backend->ops->free(b->backend, b->taps);
  plan_free(b->plan);
  model_close(b->model);
  backend_close(b->backend);
}

/* Runs positions [from, from + n) with every hot point tapped at its absolute position, and reads n rows of logits. */
static void bench_run(struct bench *b, const int32_t *ids, int32_t from, int32_t n, float *logits) {
  struct error error = ERROR_INIT;
  const struct arch *arch = &b->model->arch;
  struct step step = {.n_layer = arch->n_layer, .n_rows = n, .token = b->token, .position = b->position, .origin = b->origin,
                      .source = b->source, .n_slots = 1, .slots = &b->slot, .active = b->range,
                      .arriving = b->range, .kv = {b->kv, 0}, .kv_table = b->table, .kv_blocks = 4,
                      .n_logit_rows = n, .logit_row = b->logit_row, .taps = b->tap_items,
                      .tap_begin = b->tap_begin};
  b->slot = (struct step_slot){{0, n}, from, 0, arch->n_layer};
  for (int l = 0; l <= arch->n_layer; l++) b->range[l] = (struct row_range){0, n};
  for (int i = 0; i < n; i++) {
    b->token[i] = ids[from + i];
    b->position[i] = from + i;
    b->logit_row[i] = i;
  }
  for (int i = 0; i < arch->n_layer * SITE_COUNT; i++) {
    int64_t width = plan_site_width(arch, (enum site)(i % SITE_COUNT));
    size_t offset = b->tap_offset[i] + (size_t)from * (size_t)width * sizeof(float);
    b->tap_items[i] = (struct tap_item){{0, n}, {b->taps, offset}, width};
  }
  if (plan_run(b->plan, &step, &error) != 0) fail_msg("%s", error.text);
  struct rows rows = plan_logits(b->plan);
  for (int i = 0; i < n; i++)
    assert_int_equal(b->backend->ops->read(b->backend, logits + (size_t)i * (size_t)arch->vocabulary,
                                           span_at(rows.at, (size_t)i * (size_t)rows.ld * sizeof(float)),
                                           (size_t)arch->vocabulary * sizeof(float), &error), 0);
}

static void bench_point(struct bench *b, struct point point, int32_t n, float *out) {
  struct error error = ERROR_INIT;
  size_t width = (size_t)plan_site_width(&b->model->arch, point.site);
  assert_int_equal(b->backend->ops->read(b->backend, out, (struct span){b->taps, b->tap_offset[point_index(point)]},
                                         (size_t)n * width * sizeof(float), &error), 0);
}

/* Compares every recorded point of one prompt; returns how many were compared. */
static int compare_points(struct bench *b, const struct tensors *want, const char *prompt, int32_t n) {
  int compared = 0;
  const struct arch *arch = &b->model->arch;
  float *got = malloc((size_t)n * (size_t)(arch->d_mlp + arch->d_model) * sizeof *got);
  for (int i = 0; i < arch->n_layer * SITE_COUNT; i++) {
    struct point point = {i / SITE_COUNT, (enum site)(i % SITE_COUNT)};
    char name[POINT_NAME_BYTES], key[128];
    snprintf(key, sizeof key, "%s/%s", prompt, point_name(point, name));
    if (!tensors_find(want, key)) continue;
    size_t count;
    float *recorded = vectors_f32(want, key, &count);
    assert_int_equal(count, (size_t)n * (size_t)plan_site_width(arch, point.site));
    bench_point(b, point, n, got);
    assert_true(vectors_agree(key, got, recorded, count));
    free(recorded);
    compared++;
  }
  free(got);
  return compared;
}

static void check_prompt(struct bench *b, const struct tensors *want, const char *prompt, int least_points) {
  char key[128];
  size_t n, count;
  snprintf(key, sizeof key, "%s/ids", prompt);
  int32_t *ids = vectors_i32(want, key, &n);
  float *logits = malloc(n * (size_t)b->model->arch.vocabulary * sizeof *logits);
  bench_run(b, ids, 0, (int32_t)n, logits);
  assert_true(compare_points(b, want, prompt, (int32_t)n) >= least_points);
  snprintf(key, sizeof key, "%s/logits", prompt);
  float *recorded = vectors_f32(want, key, &count);
  assert_int_equal(count, n * (size_t)b->model->arch.vocabulary);
  assert_true(vectors_agree(key, logits, recorded, count));
  free(recorded);
  free(logits);
  free(ids);
}

static void test_tiny_gpt2(void **state) {
  (void)state;
  struct tensors *want = vectors_open(TINY "expected.safetensors");
  int ran = 0;
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
    struct bench b;
    if (bench_open(&b, backends[i], TINY "model") != 0) continue;
    check_prompt(&b, want, "p0", 21);
    check_prompt(&b, want, "p1", 21);
    check_prompt(&b, want, "p2", 3);
    bench_close(&b);
    ran++;
  }
  assert_true(ran >= 2);
  tensors_close(want);
}

/* Half-precision files: the recorded logits come from the rounded weights, so the tolerance stays that of f32. */
static void check_half(const char *folder) {
  struct tensors *want = vectors_open(TINY "expected.safetensors");
  for (size_t i = 0; i < 2; i++) {
    struct bench b;
    char path[128], key[128];
    snprintf(path, sizeof path, TINY "%s", folder);
    snprintf(key, sizeof key, "%s/p0/logits", folder);
    if (bench_open(&b, backends[i], path) != 0) continue;
    size_t n, count;
    int32_t *ids = vectors_i32(want, "p0/ids", &n);
    float *recorded = vectors_f32(want, key, &count), *logits = malloc(count * sizeof *logits);
    bench_run(&b, ids, 0, (int32_t)n, logits);
    assert_true(vectors_agree(key, logits, recorded, count));
    free(recorded);
    free(logits);
    free(ids);
    bench_close(&b);
  }
  tensors_close(want);
}

static void test_half_precision(void **state) {
  (void)state;
  check_half("model-bf16");
  check_half("model-f16");
}

/* Prefill at once, in chunks of several sizes (across the 64-position blocks), and token by token. */
static void test_chunks_are_bit_equal(void **state) {
  (void)state;
  static const int32_t chunks[] = {1, 2, 7, 50, 64, 65};
  struct tensors *want = vectors_open(TINY "expected.safetensors");
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
    struct bench b;
    if (bench_open(&b, backends[i], TINY "model") != 0) continue;
    size_t n, v = (size_t)b.model->arch.vocabulary;
    int32_t *ids = vectors_i32(want, "p2/ids", &n);
    float *whole = malloc(n * v * sizeof *whole), *parts = malloc(n * v * sizeof *parts);
    bench_run(&b, ids, 0, (int32_t)n, whole);
    for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
      for (int32_t from = 0; from < (int32_t)n; from += chunks[c]) {
        int32_t rows = (int32_t)n - from < chunks[c] ? (int32_t)n - from : chunks[c];
        bench_run(&b, ids, from, rows, parts + (size_t)from * v);
      }
      assert_memory_equal(whole, parts, n * v * sizeof *whole);
    }
    free(whole);
    free(parts);
    free(ids);
    bench_close(&b);
  }
  tensors_close(want);
}

static void test_villes(void **state) {
  (void)state;
  const char *data = getenv("STEERD_DATA");
  char weights[512];
  snprintf(weights, sizeof weights, "%s/models/villes/villes.txt", data ? data : "../shared/data");
  FILE *file = fopen(weights, "rb");
  if (!file) {
    printf("skip: villes is not there (set STEERD_DATA)\n");
    skip();
  }
  fclose(file);
  struct tensors *want = vectors_open("tests/vectors/villes/expected.safetensors");
  for (size_t i = 0; i < 2; i++) {
    struct bench b;
    if (bench_open(&b, backends[i], "config/models/villes.ini") != 0) continue;
    check_prompt(&b, want, "n0", 7);
    check_prompt(&b, want, "n1", 7);
    bench_close(&b);
  }
  tensors_close(want);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny_gpt2), cmocka_unit_test(test_half_precision),
                                     cmocka_unit_test(test_chunks_are_bit_equal), cmocka_unit_test(test_villes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
