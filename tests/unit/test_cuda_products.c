/* Products of the CUDA backend: by tensor cores, by the library ("+library": small matrices too) and by plain sums, alone and with their gate, against sums in
 * double. Needs a library (STEERD_CUDA_LIBRARY), emulated or real. */
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

struct product {
  const char *name;
  enum dtype dtype;
  int rows, n_in, n_out;
  bool lone; /* one input of each row is not 0 */
  int room;  /* rows that may be written to; 0: those of the step */
};

/* Rounding x to 8 (bf16) or 11 (f16) bits moves each term by 2^-9 or 2^-12 of it, at most; adding n terms in f32 by n * 2^-24 of their
 * sum of sizes. Tensor cores cut sums off instead of rounding them, 2^-23 a term, but in eight parts, so that a term passes
 * through n / 8 of these sums and the 8 that join the parts: less from n = 32 on. One term alone is cut where its pieces are summed. */
static double product_bound(const struct product *p) {
  bool exact = p->dtype == DTYPE_F32 || p->rows <= 32 || strstr(p->name, "deterministic");
  return (exact ? 0 : p->dtype == DTYPE_BF16 ? 0x1p-9 : 0x1p-12) + (p->lone ? 0x1p-22 : p->n_in * 0x1p-24);
}

static float *product_inputs(const struct product *p) {
  float *x = malloc((size_t)p->rows * (size_t)p->n_in * sizeof *x);
  fill(x, (size_t)p->rows * (size_t)p->n_in, 51, 1);
  for (int row = 0; row < p->rows && p->lone; row++)
    for (int in = 0; in < p->n_in; in++)
      if (in != (row * 97 + 5) % p->n_in) x[row * p->n_in + in] = 0;
  return x;
}

static int product_ld(const struct product *p) { return p->n_out + (p->room ? 4 : 0); }

/* Beside the same sums in double. Of many outputs some, the last ones among them. */
static void compare_product(const struct product *p, const struct file *file, const float *x, const float *got) {
  double rounding = product_bound(p);
  int skip = p->n_out > 3000 ? 61 : 1;
  for (int row = 0; row < p->rows; row++)
    for (int out = p->n_out - 1; out >= 0; out -= skip) {
      double sum = 0, size = 0;
      for (int in = 0; in < p->n_in; in++) {
        double term = (double)x[row * p->n_in + in] * dtype_f32_at(file->part.data, p->dtype, (size_t)(in * file->part.ld + out));
        sum += term;
        size += fabs(term);
      }
      if (!(fabs(got[row * product_ld(p) + out] - sum) <= rounding * size))
        fail_msg("%s, %d x %d, %d rows: row %d output %d: %.9g, not %.9g", dtype_name(p->dtype), p->n_in, p->n_out, p->rows, row, out,
                 got[row * product_ld(p) + out], sum);
    }
}

static void check_product_of(struct product p) {
  size_t most = (size_t)(p.room ? p.room : p.rows), results = (most + 1) * (size_t)product_ld(&p);
  float *x = product_inputs(&p), *got = malloc(results * sizeof *got);
  struct backend *backend = must_open(p.name, 1);
  struct file file = file_new(p.dtype, ROWS_ARE_INPUTS, p.n_out, p.n_in, 50, 1);
  struct matrix *w = must_matrix(backend, &file.part, 1, p.n_in);
  struct span from = must_alloc(backend, most * (size_t)p.n_in), to = must_alloc(backend, results);
  assert_int_equal(backend->ops->write(backend, from, x, (size_t)(p.rows * p.n_in) * sizeof *x, NULL), 0);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
  op.u.linear.w = w;
  op.u.linear.x = (struct rows){from, p.n_in};
  op.u.linear.y = (struct rows){to, product_ld(&p)};
  op.u.linear.room = p.room;
  struct step step = {.n_layer = 1, .n_rows = p.rows, .n_logit_rows = p.rows};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, got, to, results);
  compare_product(&p, &file, x, got);
  for (size_t i = results - (size_t)product_ld(&p); i < results; i++) assert_true(got[i] == 0); /* a row beyond stays as it was */
  for (int row = 0; row < p.rows && p.room; row++) assert_true(got[(row + 1) * product_ld(&p) - 1] == 0); /* columns likewise */
  backend->ops->matrix_free(backend, w);
  drop(backend, from);
  drop(backend, to);
  backend_close(backend);
  free(file.block);
  free(got);
  free(x);
}

static void check_product(const char *name, enum dtype dtype, int rows) {
  check_product_of((struct product){name, dtype, rows, 203, 77, false, 0});
}

/* Kernels differ by the number of outputs (below 2,048, then below 4,096, 6,144 or 32,768 by the rows) and by how x lies; inputs are taken 256 a turn, and what is on
 * its way comes round after 2,048, 1,024 and 512. */
static void test_shapes_of_products(void **state) {
  (void)state;
  static const struct { int rows, n_in, n_out; } shapes[] = {{1, 2400, 21}, {11, 2400, 21}, {20, 2403, 9}, {5, 2400, 9}, {5, 1360, 2051}, {12, 1112, 2051},
                                                             {32, 300, 2051}, {12, 520, 4099}, {32, 520, 4099}, {6, 520, 6147}, {1, 520, 32771},
                                                             {33, 2400, 21}, {65, 520, 2051}, {256, 40, 2100}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    check_product_of((struct product){"cuda", DTYPE_BF16, shapes[i].rows, shapes[i].n_in, shapes[i].n_out, false, 0});
    if (shapes[i].rows == 5)
      check_product_of((struct product){"cuda", DTYPE_F16, shapes[i].rows, shapes[i].n_in, shapes[i].n_out, false, 0});
  }
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const int rows[] = {1, 8, 9, 32};
  for (size_t d = 0; d < 3; d++)
    for (size_t r = 0; r < 4; r++) check_product_of((struct product){"cuda", dtypes[d], rows[r], 280, 17, true, 0});
  /* The library writes y itself, rows that the step does not have as well: 41 rows go as 64, 70 as 128, 300 as they are. */
  check_product_of((struct product){"cuda", DTYPE_F32, 41, 208, 80, false, 64});
  check_product_of((struct product){"cuda", DTYPE_F32, 70, 208, 80, false, 127});
  check_product_of((struct product){"cuda", DTYPE_BF16, 300, 208, 80, false, 300});
  check_product_of((struct product){"cuda+library", DTYPE_BF16, 41, 208, 80, false, 64});
  check_product_of((struct product){"cuda+library", DTYPE_F16, 70, 203, 77, false, 0});
}

/* Of a step's rows some are at work in a layer, and blocks are there for all: those that find none have weights on their way already, and
 * leave everything as it is. */
static void check_some_rows(const char *name, enum dtype dtype, struct row_range active) {
  enum { ROWS = 150, IN = 72, OUT = 44 };
  struct product p = {name, dtype, active.end - active.begin, IN, OUT, false, 0};
  float *x = malloc(ROWS * IN * sizeof *x), *got = malloc(ROWS * OUT * sizeof *got);
  struct backend *backend = must_open(name, 1);
  struct file file = file_new(dtype, ROWS_ARE_INPUTS, OUT, IN, 52, 1);
  struct matrix *w = must_matrix(backend, &file.part, 1, IN);
  fill(x, ROWS * IN, 53, 1);
  struct span from = must_put(backend, x, ROWS * IN), to = must_alloc(backend, ROWS * OUT);
  struct op op = {.code = OP_LINEAR, .set = ROWS_ACTIVE, .u.linear = {.w = w, .x = {from, IN}, .y = {to, OUT}}};
  struct row_range all[2] = {active, active};
  struct step step = {.n_layer = 1, .n_rows = ROWS, .active = all, .arriving = all};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, got, to, ROWS * OUT);
  compare_product(&p, &file, x + active.begin * IN, got + active.begin * OUT);
  for (int row = 0; row < ROWS; row++)
    for (int i = 0; i < OUT && (row < active.begin || row >= active.end); i++) assert_true(got[row * OUT + i] == 0);
  backend->ops->matrix_free(backend, w);
  drop(backend, from);
  drop(backend, to);
  backend_close(backend);
  free(file.block);
  free(got);
  free(x);
}

static void test_some_rows(void **state) {
  (void)state;
  static const char *const names[] = {"cuda", "cuda+library", "cuda+deterministic"};
  for (int i = 0; i < 3; i++) {
    check_some_rows(names[i], DTYPE_BF16, (struct row_range){20, 61});
    check_some_rows(names[i], DTYPE_F16, (struct row_range){0, 150});
    check_some_rows(names[i], DTYPE_F16, (struct row_range){100, 150});
  }
}

/* How many outputs a block has depends on the rows, and the bits of a row on neither. */
static void test_rows_of_wide_products(void **state) {
  (void)state;
  enum { ROWS = 20, IN = 520, OUT = 6147 };
  static const int counts[] = {ROWS, 12, 8, 3, 2};
  float *x = malloc(ROWS * IN * sizeof *x), *got = malloc(2 * ROWS * OUT * sizeof *got), *want = got + ROWS * OUT;
  struct backend *backend = must_open("cuda", 1);
  struct file file = file_new(DTYPE_BF16, ROWS_ARE_OUTPUTS, OUT, IN, 54, 1);
  struct matrix *w = must_matrix(backend, &file.part, 1, IN);
  fill(x, ROWS * IN, 55, 1);
  struct span from = must_put(backend, x, ROWS * IN), to = must_alloc(backend, ROWS * OUT);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT, .u.linear = {.w = w, .y = {to, OUT}}};
  for (int row = 0; row < ROWS; row++) {
    op.u.linear.x = (struct rows){span_at(from, (size_t)(row * IN) * sizeof *x), IN};
    assert_int_equal(backend->ops->run(backend, &op, 1, &(struct step){.n_layer = 1, .n_rows = 1, .n_logit_rows = 1}, NULL), 0);
    must_read(backend, want + row * OUT, to, OUT);
  }
  op.u.linear.x = (struct rows){from, IN};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    struct step step = {.n_layer = 1, .n_rows = counts[i], .n_logit_rows = counts[i]};
    assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
    must_read(backend, got, to, (size_t)(counts[i] * OUT));
    same_bits("rows of a wide product", got, want, (size_t)(counts[i] * OUT));
  }
  backend->ops->matrix_free(backend, w);
  drop(backend, from);
  drop(backend, to);
  backend_close(backend);
  free(file.block);
  free(got);
  free(x);
}

static void test_products(void **state) {
  (void)state;
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const int rows[] = {1, 3, 8, 9, 16, 17, 32, 33, 100, 300};
  for (size_t d = 0; d < 3; d++)
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
      check_product("cuda", dtypes[d], rows[r]);
      check_product("cuda+deterministic", dtypes[d], rows[r]);
    }
}

enum { GATED_ROWS = 33, GATED_IN = 40, GATED_OUT = 70, GATED_LD = 72 };

/* Up, gate and what they make, as one list or one after the other: the same bits, and one launch where there is a kernel for it. */
static void check_gate(const char *name, enum dtype dtype, int rows, bool together, bool bias) {
  struct backend *backend = must_open(name, 1);
  struct file up = file_new(dtype, ROWS_ARE_OUTPUTS, GATED_OUT, GATED_IN, 60, 1), gate = file_new(dtype, ROWS_ARE_OUTPUTS, GATED_OUT, GATED_IN, 61, 1);
  struct matrix *w[2] = {must_matrix(backend, &up.part, 1, GATED_IN), must_matrix(backend, &gate.part, 1, GATED_IN)};
  struct span x = put_noise(backend, GATED_ROWS * GATED_IN, 62, 1), biases = put_noise(backend, 2 * GATED_OUT, 63, 1);
  struct span y[2] = {must_alloc(backend, GATED_ROWS * GATED_LD), must_alloc(backend, GATED_ROWS * GATED_LD)};
  float got[2][GATED_ROWS * GATED_LD];
  struct op list[3] = {{.code = OP_LINEAR, .set = ROWS_LOGIT}, {.code = OP_LINEAR, .set = ROWS_LOGIT}, {.code = OP_GATE, .set = ROWS_LOGIT, .width = GATED_OUT}};
  for (int i = 0; i < 2; i++) {
    list[i].u.linear.w = w[i];
    list[i].u.linear.x = (struct rows){x, GATED_IN};
    list[i].u.linear.y = (struct rows){y[i], GATED_LD};
    if (bias) list[i].u.linear.bias = span_at(biases, (size_t)(i * GATED_OUT) * sizeof(float));
  }
  list[2].u.gate.x = list[1].u.linear.y;
  list[2].u.gate.up = list[2].u.gate.y = list[0].u.linear.y;
  list[2].u.gate.act = ACT_SILU;
  struct step step = {.n_layer = 1, .n_rows = rows, .n_logit_rows = rows};
  for (int i = 0; i < 3; i++) assert_int_equal(backend->ops->run(backend, &list[i], 1, &step, NULL), 0);
  must_read(backend, got[0], y[0], GATED_ROWS * GATED_LD);
  long before = emulated.counts ? count(LAUNCHES) : 0;
  assert_int_equal(backend->ops->run(backend, list, 3, &step, NULL), 0);
  must_read(backend, got[1], y[0], GATED_ROWS * GATED_LD);
  if (emulated.counts) assert_int_equal(count(LAUNCHES) - before == 1, together);
  same_bits("a gate with its product", got[1], got[0], GATED_ROWS * GATED_LD);
  for (int i = 0; i < 2; i++) {
    backend->ops->matrix_free(backend, w[i]);
    drop(backend, y[i]);
  }
  drop(backend, x);
  drop(backend, biases);
  backend_close(backend);
  free(up.block);
  free(gate.block);
}

static void test_gates(void **state) {
  (void)state;
  static const int rows[] = {1, 8, 9, 20};
  for (int r = 0; r < 4; r++) {
    check_gate("cuda", DTYPE_BF16, rows[r], true, r % 2);
    check_gate("cuda", DTYPE_F16, rows[r], true, !(r % 2));
    check_gate("cuda", DTYPE_F32, rows[r], rows[r] <= 8, r % 2);
  }
  check_gate("cuda", DTYPE_BF16, 33, false, true);
  check_gate("cuda+library", DTYPE_F16, 33, false, true);
  check_gate("cuda+deterministic", DTYPE_BF16, 33, true, true);
  check_gate("cuda+deterministic", DTYPE_F32, 33, true, true);
}

/* Kernels begin before their turn where the device can (device 0 of the emulator, not device 1) and nobody asked otherwise. */
static void test_overlaps(void **state) {
  (void)state;
  static const struct {
    const char *name;
    bool overlaps;
  } cases[] = {{"cuda:0", true}, {"cuda:1", false}, {"cuda:0+serial", false}, {"cuda:0+deterministic+serial", false}};
  if (!emulated.order) skip();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    long before = count_launches(EARLY_LAUNCHES), launches = count(LAUNCHES);
    check_product(cases[i].name, DTYPE_BF16, 1);
    assert_int_equal(count_launches(EARLY_LAUNCHES) - before, cases[i].overlaps ? count(LAUNCHES) - launches : 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_products), cmocka_unit_test(test_rows_of_wide_products),
      cmocka_unit_test(test_shapes_of_products),
      cmocka_unit_test(test_some_rows),
      cmocka_unit_test(test_gates),
      cmocka_unit_test(test_overlaps),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
