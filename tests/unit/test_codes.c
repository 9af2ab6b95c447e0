/* Sparse codes at their edges: nothing kept, all kept, ties everywhere, NaN and infinities in a row, sizes that are a multiple of
 * nothing, more wanted than there is. Weights and rows are small whole numbers, whose sums are exact in any order and any of the
 * types they are kept in, so every backend must give the entries of the obvious path bit for bit. */
#include "tests/unit/ops_world.h"

struct case_ {
  enum encode_kind kind;
  int n_feat, d_in, rows, k;
  float bias;     /* of every feature: far below, none is kept; far above, all are */
  bool odd_rows;  /* row 1 has a NaN, row 2 an infinity, row 3 minus infinities */
  bool fold_selects;
  enum dtype dtype;
  float poor;     /* weights of all features from n_feat / 16 on are 0 and their bias this: few pieces have all that is kept */
};

/* What the features of a case are made of; freed together. */
struct numbers {
  float *x, *bias, *threshold, *fold, *gain, *shift;
  struct file file;
};

static float whole(uint64_t stream, uint64_t i, int most) { return rintf((float)most * noise(stream, i)); }

static struct numbers make_numbers(const struct case_ *c) {
  size_t n = (size_t)c->n_feat, d = (size_t)c->d_in, size = dtype_size(c->dtype);
  struct numbers m = {.x = malloc((size_t)c->rows * d * sizeof(float))};
  float **vectors[] = {&m.bias, &m.threshold, &m.fold, &m.gain, &m.shift};
  for (size_t v = 0; v < 5; v++) *vectors[v] = malloc(n * sizeof(float));
  m.file = file_new(c->dtype, ROWS_ARE_OUTPUTS, c->n_feat, c->d_in, 1, 1);
  for (size_t f = 0; f < n; f++) {
    bool poor = c->poor != 0 && f >= n / 16;
    for (size_t i = 0; i < d; i++) {
      float w = poor ? 0 : whole(1, f * d + i, 3);
      uint16_t half = c->dtype == DTYPE_F16 ? to_f16(w) : to_bf16(w);
      memcpy(m.file.block + 1 + (f * (size_t)m.file.part.ld + i) * size, c->dtype == DTYPE_F32 ? (void *)&w : (void *)&half, size);
    }
    m.bias[f] = poor ? c->poor : c->bias + whole(2, f, 2);
    m.threshold[f] = whole(3, f, 6);
    m.fold[f] = 1.5f + 0.5f * whole(4, f, 2);
    m.gain[f] = 0.5f * whole(5, f, 4);
    m.shift[f] = 0.5f * whole(6, f, 3);
  }
  for (size_t i = 0; i < (size_t)c->rows * d; i++) m.x[i] = whole(7, i, 3);
  if (c->odd_rows) {
    m.x[d] = NAN;
    m.x[2 * d + 1] = INFINITY;
    for (size_t i = 0; i < d; i++) m.x[3 * d + i] = -INFINITY;
  }
  return m;
}

static void drop_numbers(struct numbers *m) {
  float *all[] = {m->x, m->bias, m->threshold, m->fold, m->gain, m->shift};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  free(m->file.block);
}

/* The rows in pieces of `at_a_time`. */
static void encode(const char *name, const struct case_ *c, int at_a_time, struct sparse *out) {
  struct backend *backend = must_open(name, 2);
  struct numbers m = make_numbers(c);
  size_t n = (size_t)c->n_feat;
  struct span x = must_put(backend, m.x, (size_t)(c->rows * c->d_in)), none = {NULL, 0};
  struct span of[] = {must_put(backend, m.bias, n), must_put(backend, m.threshold, n), must_put(backend, m.fold, n),
                      must_put(backend, m.gain, n), must_put(backend, m.shift, n)};
  struct matrix *w = must_matrix(backend, &m.file.part, 1, c->d_in);
  struct encode_args args = {.kind = c->kind, .w = w, .x = {x, c->d_in}, .bias = of[0], .threshold = of[1],
                             .fold = c->k % 2 || c->fold_selects ? of[2] : none, .gain = of[3], .shift = of[4], .k = c->k,
                             .fold_selects = c->fold_selects};
  struct error error = ERROR_INIT;
  sparse_init(out);
  for (int row = 0; row < c->rows; row += at_a_time) {
    args.x.at = span_at(x, (size_t)(row * c->d_in) * sizeof(float));
    args.n_rows = c->rows - row < at_a_time ? c->rows - row : at_a_time;
    if (backend->ops->encode(backend, &args, out, &error) != 0) fail_msg("%s", error.text);
  }
  for (size_t i = 0; i < 5; i++) drop(backend, of[i]);
  drop(backend, x);
  backend->ops->matrix_free(backend, w);
  backend_close(backend);
  drop_numbers(&m);
}

static void must_equal(const struct case_ *c, const struct sparse *got, const struct sparse *expected) {
  assert_int_equal(got->n_rows, expected->n_rows);
  for (size_t r = 0; r < got->n_rows; r++) {
    if (got->start[r + 1] != expected->start[r + 1])
      fail_msg("kind %d, %d features, %d rows, k %d: row %zu ends at entry %zu, not %zu", c->kind, c->n_feat, c->rows, c->k, r,
               got->start[r + 1], expected->start[r + 1]);
    for (size_t e = got->start[r]; e < got->start[r + 1]; e++)
      if (got->index[e] != expected->index[e] || memcmp(&got->value[e], &expected->value[e], sizeof(float)) != 0)
        fail_msg("kind %d, %d features, %d rows, k %d: entry %zu of row %zu is %d: %g, not %d: %g", c->kind, c->n_feat, c->rows,
                 c->k, e - got->start[r], r, got->index[e], got->value[e], expected->index[e], expected->value[e]);
  }
}

static void check(struct case_ c) {
  struct sparse expected, got;
  encode("ref", &c, c.rows, &expected);
  encode("cpu", &c, c.rows, &got);
  must_equal(&c, &got, &expected);
  sparse_clear(&got);
  encode("cpu", &c, 7, &got); /* as many as come together change nothing */
  must_equal(&c, &got, &expected);
  sparse_clear(&got);
  sparse_clear(&expected);
}

static const enum encode_kind kinds[] = {ENCODE_RELU, ENCODE_JUMPRELU, ENCODE_TOPK, ENCODE_GATED, ENCODE_GROUPMAX};
#define KINDS (sizeof kinds / sizeof *kinds)

static void test_sizes(void **state) {
  (void)state;
  static const int features[] = {1, 3, 130, 4095, 4096, 4097, 9001};
  for (size_t i = 0; i < sizeof features / sizeof *features; i++)
    for (size_t kind = 0; kind < KINDS; kind++) {
      int k = kinds[kind] == ENCODE_GROUPMAX ? (features[i] == 4096 ? 64 : 1) : 5; /* groups divide the features */
      check((struct case_){.kind = kinds[kind], .n_feat = features[i], .d_in = 5, .rows = 2, .k = k});
    }
}

static void test_all_and_none(void **state) {
  (void)state;
  for (size_t kind = 0; kind < KINDS; kind++)
    for (int sign = -1; sign <= 1; sign += 2)
      check((struct case_){.kind = kinds[kind], .n_feat = 4300, .d_in = 5, .rows = 9, .k = 4300, .bias = (float)sign * 1000});
}

/* Sums of few small numbers: hundreds of features tie at any border. */
static void test_ties(void **state) {
  (void)state;
  static const int ks[] = {1, 2, 63, 64, 500, 8599, 8600, 8601, 20000};
  for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
    for (int fold = 0; fold < 2; fold++)
      check((struct case_){.kind = ENCODE_TOPK, .n_feat = 8600, .d_in = 2, .rows = 2, .k = ks[i], .fold_selects = fold});
  check((struct case_){.kind = ENCODE_TOPK, .n_feat = 8600, .d_in = 3, .rows = 2, .k = 700, .poor = 1});
  check((struct case_){.kind = ENCODE_TOPK, .n_feat = 300, .d_in = 3, .rows = 5, .k = 0});
  for (int k = 4; k <= 2200; k += 732) /* groups of 2200, 11 and 4 */
    if (8800 % k == 0) check((struct case_){.kind = ENCODE_GROUPMAX, .n_feat = 8800, .d_in = 2, .rows = 3, .k = k});
  check((struct case_){.kind = ENCODE_GROUPMAX, .n_feat = 8800, .d_in = 2, .rows = 3, .k = 8800});
}

static void test_odd_rows(void **state) {
  (void)state;
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  for (size_t d = 0; d < 3; d++)
    for (size_t kind = 0; kind < KINDS; kind++) {
      int k = kinds[kind] == ENCODE_GROUPMAX ? 43 : 12;
      check((struct case_){.kind = kinds[kind], .n_feat = 4300, .d_in = 5, .rows = 5, .k = k, .odd_rows = true, .dtype = dtypes[d]});
    }
}

static void test_many_rows(void **state) {
  (void)state;
  for (size_t kind = 0; kind < KINDS; kind++)
    check((struct case_){.kind = kinds[kind], .n_feat = 129, .d_in = 7, .rows = 300, .k = 3, .dtype = DTYPE_BF16});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sizes), cmocka_unit_test(test_all_and_none), cmocka_unit_test(test_ties),
      cmocka_unit_test(test_odd_rows), cmocka_unit_test(test_many_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
