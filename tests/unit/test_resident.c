/* Encoders that come and go with a budget: the same bits as those that stay, the least recently used goes first, one feature's
 * rows need none. Encoders in another dtype: every way to a value sees the same rounded weights; the rounding itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/dict/dict.h"

#define SOURCES "tests/vectors/tiny-gpt2/sources/"
#define ROWS 7
#define WIDTH 48
static const char *const names[] = {"1-res-relu", "0-mlp-topk", "2-res-jump"};
enum { COUNT = 3 };

static struct backend *must_backend(const char *name) {
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, 2, &error);
  if (!backend) fail_msg("%s", error.text);
  return backend;
}

static struct dict *must_open(const char *name, struct backend *backend, const struct dict_memory *memory) {
  char path[128];
  struct error error = ERROR_INIT;
  static const struct arch arch = {.n_layer = 3, .n_head = 4, .n_kv_head = 4, .d_head = WIDTH / 4, .d_model = WIDTH,
                                   .d_mlp = 128, .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
  struct dict_host host = {"tiny-gpt2", &arch, memory, NULL};
  snprintf(path, sizeof path, SOURCES "%s", name);
  struct dict *dict = dict_open(path, name, &host, backend, &error);
  if (!dict) fail_msg("%s", error.text);
  return dict;
}

static void fill(float *x) {
  for (int i = 0; i < ROWS * WIDTH; i++) x[i] = (float)(8 * random_unit(3, 1, (uint64_t)i) - 4);
}

static void encode(struct backend *backend, const struct dict *dict, const float *x, struct sparse *out) {
  struct memory *memory = NULL;
  struct error error = ERROR_INIT;
  size_t bytes = ROWS * WIDTH * sizeof *x;
  assert_int_equal(backend->ops->alloc(backend, bytes, &memory, NULL), 0);
  assert_int_equal(backend->ops->write(backend, (struct span){memory, 0}, x, bytes, NULL), 0);
  sparse_init(out);
  if (dict_encode(dict, (struct rows){{memory, 0}, WIDTH}, ROWS, out, &error) != 0) fail_msg("%s", error.text);
  backend->ops->free(backend, memory);
}

static void same_bits(const struct sparse *a, const struct sparse *b) {
  assert_int_equal(a->n_rows, b->n_rows);
  assert_memory_equal(a->start, b->start, (a->n_rows + 1) * sizeof *a->start);
  assert_true(a->start[a->n_rows] > 0);
  assert_memory_equal(a->index, b->index, a->start[a->n_rows] * sizeof *a->index);
  assert_memory_equal(a->value, b->value, a->start[a->n_rows] * sizeof *a->value);
}

/* ---- the budget ---- */

static void test_least_recently_used_goes(void **state) {
  (void)state;
  float x[ROWS * WIDTH];
  struct backend *backend = must_backend("cpu");
  struct dict *stays[COUNT], *comes[COUNT];
  struct sparse want[COUNT], got;
  struct error error = ERROR_INIT;
  fill(x);
  for (int i = 0; i < COUNT; i++) {
    stays[i] = must_open(names[i], backend, NULL);
    encode(backend, stays[i], x, &want[i]);
  }
  size_t one = dict_encoder_bytes(stays[0]);
  assert_true(one > 0);
  struct dict_budget *budget = dict_budget_new(2 * one, &error);
  assert_non_null(budget);
  const struct dict_memory memory = {budget, DTYPE_OTHER, false};
  for (int i = 0; i < COUNT; i++) comes[i] = must_open(names[i], backend, &memory);
  assert_true(dict_encoder_bytes(comes[0]) && dict_encoder_bytes(comes[1]));
  assert_int_equal(dict_encoder_bytes(comes[2]), 0); /* there was no room */
  static const struct {
    int use, gone;
  } turns[] = {{0, -1}, {2, 1}, {2, 1}, {1, 0}, {0, 2}, {1, 2}, {2, 0}};
  for (size_t t = 0; t < sizeof turns / sizeof *turns; t++) {
    struct dict_budget_stats stats;
    encode(backend, comes[turns[t].use], x, &got);
    same_bits(&got, &want[turns[t].use]);
    sparse_clear(&got);
    dict_budget_stats(budget, &stats);
    assert_int_equal(stats.bytes, 2 * one);
    assert_true(dict_encoder_bytes(comes[turns[t].use]) > 0);
    if (turns[t].gone >= 0) assert_int_equal(dict_encoder_bytes(comes[turns[t].gone]), 0);
  }
  struct dict_budget_stats stats;
  dict_budget_stats(budget, &stats);
  assert_int_equal(stats.dropped, 4);
  assert_int_equal(stats.prepared, 6);
  for (int i = 0; i < COUNT; i++) {
    dict_close(comes[i]);
    dict_close(stays[i]);
    sparse_clear(&want[i]);
  }
  dict_budget_stats(budget, &stats);
  assert_int_equal(stats.bytes, 0);
  dict_budget_free(budget);
  backend_close(backend);
}

/* A budget below any encoder: the one in use stays, and rows of one feature come from the file. */
static void test_one_feature_needs_no_encoder(void **state) {
  (void)state;
  float x[ROWS * WIDTH], alone[ROWS], row[WIDTH];
  struct backend *backend = must_backend("cpu");
  struct error error = ERROR_INIT;
  struct dict_budget *budget = dict_budget_new(1, &error);
  const struct dict_memory memory = {budget, DTYPE_OTHER, false};
  struct dict *dict = must_open("1-res-relu", backend, &memory);
  fill(x);
  dict_feature_values(dict, 5, x, ROWS, alone);
  dict_decoder_row(dict, 5, row);
  dict_encoder_row(dict, 5, row);
  assert_int_equal(dict_encoder_bytes(dict), 0);
  struct sparse codes;
  encode(backend, dict, x, &codes);
  assert_true(dict_encoder_bytes(dict) > 0);
  for (size_t r = 0; r < ROWS; r++)
    if (fabsf(sparse_find(&codes, r, 5) - alone[r]) > 1e-4f) fail_msg("row %zu differs", r); /* decision 18 */
  sparse_clear(&codes);
  dict_close(dict);
  dict_budget_free(budget);
  backend_close(backend);
}

/* ---- dtypes ---- */

/* The chain of one value, with weights that the test rounds itself. */
static void check_dtype(const char *backend_name, enum dtype keep) {
  float x[ROWS * WIDTH], enc[WIDTH], plain[WIDTH];
  struct backend *backend = must_backend(backend_name);
  const struct dict_memory memory = {NULL, keep, false};
  struct dict *kept = must_open("1-res-relu", backend, &memory), *file = must_open("1-res-relu", backend, NULL);
  struct sparse codes;
  int differ = 0;
  fill(x);
  encode(backend, kept, x, &codes);
  for (int64_t f = 0; f < dict_info(kept)->n_feat; f++) {
    struct dict_encoder e = dict_encoder_row(kept, f, enc);
    dict_encoder_row(file, f, plain);
    for (int i = 0; i < WIDTH; i++) {
      assert_float_equal(enc[i], dtype_round(plain[i], keep), 0);
      differ += enc[i] != plain[i];
    }
    for (size_t r = 0; r < ROWS; r++) {
      double p = e.bias;
      for (int i = 0; i < WIDTH; i++) p += (double)x[r * WIDTH + (size_t)i] * enc[i];
      double want = p > e.threshold ? p * e.fold : 0;
      if (fabs(p) < 1e-4) continue; /* may fall on either side */
      /* decision 18: sums of 48 products of up to 4 x 1 in f32 */
      if (fabs(want - sparse_find(&codes, r, (int32_t)f)) > 1e-4 * fmax(1, fabs(want)))
        fail_msg("%s: feature %lld of row %zu is %g, expected %g", backend_name, (long long)f, r,
                 (double)sparse_find(&codes, r, (int32_t)f), want);
    }
  }
  assert_true(keep == DTYPE_F32 || differ > 0);
  if (strcmp(backend_name, "cpu") == 0)
    assert_true(dict_encoder_bytes(kept) == dict_encoder_bytes(file) / (keep == DTYPE_F32 ? 1 : 2));
  sparse_clear(&codes);
  dict_close(kept);
  dict_close(file);
  backend_close(backend);
}

static void test_dtypes(void **state) {
  (void)state;
  static const enum dtype kinds[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  for (int i = 0; i < 3; i++) {
    check_dtype("cpu", kinds[i]);
    check_dtype("ref", kinds[i]);
  }
}

/* Between two neighbours a < b: what is nearer wins, the middle goes to the even one. */
static void check_between(uint16_t low, float a, float b, uint16_t (*round)(float)) {
  float middle = a + (b - a) / 2, below = nextafterf(middle, a), above = nextafterf(middle, b);
  assert_int_equal(round(a), low);
  assert_int_equal(round(b), low + 1);
  assert_int_equal(round(below), low);
  assert_int_equal(round(above), low + 1);
  assert_int_equal(round(middle), low % 2 ? low + 1 : low);
}

static void test_rounding(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 0x7BFF; h++) {
    check_between((uint16_t)h, f16_to_f32((uint16_t)h), f16_to_f32((uint16_t)(h + 1)), f32_to_f16);
    assert_int_equal(f32_to_f16(-f16_to_f32((uint16_t)h)), h | 0x8000);
  }
  assert_int_equal(f32_to_f16(1e9f), 0x7BFF);
  assert_int_equal(f32_to_f16(-INFINITY), 0xFBFF);
  assert_true(isnan(f16_to_f32(f32_to_f16(NAN))));
  for (uint32_t h = 0; h < 0x7F7F; h++)
    check_between((uint16_t)h, bf16_to_f32((uint16_t)h), bf16_to_f32((uint16_t)(h + 1)), f32_to_bf16);
  assert_int_equal(f32_to_bf16(-1.0f), 0xBF80);
  assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

/* ---- what it says that it takes ---- */

/* When all is done that the backend was asked for. */
static size_t settled_room(struct backend *backend) {
  size_t left, total;
  struct memory *memory = NULL;
  assert_int_equal(backend->ops->alloc(backend, 64, &memory, NULL), 0);
  backend->ops->free(backend, memory);
  assert_int_equal(backend_wait(backend, NULL), 0);
  assert_int_equal(backend->ops->room(backend, &left, &total, NULL), 0);
  return left;
}

/* Without what splices need. */
static size_t plain_bytes(const char *name) {
  struct backend *backend = must_backend("ref");
  struct dict *dict = must_open(name, backend, NULL);
  size_t bytes = dict_info(dict)->bytes;
  assert_false(dict_splices(dict));
  dict_close(dict);
  backend_close(backend);
  return bytes;
}

/* The emulator counts bytes; a device has pages of 2 MiB, of which a dictionary can open one for vectors and one for matrices, and what
 * others have of it (tables of pages, code that is loaded when it is first used) comes in the same. */
#define PAGES ((size_t)4 << 20)

static bool counts_to_the_byte(void) {
  const char *library = getenv("STEERD_CUDA_LIBRARY");
  return library && strstr(library, "emulated");
}

static void same_room(size_t got, size_t want) {
  size_t off = got > want ? got - want : want - got;
  if (off > (counts_to_the_byte() ? 0 : PAGES)) fail_msg("%zu bytes, not %zu", got, want);
}

/* On a device: beside its matrices a dictionary has what it was opened with, whatever is done with it, and says so. */
static void test_bytes(void **state) {
  (void)state;
  struct backend *backend = must_backend("cpu");
  struct error error = ERROR_INIT;
  if (!backend->ops->room) {
    backend_close(backend);
    skip();
  }
  for (int i = 0; i < 2; i++) { /* what any upload and encode takes is taken */
    float x[ROWS * WIDTH];
    struct sparse codes;
    struct dict *dict = must_open(names[0], backend, NULL);
    fill(x);
    encode(backend, dict, x, &codes);
    sparse_clear(&codes);
    dict_close(dict);
  }
  for (int i = 0; i < COUNT; i++) {
    size_t before, opened, held, total;
    struct dict_budget *budget = dict_budget_new((size_t)1 << 20, &error);
    struct dict_memory memory = {budget, DTYPE_OTHER, false};
    struct dict_budget_stats stats;
    const struct splice *splice;
    uint64_t serial;
    before = settled_room(backend);
    struct dict *dict = must_open(names[i], backend, &memory);
    const struct dict_info *info = dict_info(dict);
    size_t said = info->bytes;
    assert_true(dict_splices(dict));
    assert_int_equal(backend->ops->room(backend, &opened, &total, &error), 0);
    assert_int_equal(dict_splice_hold(dict, &splice, &serial, &error), 0);
    assert_int_equal(backend->ops->room(backend, &held, &total, &error), 0);
    dict_budget_stats(budget, &stats);
    same_room(held + stats.bytes - dict_encoder_bytes(dict), opened); /* the decoder; the encoder was there */
    size_t splices = (size_t)(info->n_feat + info->d_out) * sizeof(float);
    if (counts_to_the_byte()) {
      size_t vectors = before - opened - dict_encoder_bytes(dict);
      assert_true(vectors > splices && said > vectors);
    }
    assert_int_equal(said - plain_bytes(names[i]), splices);
    assert_int_equal(dict_info(dict)->bytes, said);
    dict_splice_release(dict);
    dict_close(dict);
    dict_budget_free(budget);
    same_room(settled_room(backend), before);
  }
  backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_least_recently_used_goes),
      cmocka_unit_test(test_one_feature_needs_no_encoder),
      cmocka_unit_test(test_dtypes),
      cmocka_unit_test(test_rounding),
      cmocka_unit_test(test_bytes),
  };
  log_set_level(LOG_LEVEL_ERROR);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
