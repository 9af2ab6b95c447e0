/* The compute contract: ref against formulas written out here, every fast backend against ref, op by op. */
#include "tests/unit/ops_world.h"

/* ---- edits, taps and forks: formulas on one row, on every backend ------------------------------------- */

#define D 37

/* One layer, one row set, one op: edits and taps of attn_out on three rows. */
struct bare {
  struct backend *backend;
  struct span x, v, enc;
  float host[3 * D], vector[3 * D], encoder[D], unit[D];
  struct step step;
  struct row_range rows[2];
  struct step_slot slot;
  int32_t edit_begin[2 * SITE_COUNT + 1], tap_begin[2 * SITE_COUNT + 1];
};

static void bare_open(struct bare *bare, const char *name) {
  memset(bare, 0, sizeof *bare);
  bare->backend = must_open(name, 2);
  fill(bare->host, 3 * D, 1, 1);
  fill(bare->vector, 3 * D, 2, 1);
  fill(bare->encoder, D, 3, 1);
  double square = 0;
  for (int i = 0; i < D; i++) square += (double)bare->vector[i] * bare->vector[i];
  for (int i = 0; i < D; i++) bare->unit[i] = (float)(bare->vector[i] / sqrt(square));
  bare->x = must_put(bare->backend, bare->host, 3 * D);
  bare->v = must_put(bare->backend, bare->vector, 3 * D);
  bare->enc = must_put(bare->backend, bare->encoder, D);
  bare->rows[0] = bare->rows[1] = (struct row_range){0, 3};
  bare->slot = (struct step_slot){{0, 3}, 0, 0, 1};
  bare->step = (struct step){.n_layer = 1, .n_rows = 3, .n_slots = 1, .slots = &bare->slot,
                             .active = bare->rows, .arriving = bare->rows};
}

static void bare_close(struct bare *bare) {
  drop(bare->backend, bare->x);
  drop(bare->backend, bare->v);
  drop(bare->backend, bare->enc);
  backend_close(bare->backend);
}

/* Runs OP_POINT at attn_out with these items and reads the rows back into host. */
static void bare_run(struct bare *bare, const struct edit_item *edits, int n_edits, const struct tap_item *taps,
                     int n_taps) {
  for (int i = SITE_ATTN_OUT + 1; i <= 2 * SITE_COUNT; i++) {
    bare->edit_begin[i] = n_edits;
    bare->tap_begin[i] = n_taps;
  }
  bare->step.edits = edits;
  bare->step.edit_begin = n_edits ? bare->edit_begin : NULL;
  bare->step.taps = taps;
  bare->step.tap_begin = n_taps ? bare->tap_begin : NULL;
  struct op op = {.code = OP_POINT, .set = ROWS_ACTIVE, .layer = 0, .width = D};
  op.u.point.x = (struct rows){bare->x, D};
  op.u.point.site = SITE_ATTN_OUT;
  assert_int_equal(bare->backend->ops->run(bare->backend, &op, 1, &bare->step, NULL), 0);
  must_read(bare->backend, bare->host, bare->x, 3 * D);
}

static int backends_all(const char **names) {
  names[0] = "ref";
  return 1 + fast_backends(names + 1);
}

static double dot(const float *a, const float *b, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

/* What an edit of columns [5, 30) of rows [1, 3) makes of h; `row` is the absolute row. */
static void expect_edit(const struct edit_item *e, const float *v, const float *u, const float *enc, int row,
                        float *h) {
  int n = e->column_end - e->column_begin;
  double p = dot(h, enc, n) + e->bias, a = p > fmax(e->threshold, 0) ? p * e->fold : 0, along = dot(h, u, n);
  for (int i = 0; i < n; i++) {
    switch (e->kind) {
      case EDIT_ROW_ADD: h[i] = (float)(h[i] + e->value * (double)v[i]); break;
      case EDIT_ROW_PROJECT: h[i] = (float)(h[i] + (e->value - 1) * along * u[i]); break;
      case EDIT_ROW_CAP: h[i] = (float)(h[i] + (fmin(along, e->value) - along) * u[i]); break;
      case EDIT_ROW_SCALE: h[i] *= e->value; break;
      case EDIT_ROW_FILL: h[i] = e->value; break;
      case EDIT_ROW_COPY: h[i] = v[i]; break;
      case EDIT_ROW_REPLACE: h[i] = v[(row - e->rows.begin) * n + i]; break;
      case EDIT_ROW_FEATURE_SET: h[i] = (float)(h[i] + (e->value - a) * v[i]); break;
      case EDIT_ROW_FEATURE_SCALE: h[i] = (float)(h[i] + (e->value * a - a) * v[i]); break;
    }
  }
}

/* Rounding of a sum of 25 terms below 1 and one update: under 32 * 2^-24 * 25. */
#define EDIT_TOLERANCE 5e-5

static void test_each_edit(void **state) {
  (void)state;
  const char *names[4];
  int n = backends_all(names);
  for (int i = 0; i < n; i++) {
    for (int kind = EDIT_ROW_ADD; kind <= EDIT_ROW_FEATURE_SCALE; kind++) {
      for (int variant = 0; variant < 3; variant++) {
        struct bare bare;
        bare_open(&bare, names[i]);
        float before[3 * D], expected[3 * D];
        memcpy(before, bare.host, sizeof before);
        memcpy(expected, before, sizeof before);
        bool along_unit = kind == EDIT_ROW_PROJECT || kind == EDIT_ROW_CAP;
        if (along_unit) bare.backend->ops->write(bare.backend, bare.v, bare.unit, sizeof bare.unit, NULL);
        /* variants: a cap that binds and one that does not; a feature below and above its threshold */
        struct edit_item item = {.kind = (enum edit_kind)kind, .rows = {1, 3}, .column_begin = 5,
                                 .column_end = 30, .value = variant == 0 ? -0.75f : variant == 1 ? 9.0f : 0.0f,
                                 .v = bare.v, .enc = bare.enc, .bias = variant == 2 ? -40.0f : 8.0f,
                                 .threshold = variant == 1 ? 0.5f : -3.0f, .fold = 1.25f};
        bare_run(&bare, &item, 1, NULL, 0);
        for (int row = 1; row < 3; row++)
          expect_edit(&item, bare.vector, bare.unit, bare.encoder, row, expected + row * D + 5);
        close_to(names[i], bare.host, expected, 3 * D, EDIT_TOLERANCE);
        same_bits("columns outside the edit", bare.host + D, before + D, 5);
        same_bits("columns outside the edit", bare.host + D + 30, before + D + 30, D - 30);
        same_bits("rows outside the edit", bare.host, before, D);
        bare_close(&bare);
      }
    }
  }
}

static void test_threshold_is_strict_and_never_negative(void **state) {
  (void)state;
  const char *names[4];
  int n = backends_all(names);
  for (int i = 0; i < n; i++) {
    struct bare bare;
    bare_open(&bare, names[i]);
    float zero[D] = {0}, before[3 * D];
    memcpy(before, bare.host, sizeof before);
    bare.backend->ops->write(bare.backend, bare.enc, zero, sizeof zero, NULL);
    struct edit_item at = {.kind = EDIT_ROW_FEATURE_SCALE, .rows = {0, 3}, .column_end = D, .v = bare.v,
                           .enc = bare.enc, .bias = 0.5f, .threshold = 0.5f, .fold = 1};
    bare_run(&bare, &at, 1, NULL, 0); /* p == threshold: the feature is off, so scaling it does nothing */
    close_to(names[i], bare.host, before, 3 * D, 0);
    at.bias = -0.5f;
    at.threshold = -1;
    bare_run(&bare, &at, 1, NULL, 0); /* above the threshold but negative: off */
    close_to(names[i], bare.host, before, 3 * D, 0);
    bare_close(&bare);
  }
}

static void test_edits_keep_order_and_taps_come_after(void **state) {
  (void)state;
  const char *names[4];
  int n = backends_all(names);
  for (int i = 0; i < n; i++) {
    struct bare bare;
    bare_open(&bare, names[i]);
    struct span to = must_alloc(bare.backend, 2 * (D + 4));
    struct edit_item list[] = {{.kind = EDIT_ROW_FILL, .rows = {0, 2}, .column_end = D, .value = 2},
                               {.kind = EDIT_ROW_SCALE, .rows = {1, 3}, .column_end = D, .value = 3},
                               {.kind = EDIT_ROW_FILL, .rows = {2, 3}, .column_begin = D - 1, .column_end = D}};
    struct tap_item tap = {{1, 3}, to, D + 4};
    float before = bare.host[2 * D], tapped[2 * (D + 4)];
    bare_run(&bare, list, 3, &tap, 1);
    assert_true(bare.host[0] == 2 && bare.host[D] == 6 && bare.host[2 * D] == 3 * before);
    assert_true(bare.host[3 * D - 1] == 0);
    must_read(bare.backend, tapped, to, 2 * (D + 4));
    same_bits("tap", tapped, bare.host + D, D);
    same_bits("tap", tapped + D + 4, bare.host + 2 * D, D);
    assert_true(tapped[D] == 0);
    drop(bare.backend, to);
    bare_close(&bare);
  }
}

/* More than a block looks at in one go. */
static void test_many_edits_of_a_row(void **state) {
  (void)state;
  enum { MANY = 700 };
  struct edit_item list[MANY];
  const char *names[4];
  int n = backends_all(names);
  for (int k = 0; k < MANY; k++)
    list[k] = (struct edit_item){.kind = EDIT_ROW_FILL, .rows = {k % 3, k % 3 + 1}, .column_begin = k / 3 % D, .column_end = D, .value = (float)k};
  for (int i = 0; i < n; i++) {
    struct bare bare;
    float want[3 * D];
    bare_open(&bare, names[i]);
    memcpy(want, bare.host, sizeof want);
    for (int k = 0; k < MANY; k++)
      for (int column = k / 3 % D; column < D; column++) want[k % 3 * D + column] = (float)k;
    bare_run(&bare, list, MANY, NULL, 0);
    same_bits("many edits", bare.host, want, 3 * D);
    bare_close(&bare);
  }
}

/* ---- products ---------------------------------------------------------------------------------------- */

struct product {
  enum dtype dtype;
  enum matrix_layout layout;
  enum activation act;
  int n_out, n_in, rows;
  bool biased;
};

static void product_run(const char *name, int threads, const struct product *p, float *y) {
  struct backend *backend = must_open(name, threads);
  struct file file = file_new(p->dtype, p->layout, p->n_out, p->n_in, 10, 1);
  struct matrix *w = must_matrix(backend, &file.part, 1, p->n_in);
  int ld_x = p->n_in + 1, ld_y = p->n_out + 3;
  struct span x = put_noise(backend, (size_t)(p->rows * ld_x), 11, 1);
  struct span out = put_noise(backend, (size_t)(p->rows * ld_y), 12, 1);
  struct span bias = put_noise(backend, (size_t)p->n_out, 13, 1);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
  op.u.linear.w = w;
  op.u.linear.x = (struct rows){x, ld_x};
  op.u.linear.y = (struct rows){out, ld_y};
  op.u.linear.act = p->act;
  if (p->biased) op.u.linear.bias = bias;
  struct step step = {.n_layer = 1, .n_rows = p->rows, .n_logit_rows = p->rows};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, y, out, (size_t)(p->rows * ld_y));
  for (int row = 0; row < p->rows; row++) /* what lies between the rows is not the product's to touch */
    for (int i = p->n_out; i < ld_y; i++) assert_true(y[row * ld_y + i] == noise(12, (uint64_t)(row * ld_y + i)));
  drop(backend, x);
  drop(backend, out);
  drop(backend, bias);
  backend->ops->matrix_free(backend, w);
  backend_close(backend);
  free(file.block);
}

static void compare_product(const char *name, const struct product *p) {
  size_t n = (size_t)(p->rows * (p->n_out + 3));
  float *expected = malloc(n * sizeof *expected), *got = malloc(n * sizeof *got);
  product_run("ref", 1, p, expected);
  product_run(name, 2, p, got);
  char what[128];
  snprintf(what, sizeof what, "%s: %s layout %d act %d, %d x %d, %d rows", name, dtype_name(p->dtype), p->layout,
           p->act, p->n_out, p->n_in, p->rows);
  /* n roundings of partial sums that stay below sqrt(n): n * 2^-24 in the mean square, four times that for the
   * largest of thousands; activations have slopes up to 1.13. */
  close_to(what, got, expected, n, 4.5 * (p->n_in + 4) * 0x1p-24);
  free(expected);
  free(got);
}

static void test_linear(void **state) {
  (void)state;
  static const int sizes[][3] = {{1, 1, 1},   {15, 2, 2},   {16, 16, 7},  {17, 33, 33}, {100, 300, 13}, {129, 64, 1},
                                 {33, 700, 25}, {251, 19, 3}, {64, 257, 6}, {31, 40, 12}, {48, 5, 96}};
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int variant = 0; variant < 6; variant++) {
        struct product p = {dtypes[variant % 3], variant / 3 ? ROWS_ARE_INPUTS : ROWS_ARE_OUTPUTS,
                            (enum activation)((s + (size_t)variant) % 5), sizes[s][0], sizes[s][1], sizes[s][2],
                            (s + (size_t)variant) % 2 == 0};
        compare_product(names[i], &p);
      }
}

/* The vocabulary of GPT-2 is prime-like and large: many panels, a tail of one output. */
static void test_linear_vocabulary(void **state) {
  (void)state;
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++) {
    struct product p = {DTYPE_F32, ROWS_ARE_OUTPUTS, ACT_NONE, 50257, 5, 2, false};
    compare_product(names[i], &p);
  }
}

/* ---- activations, norms and gates at the values where formulas break ----------------------------------- */

static void gate_run(const char *name, enum activation act, const float *x, int n, float *y) {
  struct backend *backend = must_open(name, 1);
  float *ones = malloc((size_t)n * sizeof *ones);
  for (int i = 0; i < n; i++) ones[i] = 1;
  struct span xs = must_put(backend, x, (size_t)n), up = must_put(backend, ones, (size_t)n);
  struct op op = {.code = OP_GATE, .set = ROWS_LOGIT, .width = n};
  op.u.gate.x = op.u.gate.y = (struct rows){xs, n};
  op.u.gate.up = (struct rows){up, n};
  op.u.gate.act = act;
  struct step step = {.n_layer = 1, .n_rows = 1, .n_logit_rows = 1};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, y, xs, (size_t)n);
  drop(backend, xs);
  drop(backend, up);
  backend_close(backend);
  free(ones);
}

static void test_activations(void **state) {
  (void)state;
  enum { N = 4003 };
  static float x[N], expected[N], got[N];
  for (int i = 0; i < N - 8; i++) x[i] = (float)(i - N / 2) * 0.0071f;
  static const float special[8] = {0, -0.0f, 1e-30f, -1e-30f, 3e38f, -3e38f, 90, -90};
  memcpy(x + N - 8, special, sizeof special);
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++)
    for (int act = ACT_NONE; act <= ACT_SILU; act++) {
      gate_run("ref", (enum activation)act, x, N, expected);
      gate_run(names[i], (enum activation)act, x, N, got);
      for (int k = 0; k < N; k++) {
        /* a few roundings of numbers below max(1, |x|); 1 + erf and 1 + tanh cancel for negative x */
        double tolerance = 4 * 0x1p-24 * fmax(1, fabs(x[k]));
        if (!(fabs((double)got[k] - expected[k]) <= tolerance))
          fail_msg("%s: activation %d of %.9g: %.9g, not %.9g", names[i], act, x[k], got[k], expected[k]);
      }
    }
}

static void norm_run(const char *name, enum norm_kind kind, int width, int rows, bool plain, float *y) {
  struct backend *backend = must_open(name, 2);
  size_t ld = (size_t)width + 1;
  struct span x = put_noise(backend, (size_t)rows * ld, 20, 3), gain = put_noise(backend, (size_t)width, 21, 1);
  struct span bias = put_noise(backend, (size_t)width, 22, 1);
  struct op op = {.code = OP_NORM, .set = ROWS_LOGIT, .width = width};
  op.u.norm.x = op.u.norm.y = (struct rows){x, (int64_t)ld};
  op.u.norm.norm = (struct norm){.kind = kind, .eps = 1e-5f, .gain = gain, .bias = bias};
  if (plain) op.u.norm.norm.gain.memory = op.u.norm.norm.bias.memory = NULL;
  struct step step = {.n_layer = 1, .n_rows = rows, .n_logit_rows = rows};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, y, x, (size_t)rows * ld);
  drop(backend, x);
  drop(backend, gain);
  drop(backend, bias);
  backend_close(backend);
}

static void test_norms(void **state) {
  (void)state;
  static const int widths[] = {1, 15, 16, 17, 768, 1000};
  float expected[5 * 1001], got[5 * 1001];
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++)
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
      for (int variant = 0; variant < 6; variant++) {
        norm_run("ref", (enum norm_kind)(variant % 3), widths[w], 5, variant > 2, expected);
        norm_run(names[i], (enum norm_kind)(variant % 3), widths[w], 5, variant > 2, got);
        /* means of `width` terms summed in 16 lanes, then values of at most sqrt(width) */
        close_to(names[i], got, expected, 5 * ((size_t)widths[w] + 1), 16 * 0x1p-24 * (1 + sqrt(widths[w])));
      }
}

/* ---- whole passes ------------------------------------------------------------------------------------- */

/* Two sessions, one at a later position whose cache was filled by an earlier step, one stopping early. */
static void pass(struct world *world) {
  int n = world->shape.n_layer;
  world_step(world, (struct step_slot[]){{{0, 150}, 0, 0, n}}, 1);
  world_run(world);
  world_step(world, (struct step_slot[]){{{0, 3}, 150, 0, n}, {{3, 43}, 0, 0, n}, {{43, 44}, 0, 0, n - 1}}, 3);
  world_run(world);
}

static void compare_pass(const struct shape *shape, double tolerance) {
  const char *names[4];
  int n = fast_backends(names);
  struct world *ref = world_new("ref", 1, shape);
  pass(ref);
  size_t logits = (size_t)(43 * shape->vocabulary), resid = (size_t)(44 * shape->d_model);
  float *expected = malloc((logits + resid) * sizeof *expected), *got = malloc((logits + resid) * sizeof *got);
  must_read(ref->backend, expected, ref->logits, logits);
  must_read(ref->backend, expected + logits, ref->resid, resid);
  for (size_t i = 0; i < logits; i++) assert_true(isfinite(expected[i]));
  for (int i = 0; i < n; i++) {
    struct world *world = world_new(names[i], 2, shape);
    pass(world);
    must_read(world->backend, got, world->logits, logits);
    must_read(world->backend, got + logits, world->resid, resid);
    close_to(names[i], got, expected, logits + resid, tolerance);
    world_free(world);
  }
  world_free(ref);
  free(expected);
  free(got);
}

/* Values reach about 10 here after two layers; each product loses a few 2^-24 of its largest partial sum. */
static void test_pass(void **state) {
  (void)state;
  compare_pass(&small_shape, 1e-4);
  compare_pass(&gated_shape, 1e-4);
}

/* Attention by its definition, with no running maximum: scores, weights, a mean. */
static void test_attention_by_definition(void **state) {
  (void)state;
  enum { N = 70, HEADS = 4, KV_HEADS = 2, E = 5, LD = (HEADS + 2 * KV_HEADS) * E };
  static const struct {
    int window;
    float soft_cap;
  } kinds[] = {{0, 0}, {3, 0}, {0, 2}, {66, 0.5f}};
  float qkv[N * LD], z[N * HEADS * E];
  fill(qkv, N * LD, 40, 2);
  const char *names[4];
  int n = backends_all(names);
  for (int i = 0; i < n; i++)
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
      struct backend *backend = must_open(names[i], 2);
      int32_t table[2] = {1, 0};
      struct row_range all[2] = {{0, N}, {0, N}};
      struct step_slot slot = {{0, N}, 0, 0, 1};
      struct span kv = must_alloc(backend, 2 * backend->ops->kv_block_bytes(backend, KV_HEADS, E, DTYPE_F32) / 4);
      struct span from = must_put(backend, qkv, N * LD), to = must_alloc(backend, N * HEADS * E);
      struct step step = {.n_layer = 1, .n_rows = N, .n_slots = 1, .slots = &slot, .active = all, .arriving = all,
                          .kv = kv, .kv_table = table, .kv_blocks = 2};
      struct op op = {.code = OP_ATTEND, .set = ROWS_ACTIVE, .width = HEADS * E};
      op.u.attend.qkv = (struct rows){from, LD};
      op.u.attend.z = (struct rows){to, HEADS * E};
      op.u.attend.v = HEADS * E; /* values before keys: the offsets say where */
      op.u.attend.k = (HEADS + KV_HEADS) * E;
      op.u.attend.n_head = HEADS;
      op.u.attend.n_kv_head = KV_HEADS;
      op.u.attend.d_head = E;
      op.u.attend.scale = 0.4f;
      op.u.attend.window = kinds[kind].window;
      op.u.attend.soft_cap = kinds[kind].soft_cap;
      assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
      must_read(backend, z, to, N * HEADS * E);
      for (int q = 0; q < N; q++)
        for (int head = 0; head < HEADS; head++) {
          double sum = 0, mean[E] = {0}, cap = kinds[kind].soft_cap;
          int first = kinds[kind].window && q >= kinds[kind].window ? q - kinds[kind].window + 1 : 0;
          for (int j = first; j <= q; j++) {
            double s = (double)0.4f * dot(qkv + q * LD + head * E, qkv + j * LD + op.u.attend.k + head / 2 * E, E);
            double weight = exp(cap > 0 ? cap * tanh(s / cap) : s);
            sum += weight;
            for (int e = 0; e < E; e++) mean[e] += weight * qkv[j * LD + op.u.attend.v + head / 2 * E + e];
          }
          /* values below 2, scores below 8 whose rounding e^x carries over: 2 * 8 * a few 2^-24 */
          for (int e = 0; e < E; e++)
            if (fabs(z[(q * HEADS + head) * E + e] - mean[e] / sum) > 5e-6)
              fail_msg("%s: query %d head %d: %.9g, not %.9g", names[i], q, head, z[(q * HEADS + head) * E + e],
                       mean[e] / sum);
        }
      drop(backend, kv);
      drop(backend, from);
      drop(backend, to);
      backend_close(backend);
    }
}

/* Rows that enter in the middle: a fork of another row, and a saved residual. */
static void test_origins(void **state) {
  (void)state;
  const char *names[4];
  int n = backends_all(names);
  for (int i = 0; i < n; i++) {
    struct world *world = world_new(names[i], 2, &small_shape);
    struct backend *b = world->backend;
    size_t d = (size_t)small_shape.d_model, vocabulary = (size_t)small_shape.vocabulary;
    world_step(world, (struct step_slot[]){{{0, 5}, 0, 0, 2}, {{5, 10}, 0, 1, 2}, {{10, 15}, 0, 1, 2}}, 3);
    struct span saved = must_alloc(b, 5 * d), to = must_alloc(b, 5 * d);
    struct tap_item tap = {{0, 5}, saved, (int64_t)d};
    int32_t tap_begin[3 * SITE_COUNT + 1] = {0};
    for (int p = SITE_COUNT + SITE_RESID_PRE + 1; p <= 3 * SITE_COUNT; p++) tap_begin[p] = 1; /* resid_pre.1 */
    /* first pass: the first slot alone, to save its residual */
    struct step_slot alone = {{0, 5}, 0, 0, 2};
    struct step_slot three[3];
    memcpy(three, world->slots, sizeof three);
    world_step(world, &alone, 1);
    world->step.taps = &tap;
    world->step.tap_begin = tap_begin;
    world_run(world);
    world_step(world, three, 3);
    for (int row = 5; row < 10; row++) {
      world->origin[row] = ORIGIN_FORK;
      world->source[row] = row - 5;
      world->origin[row + 5] = ORIGIN_SAVED;
      world->source[row + 5] = row - 5;
    }
    world->step.saved = saved;
    world_run(world);
    float *logits = malloc(15 * vocabulary * sizeof *logits);
    must_read(b, logits, world->logits, 15 * vocabulary);
    same_bits("fork", logits + 5 * vocabulary, logits, 5 * vocabulary);
    same_bits("saved", logits + 10 * vocabulary, logits, 5 * vocabulary);
    /* an edit on the fork at the very point it enters reaches the fork only */
    struct edit_item edit = {.kind = EDIT_ROW_SCALE, .rows = {5, 10}, .column_end = (int32_t)d, .value = 2};
    world->step.edits = &edit;
    world->step.edit_begin = tap_begin;
    float *again = malloc(15 * vocabulary * sizeof *again);
    world_run(world);
    must_read(b, again, world->logits, 15 * vocabulary);
    same_bits("source of an edited fork", again, logits, 5 * vocabulary);
    assert_true(memcmp(again + 5 * vocabulary, logits + 5 * vocabulary, vocabulary * 4) != 0);
    free(logits);
    free(again);
    drop(b, saved);
    drop(b, to);
    world_free(world);
  }
}

/* ---- dictionaries ------------------------------------------------------------------------------------- */

struct dictionary {
  enum encode_kind kind;
  int n_feat, d_in, rows, k;
  bool center, subtract, fold;
  float grid; /* 0, or the step that weights and rows are rounded to, so that values tie exactly */
  enum encode_norm norm;
  bool fold_selects;
};

static void encode_run(const char *name, const struct dictionary *d, struct sparse *out) {
  struct backend *backend = must_open(name, 2);
  struct file file = file_new(DTYPE_F32, ROWS_ARE_INPUTS, d->n_feat, d->d_in, 30, 1);
  size_t n = (size_t)(d->rows * d->d_in);
  float *x = malloc(n * sizeof *x);
  fill(x, n, 31, 1);
  if (d->grid > 0) {
    for (size_t i = 0; i < n; i++) x[i] = rintf(x[i] / d->grid) * d->grid;
    for (int64_t i = 0; i < file.part.ld * d->d_in; i++) {
      float w;
      memcpy(&w, file.block + 1 + 4 * i, 4);
      w = rintf(w / d->grid) * d->grid;
      memcpy(file.block + 1 + 4 * i, &w, 4);
    }
  }
  struct span xs = must_put(backend, x, n), threshold = put_noise(backend, (size_t)d->n_feat, 34, 1);
  struct span subtract = put_noise(backend, (size_t)d->d_in, 32, 0.3f);
  struct span bias = put_noise(backend, (size_t)d->n_feat, 33, d->grid > 0 ? 0 : 0.5f);
  struct span fold = must_alloc(backend, (size_t)d->n_feat), none = {NULL, 0};
  float *scale = malloc((size_t)d->n_feat * sizeof *scale);
  for (int f = 0; f < d->n_feat; f++) scale[f] = 1.5f + noise(35, (uint64_t)f);
  backend->ops->write(backend, fold, scale, (size_t)d->n_feat * sizeof *scale, NULL);
  struct matrix *w = must_matrix(backend, &file.part, 1, d->d_in);
  struct encode_args args = {.kind = d->kind, .w = w, .x = {xs, d->d_in}, .n_rows = d->rows, .center_mean = d->center,
                             .subtract = d->subtract ? subtract : none, .bias = bias, .threshold = threshold,
                             .fold = d->fold ? fold : none, .k = d->k, .norm = d->norm, .scale = 0.7f,
                             .fold_selects = d->fold_selects, .gain = fold, .shift = threshold};
  struct error error = ERROR_INIT;
  if (backend->ops->encode(backend, &args, out, &error) != 0) fail_msg("%s", error.text);
  struct span all[] = {xs, subtract, bias, threshold, fold};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(backend, all[i]);
  backend->ops->matrix_free(backend, w);
  backend_close(backend);
  free(file.block);
  free(x);
  free(scale);
}

/* Same entries, except such as lie within rounding of where they are cut off. */
static void compare_codes(const char *name, const struct dictionary *d) {
  struct sparse expected, got;
  sparse_init(&expected);
  sparse_init(&got);
  encode_run("ref", d, &expected);
  encode_run(name, d, &got);
  assert_int_equal(got.n_rows, d->rows);
  /* sums of d_in products below 1, as in test_linear, times a fold below 2.5; normed rows are up to 2.5 times as long, a
   * gate's gain is below 2.5 too */
  double tolerance = d->grid > 0 ? 0 : 4.5 * (d->d_in + 4) * 0x1p-24 * 2.5;
  if (d->norm != ENCODE_NORM_NONE) tolerance *= 2.5;
  if (d->kind == ENCODE_GATED) tolerance *= 2.5;
  size_t doubtful = 0;
  for (size_t r = 0; r < got.n_rows; r++) {
    for (size_t e = got.start[r]; e < got.start[r + 1]; e++) {
      assert_true(e == got.start[r] || got.index[e] > got.index[e - 1]);
      float twin = sparse_find(&expected, r, got.index[e]);
      doubtful += twin == 0;
      if (twin != 0 && fabs((double)twin - got.value[e]) > tolerance)
        fail_msg("%s: row %zu feature %d: %.9g, not %.9g", name, r, got.index[e], got.value[e], twin);
    }
    for (size_t e = expected.start[r]; e < expected.start[r + 1]; e++)
      doubtful += sparse_find(&got, r, expected.index[e]) == 0;
  }
  size_t entries = expected.start[expected.n_rows];
  if (doubtful > (d->grid > 0 ? 0 : entries / 500 + 1))
    fail_msg("%s: kind %d: %zu of %zu entries differ", name, d->kind, doubtful, entries);
  sparse_clear(&expected);
  sparse_clear(&got);
}

static void test_encode(void **state) {
  (void)state;
  static const struct dictionary list[] = {
      {ENCODE_RELU, 333, 37, 5, 0, false, false, false, 0, ENCODE_NORM_NONE, false},
      {ENCODE_RELU, 1000, 64, 40, 0, true, true, true, 0, ENCODE_NORM_NONE, false},
      {ENCODE_JUMPRELU, 333, 37, 7, 0, false, true, true, 0, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 333, 37, 5, 8, true, false, true, 0, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 2500, 40, 33, 32, false, true, false, 0, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 17, 5, 3, 40, false, false, false, 0, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 1300, 6, 20, 50, false, false, false, 0.5f, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 2600, 6, 20, 50, false, false, false, 0.5f, ENCODE_NORM_NONE, false}, /* with raised limits: k is small enough */
      {ENCODE_RELU, 1300, 6, 20, 0, false, false, true, 0.5f, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 900, 3, 9, 1, false, false, false, 1, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 64, 8, 4, 0, false, false, false, 0, ENCODE_NORM_NONE, false},
      {ENCODE_RELU, 1, 1, 1, 0, false, false, false, 0, ENCODE_NORM_NONE, false},
      {ENCODE_TOPK, 1500, 40, 21, 24, false, true, true, 0, ENCODE_NORM_NONE, true},
      {ENCODE_GATED, 700, 37, 17, 0, false, true, true, 0, ENCODE_NORM_NONE, false},
      {ENCODE_GATED, 1000, 64, 9, 0, true, false, false, 0, ENCODE_NORM_STANDARD, false},
      {ENCODE_GROUPMAX, 1200, 30, 13, 40, false, true, true, 0, ENCODE_NORM_NONE, false},
      {ENCODE_GROUPMAX, 1300, 6, 20, 26, false, false, false, 0.5f, ENCODE_NORM_NONE, false},
      {ENCODE_GROUPMAX, 300, 12, 4, 300, false, false, false, 0, ENCODE_NORM_NONE, false},
      {ENCODE_RELU, 700, 37, 11, 0, false, true, true, 0, ENCODE_NORM_SCALE, false},
      {ENCODE_JUMPRELU, 700, 50, 11, 0, true, true, true, 0, ENCODE_NORM_LENGTH, false},
      {ENCODE_TOPK, 700, 50, 200, 12, false, true, true, 0, ENCODE_NORM_STANDARD, false}};
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) compare_codes(names[i], &list[k]);
}

/* ref itself, against what a reader can work out by hand. */
static void test_topk_ties_by_hand(void **state) {
  (void)state;
  const char *names[4];
  int n = backends_all(names);
  for (int i = 0; i < n; i++) {
    struct backend *backend = must_open(names[i], 1);
    float weights[6] = {1, 3, 2, 3, 3, -9}, x = 1;
    struct matrix_part part = {.data = weights, .dtype = DTYPE_F32, .n_out = 6, .ld = 1};
    struct matrix *w = must_matrix(backend, &part, 1, 1);
    struct span xs = must_put(backend, &x, 1);
    struct encode_args args = {.kind = ENCODE_TOPK, .w = w, .x = {xs, 1}, .n_rows = 1, .k = 2};
    struct sparse out;
    sparse_init(&out);
    assert_int_equal(backend->ops->encode(backend, &args, &out, NULL), 0);
    assert_int_equal(out.start[1], 2);
    assert_int_equal(out.index[0], 1);
    assert_int_equal(out.index[1], 3);
    args.k = 6;
    assert_int_equal(backend->ops->encode(backend, &args, &out, NULL), 0);
    assert_int_equal(out.start[2] - out.start[1], 5); /* the negative one is not kept */
    sparse_clear(&out);
    drop(backend, xs);
    backend->ops->matrix_free(backend, w);
    backend_close(backend);
  }
}

/* One input, so that every sum is a weight, exactly: of all sizes down to the smallest there are, infinite ones among them, and many
 * of them equal. */
static void test_topk_of_any_size(void **state) {
  (void)state;
  enum { N = 1200, ROWS = 13 };
  static float weights[N], x[ROWS];
  for (size_t i = 0; i < N; i++) {
    uint32_t bits = (uint32_t)(fabsf(noise(41, i)) * 0x1p24f) * 2654435761u;
    bits = i % 5 ? bits : bits & 0xfff00000; /* some with few bits, so that they tie */
    if ((bits >> 23 & 0xff) == 0xff) bits &= 0xff800000;
    if (i % 3 == 0) bits = 0x7e000000 | bits % 61; /* and some that differ in their last bits only */
    memcpy(&weights[i], &bits, sizeof bits);
  }
  for (int r = 0; r < ROWS; r++) x[r] = ldexpf(r % 2 ? -1 : 1, r % 5 - 2);
  const char *names[4];
  int n = fast_backends(names);
  static const int ks[] = {1, 2, 16, 20, 29, 37, 38, 300}; /* limits are raised up to N / 32 */
  for (int i = 0; i < n; i++)
    for (size_t j = 0; j < sizeof ks / sizeof *ks; j++)
      for (int way = 0; way < 2; way++) {
        struct sparse out[2];
        for (int twin = 0; twin < 2; twin++) {
          struct backend *backend = must_open(twin ? "ref" : names[i], 2);
          struct matrix_part part = {.data = (const unsigned char *)weights, .dtype = DTYPE_F32, .n_out = N, .ld = 1};
          struct matrix *w = must_matrix(backend, &part, 1, 1);
          struct span xs = must_put(backend, x, ROWS);
          struct encode_args args = {.kind = ENCODE_TOPK, .w = w, .x = {xs, 1}, .n_rows = way ? ROWS : 1, .k = ks[j]};
          sparse_init(&out[twin]);
          for (int r = 0; r < ROWS; r += (int)args.n_rows, args.x.at.offset += 4)
            assert_int_equal(backend->ops->encode(backend, &args, &out[twin], NULL), 0);
          drop(backend, xs);
          backend->ops->matrix_free(backend, w);
          backend_close(backend);
        }
        assert_memory_equal(out[0].start, out[1].start, (ROWS + 1) * sizeof *out[0].start);
        assert_memory_equal(out[0].index, out[1].index, out[0].start[ROWS] * sizeof *out[0].index);
        assert_memory_equal(out[0].value, out[1].value, out[0].start[ROWS] * sizeof *out[0].value);
        sparse_clear(&out[0]);
        sparse_clear(&out[1]);
      }
}

static void test_unknown_backend_is_named(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  assert_null(backend_open("abacus", 1, &error));
  assert_int_equal(error.code, ERROR_ARGUMENT);
  assert_non_null(strstr(error.text, "'abacus'"));
  assert_non_null(strstr(error.text, "known: auto, cpu, cuda:N"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_each_edit),
      cmocka_unit_test(test_threshold_is_strict_and_never_negative),
      cmocka_unit_test(test_edits_keep_order_and_taps_come_after),
      cmocka_unit_test(test_many_edits_of_a_row),
      cmocka_unit_test(test_linear),
      cmocka_unit_test(test_linear_vocabulary),
      cmocka_unit_test(test_activations),
      cmocka_unit_test(test_norms),
      cmocka_unit_test(test_pass),
      cmocka_unit_test(test_attention_by_definition),
      cmocka_unit_test(test_origins),
      cmocka_unit_test(test_encode),
      cmocka_unit_test(test_topk_ties_by_hand),
      cmocka_unit_test(test_topk_of_any_size),
      cmocka_unit_test(test_unknown_backend_is_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
