/* The ops along rows that newer families need, on every backend, against formulas written out here: rotary positions,
 * norms of heads, softmax units, positions added on the way, soft caps, and matrices whose outputs lie in runs; and rows of any
 * width against ref. */
#include "tests/unit/ops_world.h"

enum { ROWS = 5, N_CTX = 9 };

static int all_backends(const char **names) {
  names[0] = "ref";
  return 1 + fast_backends(names + 1);
}

/* One op over ROWS rows at positions 4, 5, ... of one layer; reads `floats` back from `from`. */
static void run_one(struct backend *backend, const struct op *op, float *to, struct span from, size_t floats) {
  int32_t position[ROWS];
  struct row_range all[2] = {{0, ROWS}, {0, ROWS}};
  struct step_slot slot = {{0, ROWS}, 4, 0, 1};
  for (int i = 0; i < ROWS; i++) position[i] = 4 + i;
  struct step step = {.n_layer = 1, .n_rows = ROWS, .position = position, .n_slots = 1, .slots = &slot,
                      .active = all, .arriving = all};
  assert_int_equal(backend->ops->run(backend, op, 1, &step, NULL), 0);
  must_read(backend, to, from, floats);
}

/* Rounding of two products and a sum of numbers below 1. */
#define ROTATE_TOLERANCE 4e-7

static void check_rotate(const char *name, enum rotary_pairing pairing, int d_head, int dims) {
  enum { HEADS = 3, MOST = 80 };
  int ld = HEADS * d_head + 7;
  float x[ROWS * (HEADS * MOST + 7)], got[ROWS * (HEADS * MOST + 7)], table[N_CTX * MOST];
  struct backend *backend = must_open(name, 2);
  fill(x, (size_t)(ROWS * ld), 1, 1);
  fill(table, (size_t)(N_CTX * dims), 2, 1);
  struct span at = must_put(backend, x, (size_t)(ROWS * ld)), turns = must_put(backend, table, (size_t)(N_CTX * dims));
  struct op op = {.code = OP_ROTATE, .set = ROWS_ACTIVE, .width = d_head};
  op.u.rotate.x = (struct rows){span_at(at, 4), ld};
  op.u.rotate.heads = HEADS;
  op.u.rotate.dims = dims;
  op.u.rotate.pairing = pairing;
  op.u.rotate.table = turns;
  run_one(backend, &op, got, at, (size_t)(ROWS * ld));
  for (int row = 0; row < ROWS; row++)
    for (int head = 0; head < HEADS; head++)
      for (int i = 0; i < dims / 2; i++) {
        float *h = x + row * ld + 1 + head * d_head, *a, *b;
        double c = table[(4 + row) * dims + i], s = table[(4 + row) * dims + dims / 2 + i];
        a = pairing == ROTARY_HALVES ? h + i : h + 2 * i;
        b = pairing == ROTARY_HALVES ? h + i + dims / 2 : h + 2 * i + 1;
        double was = *a;
        *a = (float)(was * c - *b * s);
        *b = (float)(*b * c + was * s);
      }
  close_to(name, got, x, (size_t)(ROWS * ld), ROTATE_TOLERANCE);
  drop(backend, at);
  drop(backend, turns);
  backend_close(backend);
}

static void test_rotate(void **state) {
  (void)state;
  static const int sizes[][2] = {{2, 2}, {10, 4}, {32, 32}, {34, 34}, {80, 66}};
  const char *names[4];
  int n = all_backends(names);
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
      check_rotate(names[i], ROTARY_HALVES, sizes[k][0], sizes[k][1]);
      check_rotate(names[i], ROTARY_NEIGHBOURS, sizes[k][0], sizes[k][1]);
    }
}

static void test_norms_of_heads(void **state) {
  (void)state;
  enum { HEADS = 3, E = 19, LD = HEADS * E + 4 };
  const char *names[4];
  int n = all_backends(names);
  for (int i = 0; i < n; i++) {
    float x[ROWS * LD], got[ROWS * LD], gain[E];
    struct backend *backend = must_open(names[i], 2);
    fill(x, ROWS * LD, 3, 2);
    fill(gain, E, 4, 1);
    struct span at = must_put(backend, x, ROWS * LD), gains = must_put(backend, gain, E);
    struct op op = {.code = OP_NORM, .set = ROWS_ACTIVE, .width = E};
    op.u.norm.x = op.u.norm.y = (struct rows){span_at(at, 8), LD};
    op.u.norm.norm = (struct norm){.kind = NORM_RMS, .eps = 1e-2f, .gain = gains};
    op.u.norm.parts = HEADS;
    run_one(backend, &op, got, at, ROWS * LD);
    for (int row = 0; row < ROWS; row++)
      for (int head = 0; head < HEADS; head++) {
        float *h = x + row * LD + 2 + head * E;
        double square = 0;
        for (int k = 0; k < E; k++) square += (double)h[k] * h[k];
        for (int k = 0; k < E; k++) h[k] = (float)(h[k] / sqrt(square / E + 1e-2f) * gain[k]);
      }
    close_to(names[i], got, x, ROWS * LD, 16 * 0x1p-24 * sqrt(E)); /* as in test_norms of test_ops.c */
    drop(backend, at);
    drop(backend, gains);
    backend_close(backend);
  }
}

static void check_solu(const char *name, int width) {
  enum { MOST = 100 };
  float x[ROWS * MOST], got[ROWS * MOST], want[ROWS * MOST];
  struct backend *backend = must_open(name, 2);
  fill(x, (size_t)(ROWS * width), 5, 6);
  struct span at = must_put(backend, x, (size_t)(ROWS * width));
  struct op op = {.code = OP_SOLU, .set = ROWS_ACTIVE, .width = width};
  op.u.solu.x = op.u.solu.y = (struct rows){at, width};
  run_one(backend, &op, got, at, (size_t)(ROWS * width));
  for (int row = 0; row < ROWS; row++) {
    double total = 0;
    for (int i = 0; i < width; i++) total += exp(x[row * width + i]);
    for (int i = 0; i < width; i++) want[row * width + i] = (float)(x[row * width + i] * exp(x[row * width + i]) / total);
  }
  close_to(name, got, want, (size_t)(ROWS * width), 6 * 12 * 0x1p-24); /* values below 6, exponents below 12 in size */
  drop(backend, at);
  backend_close(backend);
}

static void test_softmax_units(void **state) {
  (void)state;
  const char *names[4];
  int n = all_backends(names);
  for (int i = 0; i < n; i++)
    for (int width = 1; width <= 100; width += 11) check_solu(names[i], width);
}

static void test_places(void **state) {
  (void)state;
  enum { WIDTH = 21 };
  const char *names[4];
  int n = all_backends(names);
  for (int i = 0; i < n; i++) {
    float x[ROWS * WIDTH], table[N_CTX * WIDTH], got[ROWS * WIDTH];
    struct backend *backend = must_open(names[i], 2);
    fill(x, ROWS * WIDTH, 6, 1);
    fill(table, N_CTX * WIDTH, 7, 1);
    struct span from = must_put(backend, x, ROWS * WIDTH), places = must_put(backend, table, N_CTX * WIDTH);
    struct span to = must_alloc(backend, ROWS * WIDTH);
    struct op op = {.code = OP_PLACE, .set = ROWS_ACTIVE, .width = WIDTH};
    op.u.place.x = (struct rows){from, WIDTH};
    op.u.place.y = (struct rows){to, WIDTH};
    op.u.place.table = places;
    run_one(backend, &op, got, to, ROWS * WIDTH);
    for (int k = 0; k < ROWS * WIDTH; k++) x[k] += table[4 * WIDTH + k];
    same_bits(names[i], got, x, ROWS * WIDTH);
    struct span all[] = {from, places, to};
    for (size_t k = 0; k < 3; k++) drop(backend, all[k]);
    backend_close(backend);
  }
}

/* q and k of 3 heads interleaved in one file, and v as a matrix for each head: stacked, they must multiply as if they
 * had been written side by side; then the soft cap. */
static void check_runs(const char *name, int e, enum dtype dtype) {
  enum { HEADS = 3, N_IN = 21, MOST = 3 * HEADS * 32 };
  struct backend *backend = must_open(name, 2);
  int width = HEADS * e;
  size_t size = dtype_size(dtype);
  struct file qk = file_new(dtype, ROWS_ARE_OUTPUTS, 2 * width, N_IN, 8, 1);
  struct file v = file_new(dtype, ROWS_ARE_INPUTS, e, HEADS * N_IN, 9, 1); /* HEADS matrices [N_IN, e] */
  int64_t ld = qk.part.ld;
  struct matrix_part parts[3] = {qk.part, qk.part, v.part};
  parts[1].data = (const char *)qk.part.data + (size_t)(e * ld) * size;
  for (int i = 0; i < 3; i++) {
    parts[i].n_out = width;
    parts[i].run = e;
    parts[i].run_stride = i == 2 ? N_IN * v.part.ld : 2 * e * ld;
  }
  struct matrix *w = must_matrix(backend, parts, 3, N_IN);
  float x[ROWS * N_IN], got[ROWS * MOST];
  fill(x, ROWS * N_IN, 10, 1);
  struct span from = must_put(backend, x, ROWS * N_IN), to = must_alloc(backend, (size_t)(ROWS * 3 * width));
  struct op op = {.code = OP_LINEAR, .set = ROWS_ACTIVE};
  op.u.linear.w = w;
  op.u.linear.x = (struct rows){from, N_IN};
  op.u.linear.y = (struct rows){to, 3 * width};
  op.u.linear.soft_cap = 1.5f;
  run_one(backend, &op, got, to, (size_t)(ROWS * 3 * width));
  for (int row = 0; row < ROWS; row++)
    for (int out = 0; out < 3 * width; out++) {
      int part = out / width, head = out % width / e, k = out % e;
      double sum = 0;
      for (int in = 0; in < N_IN; in++) {
        int64_t at = part == 2 ? (head * N_IN + in) * v.part.ld + k : ((2 * head + part) * e + k) * ld + in;
        sum += (double)x[row * N_IN + in] * dtype_f32_at(part == 2 ? v.part.data : qk.part.data, dtype, (size_t)at);
      }
      double want = 1.5 * tanh(sum / 1.5), found = got[row * 3 * width + out];
      if (fabs(want - found) > 4.5 * N_IN * 0x1p-24 + 1e-6) /* as in test_linear of test_ops.c, and the cap's rounding */
        fail_msg("%s: heads of %d: row %d output %d: %.9g, not %.9g", name, e, row, out, found, want);
    }
  drop(backend, from);
  drop(backend, to);
  backend->ops->matrix_free(backend, w);
  backend_close(backend);
  free(qk.block);
  free(v.block);
}

static void test_runs_and_soft_caps(void **state) {
  (void)state;
  static const int sizes[] = {1, 6, 16, 20, 32};
  const char *names[4];
  int n = all_backends(names);
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
      check_runs(names[i], sizes[k], DTYPE_F32);
      check_runs(names[i], sizes[k], DTYPE_BF16);
    }
}

/* Numbers between two halves go to the even one. */
static void test_rounding_to_halves(void **state) {
  (void)state;
  assert_true(dtype_round(59.866518f, DTYPE_BF16) == 59.75f);
  assert_true(dtype_round(59.866518f, DTYPE_F16) == 59.875f);
  assert_true(dtype_round(59.866518f, DTYPE_F32) == 59.866518f);
  assert_true(dtype_round(257.0f, DTYPE_BF16) == 256.0f && dtype_round(259.0f, DTYPE_BF16) == 260.0f);
  assert_true(dtype_round(-2049.0f, DTYPE_F16) == -2048.0f && dtype_round(2051.0f, DTYPE_F16) == 2052.0f);
}

/* ---- rows of any width ------------------------------------------------------------------------------------------------------ */

/* A sublayer's sum with everything that may be done to a row on the way: edits of what it gave and of the residual, a tap of each,
 * and the norm. What comes of resid, y and the taps, each [ROWS][width]. */
static float *run_wide(const char *name, int width) {
  struct backend *backend = must_open(name, 2);
  size_t n = (size_t)(ROWS * width);
  float *got = malloc(4 * n * sizeof *got);
  struct span x = put_noise(backend, n, 31, 1), out = put_noise(backend, n, 32, 1), taps = must_alloc(backend, 2 * n);
  struct span v = put_noise(backend, (size_t)width, 33, 1.0f / (float)width), y = must_alloc(backend, n);
  struct span gain = put_noise(backend, (size_t)width, 34, 1), bias = put_noise(backend, (size_t)width, 35, 1);
  struct span block = put_noise(backend, n, 36, 1);
  struct edit_item edits[] = {
      {.kind = EDIT_ROW_SCALE, .rows = {0, ROWS}, .column_begin = 3, .column_end = width, .value = -0.5f},
      {.kind = EDIT_ROW_FEATURE_SET, .rows = {1, 3}, .column_end = width - 1, .value = 2, .bias = 5, .fold = 1, .v = v, .enc = v},
      {.kind = EDIT_ROW_PROJECT, .rows = {0, 4}, .column_begin = width / 3, .column_end = width, .value = 3, .v = v},
      {.kind = EDIT_ROW_REPLACE, .rows = {2, 4}, .column_begin = 7, .column_end = width / 2, .v = block},
      {.kind = EDIT_ROW_ADD, .rows = {0, ROWS}, .column_end = width, .value = 9, .v = v}};
  struct tap_item tap[] = {{.rows = {1, ROWS}, .to = span_at(taps, (size_t)width * sizeof(float)), .ld = width},
                           {.rows = {0, ROWS}, .to = span_at(taps, n * sizeof(float)), .ld = width}};
  int32_t edit_begin[2 * SITE_COUNT + 1] = {0}, tap_begin[2 * SITE_COUNT + 1] = {0};
  int given = point_index((struct point){0, SITE_ATTN_OUT}), sum = point_index((struct point){0, SITE_RESID_MID});
  for (int i = 0; i <= 2 * SITE_COUNT; i++) {
    edit_begin[i] = i <= given ? 0 : i <= sum ? 2 : 5;
    tap_begin[i] = i <= given ? 0 : i <= sum ? 1 : 2;
  }
  struct row_range all[2] = {{0, ROWS}, {0, ROWS}};
  struct step_slot slot = {{0, ROWS}, 0, 0, 1};
  struct step step = {.n_layer = 1, .n_rows = ROWS, .n_slots = 1, .slots = &slot, .active = all, .arriving = all, .edits = edits,
                      .edit_begin = edit_begin, .taps = tap, .tap_begin = tap_begin};
  struct op op = {.code = OP_SUBLAYER, .set = ROWS_ACTIVE, .width = width};
  op.u.sublayer.resid = (struct rows){x, width};
  op.u.sublayer.out = (struct rows){out, width};
  op.u.sublayer.y = (struct rows){y, width};
  op.u.sublayer.out_site = SITE_ATTN_OUT;
  op.u.sublayer.resid_site = SITE_RESID_MID;
  op.u.sublayer.norm = (struct norm){.kind = NORM_LAYER, .eps = 1e-5f, .gain = gain, .bias = bias};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, got, x, n);
  must_read(backend, got + n, y, n);
  must_read(backend, got + 2 * n, taps, 2 * n);
  memset(got + 2 * n, 0, (size_t)width * sizeof *got); /* row 0 of the first tap is nobody's */
  struct span spans[] = {x, out, taps, v, y, gain, bias, block};
  for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) drop(backend, spans[i]);
  backend_close(backend);
  return got;
}

/* Widths around those at which a device takes more threads, more turns of them, or no shared memory for a row. */
static void test_wide_rows(void **state) {
  (void)state;
  static const int widths[] = {1023, 2600, 5003, 10600};
  const char *names[4];
  int n = fast_backends(names);
  for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
    float *want = run_wide("ref", widths[w]);
    for (int i = 0; i < n; i++) {
      float *got = run_wide(names[i], widths[w]);
      /* numbers below 16, after a handful of roundings; sums of `width` terms of 1 / width, in 16 lanes or more */
      close_to(names[i], got, want, 4 * (size_t)(ROWS * widths[w]), 16 * 0x1p-24 * (8 + sqrt(widths[w])));
      free(got);
    }
    free(want);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rotate),        cmocka_unit_test(test_norms_of_heads),     cmocka_unit_test(test_softmax_units),
      cmocka_unit_test(test_places),        cmocka_unit_test(test_runs_and_soft_caps), cmocka_unit_test(test_rounding_to_halves),
      cmocka_unit_test(test_wide_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
