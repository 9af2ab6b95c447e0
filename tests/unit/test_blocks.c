/* Matrices in 8 bits: what numbers become in them, against NumPy; products and ways back, which have the bits of a matrix of F32 with the
 * same values. Whole models: test_plan.c. */
#include "tests/unit/ops_world.h"

#include "core/math/blocks.h"
#include "core/math/host.h"
#include "tests/unit/vectors.h"

/* ---- numbers ---- */

static void test_numbers(void **state) {
  (void)state;
  struct tensors *want = vectors_open("tests/vectors/tiny-gpt2/q8.safetensors");
  size_t n, count;
  float *weights = vectors_f32(want, "weights", &n), *kept = vectors_f32(want, "kept", &count);
  for (size_t row = 0; row < 5; row++) q8_round(weights + row * 70, 70);
  same_bits("numbers", weights, kept, 5 * 70);
  for (size_t row = 0; row < 5; row++) q8_round(weights + row * 70, 70);
  same_bits("numbers of numbers", weights, kept, 5 * 70);
  free(weights);
  free(kept);
  tensors_close(want);
}

/* A weight that is no number is not made one, nor are those that share its scale; the next block has its own. */
static void test_no_numbers(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    float weights[2 * Q8_INPUTS];
    for (int k = 0; k < 2 * Q8_INPUTS; k++) weights[k] = (float)k;
    weights[3] = i ? INFINITY : NAN;
    q8_round(weights, 2 * Q8_INPUTS);
    for (int k = 0; k < Q8_INPUTS; k++) assert_true(isnan(weights[k]));
    assert_true(fabsf(weights[Q8_INPUTS + 1] - (Q8_INPUTS + 1)) < 0.5f);
  }
}

/* ---- products ---- */

enum { MOST = 250 };

struct sizes {
  int n_out, n_in;
  enum matrix_layout layout;
};

/* The same matrix in 8 bits, and in f32 with the values that are left of it. */
static struct file rounded_file(const struct file *file, const struct sizes *s) {
  struct file out = {malloc((size_t)(s->n_out * s->n_in) * sizeof(float)), file->part};
  float *row = (float *)(void *)out.block;
  for (int64_t o = 0; o < s->n_out; o++, row += s->n_in) {
    for (int64_t i = 0; i < s->n_in; i++) row[i] = dtype_f32_at(file->part.data, file->part.dtype, (size_t)part_element(&file->part, o, i));
    q8_round(row, s->n_in);
  }
  out.part = (struct matrix_part){.data = out.block, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = s->n_out, .ld = s->n_in};
  return out;
}

static struct matrix *matrix_as(struct backend *backend, const struct file *file, int64_t n_in, enum dtype dtype) {
  struct matrix *matrix = NULL;
  struct error error = ERROR_INIT;
  if (backend->ops->matrix_new_as(backend, &file->part, 1, n_in, &(struct matrix_wish){.dtype = dtype}, &matrix, &error) != 0)
    fail_msg("%s", error.text);
  assert_int_equal(matrix->dtype, dtype);
  return matrix;
}

/* out: y [rows][n_out], then the cotangents of x [rows][n_in] that those of y, which are noise, give. */
static void there_and_back(struct backend *backend, const struct matrix *w, int rows, float *out) {
  size_t x = (size_t)rows * (size_t)w->n_in, y = (size_t)rows * (size_t)w->n_out;
  struct span values = must_alloc(backend, x + y), cotangents = must_alloc(backend, x + y), bias = put_noise(backend, (size_t)w->n_out, 12, 1);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
  struct step step = {.n_layer = 1, .n_rows = rows, .n_logit_rows = rows};
  struct vjp vjp = {.values = values.memory, .cotangents = cotangents.memory};
  for (size_t i = 0; i < x + y; i++) out[i] = noise(11, i);
  assert_int_equal(backend->ops->write(backend, values, out, x * 4, NULL), 0);
  assert_int_equal(backend->ops->write(backend, span_at(cotangents, x * 4), out, y * 4, NULL), 0);
  op.u.linear.w = w;
  op.u.linear.x = (struct rows){values, w->n_in};
  op.u.linear.y = (struct rows){span_at(values, x * 4), w->n_out};
  op.u.linear.bias = bias;
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  assert_int_equal(backend->ops->vjp(backend, &op, &step, &vjp, NULL), 0);
  must_read(backend, out, span_at(values, x * 4), y);
  must_read(backend, out + y, cotangents, x);
  drop(backend, values);
  drop(backend, cotangents);
  drop(backend, bias);
}

static void check_sizes(const char *name, const struct sizes *s) {
  static const int rows[] = {1, 2, 7, 12, 13, 33, MOST};
  struct backend *backend = must_open(name, 2);
  struct file file = file_new(s->layout == ROWS_ARE_INPUTS ? DTYPE_BF16 : DTYPE_F32, s->layout, s->n_out, s->n_in, 10, 1);
  struct file plain = rounded_file(&file, s);
  struct matrix *small = matrix_as(backend, &file, s->n_in, DTYPE_Q8), *whole = matrix_as(backend, &plain, s->n_in, DTYPE_F32);
  size_t n = (size_t)(MOST * (s->n_in + s->n_out));
  float *got = malloc(n * sizeof *got), *want = malloc(n * sizeof *want);
  if (whole->bytes) assert_true(s->n_in < 256 || small->bytes * 3 < whole->bytes); /* ref takes none */
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char what[96];
    snprintf(what, sizeof what, "%s: %d x %d, %d rows", name, s->n_out, s->n_in, rows[i]);
    there_and_back(backend, small, rows[i], got);
    there_and_back(backend, whole, rows[i], want);
    same_bits(what, got, want, (size_t)(rows[i] * (s->n_in + s->n_out)));
  }
  free(got);
  free(want);
  backend->ops->matrix_free(backend, small);
  backend->ops->matrix_free(backend, whole);
  backend_close(backend);
  free(file.block);
  free(plain.block);
}

static void test_products(void **state) {
  (void)state;
  static const struct sizes sizes[] = {{1, 1, ROWS_ARE_OUTPUTS},    {16, 31, ROWS_ARE_INPUTS},  {17, 32, ROWS_ARE_OUTPUTS}, {100, 33, ROWS_ARE_INPUTS},
                                       {150, 300, ROWS_ARE_OUTPUTS}, {150, 300, ROWS_ARE_INPUTS}, {70, 1040, ROWS_ARE_INPUTS}, {33, 700, ROWS_ARE_OUTPUTS}};
  const char *names[4];
  int n = fast_backends(names);
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    for (int i = 0; i < n; i++) check_sizes(names[i], &sizes[s]);
    if (s < 5) check_sizes("ref", &sizes[s]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_no_numbers),
      cmocka_unit_test(test_products),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
