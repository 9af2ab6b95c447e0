/* Rows in company: a row's result has the same bits whether its prompt came in one step, in pieces or row by row, whoever else stood
 * in its tile, and on AVX2 as on AVX-512. Attention and products, which are cut into tiles by how many rows there are. */
#include "tests/unit/ops_world.h"

enum { N = 150, MOST_HEADS = 8, BLOCKS = 3 };

struct kind {
  int n_head, n_kv_head, d_head, window;
  float soft_cap;
};

static struct op attend_op(const struct kind *kind, struct span from, struct span to) {
  struct op op = {.code = OP_ATTEND, .set = ROWS_ACTIVE, .width = kind->n_head * kind->d_head};
  op.u.attend.qkv = (struct rows){from, (kind->n_head + 2 * kind->n_kv_head) * kind->d_head};
  op.u.attend.z = (struct rows){to, op.width};
  op.u.attend.k = (int32_t)op.width;
  op.u.attend.v = (int32_t)op.width + kind->n_kv_head * kind->d_head;
  op.u.attend.n_head = kind->n_head;
  op.u.attend.n_kv_head = kind->n_kv_head;
  op.u.attend.d_head = kind->d_head;
  op.u.attend.scale = 0.4f;
  op.u.attend.window = kind->window;
  op.u.attend.soft_cap = kind->soft_cap;
  return op;
}

/* All N rows, so many in a step. Blocks that hold nothing yet are NaN: what is read of them is seen. */
static float *attend(const char *name, int threads, const struct kind *kind, int piece) {
  struct backend *backend = must_open(name, threads);
  int64_t width = kind->n_head * kind->d_head, ld = width + 2 * kind->n_kv_head * kind->d_head;
  size_t kv_floats = BLOCKS * backend->ops->kv_block_bytes(backend, kind->n_kv_head, kind->d_head, DTYPE_F32) / sizeof(float);
  float *qkv = malloc((size_t)(N * ld) * sizeof *qkv), *z = malloc((size_t)(N * width) * sizeof *z);
  float *nothing = malloc(kv_floats * sizeof *nothing);
  fill(qkv, (size_t)(N * ld), 40, 2);
  for (size_t i = 0; i < kv_floats; i++) nothing[i] = NAN;
  struct span from = must_put(backend, qkv, (size_t)(N * ld)), to = must_alloc(backend, (size_t)(N * width));
  struct span kv = must_put(backend, nothing, kv_floats);
  int32_t table[BLOCKS] = {1, 2, 0};
  for (int begin = 0; begin < N; begin += piece) {
    int rows = N - begin < piece ? N - begin : piece;
    struct row_range all[2] = {{0, rows}, {0, rows}};
    struct step_slot slot = {{0, rows}, begin, 0, 1};
    struct step step = {.n_layer = 1, .n_rows = rows, .n_slots = 1, .slots = &slot, .active = all, .arriving = all, .kv = kv,
                        .kv_table = table, .kv_blocks = BLOCKS};
    struct op op = attend_op(kind, span_at(from, (size_t)(begin * ld) * sizeof(float)), span_at(to, (size_t)(begin * width) * sizeof(float)));
    assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  }
  must_read(backend, z, to, (size_t)(N * width));
  drop(backend, kv);
  drop(backend, from);
  drop(backend, to);
  backend_close(backend);
  free(nothing);
  free(qkv);
  return z;
}

static void compare(const char *name, int threads, const struct kind *kind, int piece, const float *want) {
  size_t n = (size_t)(N * kind->n_head * kind->d_head);
  float *got = attend(name, threads, kind, piece);
  for (size_t i = 0; i < n; i++)
    if (isnan(got[i]) || memcmp(&got[i], &want[i], sizeof *got) != 0)
      fail_msg("%s, %d heads on %d of %d, window %d, %d rows a step, %d threads: element %zu is %.9g, not %.9g", name, kind->n_head,
               kind->n_kv_head, kind->d_head, kind->window, piece, threads, i, (double)got[i], (double)want[i]);
  free(got);
}

static void test_attention_in_company(void **state) {
  (void)state;
  static const struct kind kinds[] = {{1, 1, 64, 0, 0}, {2, 2, 20, 7, 0}, {6, 2, 16, 0, 3}, {8, 1, 5, 70, 0}, {7, 1, 80, 0, 0}};
  static const int pieces[] = {1, 2, 3, 5, 7, 24, 64, 65};
  const char *names[4];
  int n = fast_backends(names);
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
    for (int i = 0; i < n; i++) {
      float *whole = attend(names[i], 1, &kinds[k], N);
      for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) compare(names[i], p % 2 ? 3 : 1, &kinds[k], pieces[p], whole);
      if (strcmp(names[i], "cpu-avx2") == 0 && i + 1 < n) compare(names[i + 1], 2, &kinds[k], N, whole);
      free(whole);
    }
}

/* ---- products ---- */

enum { N_OUT = 100, MOST_IN = 300, MOST_ROWS = 40 };

/* y [rows][N_OUT], `piece` rows a step. */
static void multiply(const char *name, int threads, enum dtype dtype, int n_in, int rows, int piece, float *y) {
  static uint16_t halves[N_OUT * MOST_IN];
  static float numbers[N_OUT * MOST_IN];
  struct backend *backend = must_open(name, threads);
  struct matrix *w = NULL;
  fill(numbers, (size_t)(N_OUT * n_in), 50, 1);
  for (int i = 0; i < N_OUT * n_in; i++) halves[i] = dtype == DTYPE_F16 ? f32_to_f16(numbers[i]) : f32_to_bf16(numbers[i]);
  struct matrix_part part = {.data = dtype == DTYPE_F32 ? (void *)numbers : (void *)halves, .dtype = dtype, .n_out = N_OUT, .ld = n_in};
  assert_int_equal(backend->ops->matrix_new(backend, &part, 1, n_in, &w, NULL), 0);
  struct span x = put_noise(backend, (size_t)(rows * n_in), 51, 1), to = must_alloc(backend, (size_t)(rows * N_OUT));
  for (int begin = 0; begin < rows; begin += piece) {
    int n = rows - begin < piece ? rows - begin : piece;
    struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
    op.u.linear.w = w;
    op.u.linear.x = (struct rows){span_at(x, (size_t)(begin * n_in) * sizeof(float)), n_in};
    op.u.linear.y = (struct rows){span_at(to, (size_t)(begin * N_OUT) * sizeof(float)), N_OUT};
    struct step step = {.n_layer = 1, .n_rows = n, .n_logit_rows = n};
    assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  }
  must_read(backend, y, to, (size_t)(rows * N_OUT));
  drop(backend, x);
  drop(backend, to);
  backend->ops->matrix_free(backend, w);
  backend_close(backend);
}

/* Sizes around what is fetched ahead (64 inputs of f32, 128 of the others) and around a block (128). */
static void test_products_in_company(void **state) {
  (void)state;
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const int n_ins[] = {5, 64, 129, 300};
  static float alone[MOST_ROWS * N_OUT], got[MOST_ROWS * N_OUT];
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++)
    for (int d = 0; d < 3; d++)
      for (int k = 0; k < 4; k++) {
        multiply(names[i], 1, dtypes[d], n_ins[k], MOST_ROWS, 1, alone);
        for (int rows = 2; rows <= MOST_ROWS; rows++) {
          multiply(names[i], 1 + rows % 3, dtypes[d], n_ins[k], rows, rows, got);
          if (memcmp(got, alone, (size_t)(rows * N_OUT) * sizeof *got) != 0)
            fail_msg("%s, %s, %d inputs: %d rows together differ from each alone", names[i], dtype_name(dtypes[d]), n_ins[k], rows);
        }
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention_in_company), cmocka_unit_test(test_products_in_company)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
