/* What is the CUDA backend's own: steps that are recorded and repeated, and errors of the device. Needs a library
 * (STEERD_CUDA_LIBRARY): the emulated one for all of it, a real one for the first half. Formulas are tested where those of
 * the other backends are. */
#include <dlfcn.h>

#include "core/engine/sampler.h"
#include "tests/unit/ops_world.h"

/* The handles of tests/cuda_host/emulator.cpp; NULL where the device is real. */
static struct {
  void (*order)(long calls, int error);
  void (*capacity)(size_t bytes);
  void (*counts)(long out[6]);
  void (*launches)(long out[2]);
} emulated;
enum { CALLS, LAUNCHES, CAPTURES, REPLAYS, BYTES, WAITS };
enum { ILLEGAL_ADDRESS = 700, OUT_OF_MEMORY = 2 };

static long count(int which) {
  long counts[6];
  emulated.counts(counts);
  return counts[which];
}

static bool find_emulator(void) {
  const char *path = getenv("STEERD_CUDA_LIBRARY");
  struct error error = ERROR_INIT;
  struct backend *backend = path ? backend_open("cuda", 1, &error) : NULL;
  if (!backend) {
    printf("skip: the CUDA backend (%s)\n", path ? error.text : "set STEERD_CUDA_LIBRARY");
    return false;
  }
  backend_close(backend);
  void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  void *symbols[] = {dlsym(library, "cuda_emulated_fail"), dlsym(library, "cuda_emulated_capacity"),
                     dlsym(library, "cuda_emulated_counts"), dlsym(library, "cuda_emulated_launches")};
  memcpy(&emulated, symbols, sizeof symbols);
  if (!emulated.order) printf("skip: ordered failures (a real device)\n");
  return true;
}

/* Launches so far that may begin while the kernel before them ends. */
static long overlaps(void) {
  long launches[2];
  emulated.launches(launches);
  return launches[0];
}

/* ---- products by the library ---------------------------------------------------------------------------------------- */

struct product {
  const char *name;
  enum dtype dtype;
  int rows, n_in, n_out;
  bool lone; /* one input of each row is not 0 */
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
      if (!(fabs(got[row * p->n_out + out] - sum) <= rounding * size))
        fail_msg("%s, %d x %d, %d rows: row %d output %d: %.9g, not %.9g", dtype_name(p->dtype), p->n_in, p->n_out, p->rows, row, out,
                 got[row * p->n_out + out], sum);
    }
}

static void check_product_of(struct product p) {
  size_t results = (size_t)(p.rows + 1) * (size_t)p.n_out;
  float *x = product_inputs(&p), *got = malloc(results * sizeof *got);
  struct backend *backend = must_open(p.name, 1);
  struct file file = file_new(p.dtype, ROWS_ARE_INPUTS, p.n_out, p.n_in, 50, 1);
  struct matrix *w = must_matrix(backend, &file.part, 1, p.n_in);
  struct span from = must_put(backend, x, (size_t)p.rows * (size_t)p.n_in), to = must_alloc(backend, results);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
  op.u.linear.w = w;
  op.u.linear.x = (struct rows){from, p.n_in};
  op.u.linear.y = (struct rows){to, p.n_out};
  struct step step = {.n_layer = 1, .n_rows = p.rows, .n_logit_rows = p.rows};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  must_read(backend, got, to, results);
  compare_product(&p, &file, x, got);
  for (size_t i = results - (size_t)p.n_out; i < results; i++) assert_true(got[i] == 0); /* a row beyond the step stays as it was */
  backend->ops->matrix_free(backend, w);
  drop(backend, from);
  drop(backend, to);
  backend_close(backend);
  free(file.block);
  free(got);
  free(x);
}

static void check_product(const char *name, enum dtype dtype, int rows) {
  check_product_of((struct product){name, dtype, rows, 203, 77, false});
}

/* Kernels differ by the number of outputs (below 2,048, then below 4,096 or 32,768 by the rows) and by how x lies; inputs are taken 256 a turn, and what is on
 * its way comes round after 2,048, 1,024 and 512. */
static void test_shapes_of_products(void **state) {
  (void)state;
  static const struct { int rows, n_in, n_out; } shapes[] = {{1, 2400, 21}, {11, 2400, 21}, {20, 2403, 9}, {5, 2400, 9}, {5, 1360, 2051}, {12, 1112, 2051},
                                                             {32, 300, 2051}, {12, 520, 4099}, {32, 520, 4099}, {1, 520, 32771}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    check_product_of((struct product){"cuda", DTYPE_BF16, shapes[i].rows, shapes[i].n_in, shapes[i].n_out, false});
    if (shapes[i].rows == 5)
      check_product_of((struct product){"cuda", DTYPE_F16, shapes[i].rows, shapes[i].n_in, shapes[i].n_out, false});
  }
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const int rows[] = {1, 8, 9, 32};
  for (size_t d = 0; d < 3; d++)
    for (size_t r = 0; r < 4; r++) check_product_of((struct product){"cuda", dtypes[d], rows[r], 280, 17, true});
}

static void test_products(void **state) {
  (void)state;
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const int rows[] = {1, 3, 8, 9, 16, 17, 32, 33, 100};
  for (size_t d = 0; d < 3; d++)
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
      check_product("cuda", dtypes[d], rows[r]);
      check_product("cuda+deterministic", dtypes[d], rows[r]);
    }
}

/* ---- keys and values as they are kept ----------------------------------------------------------------------------------- */

struct heads {
  int n, kv, d, window;
  float soft_cap;
};
enum { TEXT = 150, TEXTS = 4, TEXT_BLOCKS = 3, WIDEST_HEAD = 256 };

static int qkv_width(const struct heads *h) { return (h->n + 2 * h->kv) * h->d; }

/* Texts of up to TEXT positions, attended to in steps of rows [from, to) of each; the pool is full of NaN. */
struct texts {
  struct heads heads;
  struct backend *backend;
  struct span kv, from, to;
  struct op op;
  float *qkv, *z; /* [TEXTS][TEXT][qkv_width] and [n * d] */
};

static void texts_open(struct texts *t, struct backend *backend, struct heads heads, enum dtype wish) {
  size_t width = (size_t)qkv_width(&heads), z = (size_t)(heads.n * heads.d), rows = TEXTS * TEXT;
  size_t bytes = TEXTS * TEXT_BLOCKS * backend->ops->kv_block_bytes(backend, heads.kv, heads.d, wish);
  *t = (struct texts){.heads = heads, .backend = backend, .qkv = malloc(rows * width * 4), .z = malloc(rows * z * 4)};
  t->kv = must_alloc(backend, bytes / 4);
  t->from = must_alloc(backend, rows * width);
  t->to = must_alloc(backend, rows * (z + 3));
  float *garbage = malloc(bytes);
  memset(garbage, 0xFF, bytes);
  backend->ops->write(backend, t->kv, garbage, bytes, NULL);
  free(garbage);
  fill(t->qkv, rows * width, 60, 2);
  t->op = (struct op){.code = OP_ATTEND, .set = ROWS_ACTIVE, .width = heads.n * heads.d};
  t->op.u.attend.qkv = (struct rows){t->from, (int64_t)width};
  t->op.u.attend.z = (struct rows){t->to, (int64_t)z + 3};
  t->op.u.attend.k = heads.n * heads.d;
  t->op.u.attend.v = (heads.n + heads.kv) * heads.d;
  t->op.u.attend.n_head = heads.n;
  t->op.u.attend.n_kv_head = heads.kv;
  t->op.u.attend.d_head = heads.d;
  t->op.u.attend.scale = 0.3f;
  t->op.u.attend.window = heads.window;
  t->op.u.attend.soft_cap = heads.soft_cap;
  t->op.u.attend.kv = wish;
}

static void texts_close(struct texts *t) {
  drop(t->backend, t->kv);
  drop(t->backend, t->from);
  drop(t->backend, t->to);
  free(t->qkv);
  free(t->z);
}

/* One step: positions [range[i][0], range[i][1]) of text i, where there are any. */
static void texts_step(struct texts *t, const int (*range)[2]) {
  static int32_t table[TEXTS * TEXT_BLOCKS];
  struct step_slot slots[TEXTS];
  size_t width = (size_t)qkv_width(&t->heads), z = (size_t)(t->heads.n * t->heads.d);
  int n = 0, rows = 0;
  for (int i = 0; i < TEXTS; i++) {
    int first = range[i][0], count = range[i][1] - first;
    if (!count) continue;
    for (int k = 0; k < TEXT_BLOCKS; k++) table[n * TEXT_BLOCKS + k] = (i * TEXT_BLOCKS + k) * 5 % (TEXTS * TEXT_BLOCKS);
    slots[n++] = (struct step_slot){{rows, rows + count}, first, 0, 1};
    const float *from = t->qkv + (size_t)(i * TEXT + first) * width;
    assert_int_equal(t->backend->ops->write(t->backend, span_at(t->from, (size_t)rows * width * 4), from, (size_t)count * width * 4, NULL), 0);
    rows += count;
  }
  struct row_range all[2] = {{0, rows}, {0, rows}};
  struct step step = {.n_layer = 1, .n_rows = rows, .n_slots = n, .slots = slots, .active = all, .arriving = all,
                      .kv = t->kv, .kv_table = table, .kv_blocks = TEXT_BLOCKS};
  assert_int_equal(t->backend->ops->run(t->backend, &t->op, 1, &step, NULL), 0);
  rows = 0;
  for (int i = 0; i < TEXTS; i++)
    for (int at = range[i][0]; at < range[i][1]; at++, rows++)
      must_read(t->backend, t->z + (size_t)(i * TEXT + at) * z, span_at(t->to, (size_t)rows * (z + 3) * 4), z);
}

/* What attention may differ by from its definition. Of scores: of scale x sum |q_i k_i|, and each q_i by so much; of weights: of
 * each. */
struct slack {
  double scores, queries, weights;
};

/* A head of a row by its definition, over keys and values of type `kept`; the sum of weights, by which it is not yet divided,
 * and what the slack makes of it. */
static double expected_z(const struct texts *t, int text, enum dtype kept, struct slack slack, int row, int head, double z[]) {
  const struct heads *h = &t->heads;
  int width = qkv_width(h), first = h->window && row >= h->window ? row - h->window + 1 : 0;
  const float *rows = t->qkv + (size_t)(text * TEXT) * (size_t)width, *q = rows + row * width + head * h->d;
  double total = 0, moved = 0, largest = 0;
  for (int i = 0; i < h->d; i++) z[i] = 0;
  for (int j = first; j <= row; j++) {
    const float *k = rows + j * width + (h->n + head / (h->n / h->kv)) * h->d, *v = k + h->kv * h->d;
    double score = 0, size = 0, keys = 0;
    for (int i = 0; i < h->d; i++) {
      double term = (double)q[i] * dtype_round(k[i], kept);
      score += term;
      size += fabs(term);
      keys += fabs(dtype_round(k[i], kept));
    }
    score *= 0.3f;
    double weight = exp(h->soft_cap > 0 ? h->soft_cap * tanh(score / h->soft_cap) : score);
    moved = fmax(moved, 0.3 * (slack.scores * size + slack.queries * keys));
    total += weight;
    for (int i = 0; i < h->d; i++) {
      z[i] += weight * dtype_round(v[i], kept);
      largest = fmax(largest, fabs(v[i]));
    }
  }
  for (int i = 0; i < h->d; i++) z[i] /= total;
  return largest * (2 * moved + 2 * slack.weights); /* each weight, and their sum */
}

static void check_text(const struct texts *t, int text, enum dtype kept, struct slack slack, int begin, int end) {
  double z[WIDEST_HEAD];
  for (int row = begin; row < end; row++)
    for (int head = 0; head < t->heads.n; head++) {
      const float *got = t->z + ((size_t)(text * TEXT + row) * (size_t)t->heads.n + (size_t)head) * (size_t)t->heads.d;
      double bound = expected_z(t, text, kept, slack, row, head, z);
      for (int i = 0; i < t->heads.d; i++)
        if (!(fabs(got[i] - z[i]) <= bound))
          fail_msg("%s, %s, %d/%d heads of %d: text %d row %d head %d element %d: %.9g, not %.9g to %.2g", t->backend->ops->name,
                   dtype_name(kept), t->heads.n, t->heads.kv, t->heads.d, text, row, head, i, got[i], z[i], bound);
    }
}

/* Sums in f32, a few hundred terms each rounded by 2^-24 of its sum: exact but for that. On tensor cores, where a slot has many
 * rows: queries in two pieces of the cache's type, 2^-18 of each (f16: 2^-22, and 2^-25 where the second piece ends), and up to 30 sums
 * that are cut off by 2^-23; weights alike, and sums over up to 150 positions: 2^-16 with those of both. */
static struct slack slack_of(enum dtype kept, bool many) {
  if (!many || kept == DTYPE_F32) return (struct slack){0x1p-20, 0, 0x1p-20};
  return kept == DTYPE_BF16 ? (struct slack){0x1p-17, 0, 0x1p-16} : (struct slack){0x1p-18, 0x1p-25, 0x1p-18};
}

static void test_kept_types(void **state) {
  (void)state;
  static const struct heads heads = {6, 2, 9, 100, 0};
  static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const char *const names[] = {"cuda", "cuda+deterministic"};
  float *whole = malloc(TEXT * 6 * 9 * sizeof *whole);
  for (int i = 0; i < 6; i++) {
    struct backend *backend = must_open(names[i % 2], 1);
    enum dtype wish = types[i / 2], kept = i % 2 ? DTYPE_F32 : wish;
    assert_int_equal(backend->ops->kv_block_bytes(backend, 2, 64, wish), 2 * 2 * KV_BLOCK * 64 * dtype_size(kept));
    struct texts t;
    texts_open(&t, backend, heads, wish);
    t.qkv[3 * qkv_width(&heads) + 6 * 9] = 1e-6f; /* a key below the normal halves */
    texts_step(&t, (const int[TEXTS][2]){{0, TEXT}});
    check_text(&t, 0, kept, slack_of(kept, true), 0, TEXT);
    memcpy(whole, t.z, TEXT * 6 * 9 * sizeof *whole);
    /* Rows of an earlier step are read as those of this one, some of them long and some of one row. */
    static const int ends[] = {1, 2, 66, 96, 130, 131, TEXT};
    for (int k = 0, begin = 0; k < 7; begin = ends[k++]) texts_step(&t, (const int[TEXTS][2]){{begin, ends[k]}});
    check_text(&t, 0, kept, slack_of(kept, true), 0, TEXT);
    if (kept == DTYPE_F32) same_bits(names[i % 2], t.z, whole, TEXT * 6 * 9);
    texts_close(&t);
    backend_close(backend);
  }
  free(whole);
}

/* Prompts beside decodes and texts that go on, over heads of every width and group that is cut in its own way. */
static void test_prompts(void **state) {
  (void)state;
  static const struct heads heads[] = {{4, 1, 64, 0, 0},    {3, 3, 24, 0, 2},   {12, 2, 80, 70, 0}, {2, 2, 128, 0, 0},
                                       {2, 1, 256, 40, 30}, {71, 1, 8, 0, 0}, {5, 1, 136, 64, 0}};
  struct backend *backend = must_open("cuda", 1);
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    enum dtype type = i % 3 == 1 ? DTYPE_F16 : DTYPE_BF16;
    struct texts t;
    texts_open(&t, backend, heads[i], type);
    texts_step(&t, (const int[TEXTS][2]){{0, 37}, {0, 5}, {0, 0}, {0, 33}});
    check_text(&t, 0, type, slack_of(type, true), 0, 37);
    check_text(&t, 1, type, slack_of(type, false), 0, 5);
    check_text(&t, 3, type, slack_of(type, true), 0, 33);
    texts_step(&t, (const int[TEXTS][2]){{37, 110}, {5, 6}, {0, 40}, {33, 38}});
    check_text(&t, 0, type, slack_of(type, true), 37, 110);
    check_text(&t, 1, type, slack_of(type, false), 5, 6);
    check_text(&t, 2, type, slack_of(type, true), 0, 40);
    check_text(&t, 3, type, slack_of(type, false), 33, 38);
    texts_close(&t);
  }
  backend_close(backend);
}

/* A key that f16 cannot hold is its largest number, and no infinity whose score would be one, or none at all; NaN stays NaN. The
 * same for a query of a prompt. */
static void test_beyond_f16(void **state) {
  (void)state;
  static const struct heads heads = {6, 2, 9, 100, 0};
  struct backend *backend = must_open("cuda", 1);
  struct texts t;
  texts_open(&t, backend, heads, DTYPE_F16);
  float *key = t.qkv + 6 * 9, *value = key + 2 * 9;
  for (int i = 0; i < TEXT * qkv_width(&heads); i++) t.qkv[i] *= 0.25f;
  key[0] = 1e30f;
  value[4] = -70000;
  for (int row = 0; row < 40; row++) t.qkv[row * qkv_width(&heads)] = 1e-4f;
  for (int rows = 2; rows <= 40; rows += 38) {
    texts_step(&t, (const int[TEXTS][2]){{0, rows}});
    for (int row = 0; row < rows; row++) {
      double z[9], bound = expected_z(&t, 0, DTYPE_F16, slack_of(DTYPE_F16, rows > 32), row, 0, z);
      for (int i = 0; i < 9; i++)
        if (!(fabs(t.z[row * 54 + i] - z[i]) <= bound))
          fail_msg("%d rows: row %d element %d: %.9g, not %.9g to %.2g", rows, row, i, t.z[row * 54 + i], z[i], bound);
    }
  }
  t.qkv[39 * qkv_width(&heads)] = -1e5f; /* times 65504, and a score of -inf but for rounding: the first key is not seen */
  texts_step(&t, (const int[TEXTS][2]){{0, 40}});
  for (int i = 0; i < 9; i++) assert_true(isfinite(t.z[39 * 54 + i]));
  key[0] = NAN;
  for (int rows = 2; rows <= 40; rows += 38) {
    texts_step(&t, (const int[TEXTS][2]){{0, rows}});
    assert_true(isnan(t.z[54]) && !isnan(t.z[54 + 3 * 9])); /* the other KV head does not know */
  }
  texts_close(&t);
  backend_close(backend);
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
    check_gate("cuda", DTYPE_F32, rows[r], false, r % 2);
  }
  check_gate("cuda", DTYPE_BF16, 33, false, true);
  check_gate("cuda+deterministic", DTYPE_BF16, 33, true, true);
}

/* ---- steps that are repeated ------------------------------------------------------------------------------------ */

/* Point tables with one item at `point`. */
static void at_point(int32_t *begin, int point) {
  for (int p = 0; p <= point_count(MAX_LAYERS); p++) begin[p] = p > point;
}

struct scene {
  struct world *world;
  struct span to;
  struct edit_item edit;
  struct tap_item tap;
  int32_t edit_begin[(MAX_LAYERS + 1) * SITE_COUNT + 1], tap_begin[(MAX_LAYERS + 1) * SITE_COUNT + 1];
};

enum { SCENE_ROWS = 5, SCENE_TURNS = 16 };

/* Another bucket in the second half: what was recorded for the first waits. */
static int scene_rows(int turn) { return turn < SCENE_TURNS / 2 ? 3 : SCENE_ROWS; }

/* A step of a decode: sessions at different places, one row each, the second one edited. The third looks back over two chunks of
 * attention; those behind it begin. */
static void play(struct scene *scene, int turn, float *logits, float *tapped) {
  static const enum site edited[] = {SITE_RESID_POST, SITE_ATTN_OUT, SITE_RESID_PRE, SITE_MLP_OUT, SITE_ATTN_Z, SITE_MLP_POST};
  static const int kinds[] = {EDIT_ROW_ADD, EDIT_ROW_SCALE, EDIT_ROW_PROJECT, EDIT_ROW_FILL};
  static const int begin[SCENE_ROWS] = {1, 60, 170, 0, 0};
  struct world *world = scene->world;
  struct step_slot slots[SCENE_ROWS];
  int rows = scene_rows(turn), half = turn % (SCENE_TURNS / 2);
  for (int i = 0; i < rows; i++) slots[i] = (struct step_slot){{i, i + 1}, begin[i] + (i < 3 ? turn : half), 0, 2};
  world_step(world, slots, rows);
  scene->edit = (struct edit_item){.kind = (enum edit_kind)kinds[turn % 4], .rows = {1, 2}, .column_begin = turn % 5,
                                   .column_end = 30, .value = 0.25f * (float)(half + 1), .v = span_at(world->vectors, (size_t)(4 * turn))};
  scene->tap = (struct tap_item){{turn % 2, rows}, span_at(scene->to, (size_t)(turn % 3) * 64), 64};
  at_point(scene->edit_begin, point_index((struct point){turn % 2, edited[turn % 6]}));
  at_point(scene->tap_begin, point_index((struct point){1, SITE_RESID_POST}));
  world->step.edits = &scene->edit;
  world->step.edit_begin = turn % 3 == 2 ? NULL : scene->edit_begin; /* and none at all now and then */
  world->step.taps = &scene->tap;
  world->step.tap_begin = scene->tap_begin;
  world_run(world);
  must_read(world->backend, logits, world->logits, (size_t)(rows * world->shape.vocabulary));
  must_read(world->backend, tapped, scene->tap.to, (size_t)((rows - scene->tap.rows.begin) * 64 - 24));
}

static void scene_open(struct scene *scene, const char *name, const struct shape *shape) {
  scene->world = world_new(name, 1, shape);
  scene->to = must_alloc(scene->world->backend, 64 * (SCENE_ROWS + 3));
  /* a prompt for each session, so that there is something to look back at */
  struct step_slot prompts[3] = {{{0, 1}, 0, 0, 2}, {{1, 61}, 0, 0, 2}, {{61, 231}, 0, 0, 2}};
  world_step(scene->world, prompts, 3);
  world_run(scene->world);
}

static void scene_close(struct scene *scene) {
  drop(scene->world->backend, scene->to);
  world_free(scene->world);
}

/* The same steps on the obvious path and on the device: whatever a recording has kept from an earlier step that it should
 * have read from this one shows as a wrong answer. */
static void compare_scenes(const char *name, const struct shape *shape, double tolerance) {
  struct scene want, got;
  scene_open(&want, "ref", shape);
  scene_open(&got, name, shape);
  for (int turn = 0; turn < SCENE_TURNS; turn++) {
    float a[SCENE_ROWS * 61], b[SCENE_ROWS * 61], tapped[2][SCENE_ROWS * 64] = {{0}};
    play(&want, turn, a, tapped[0]);
    play(&got, turn, b, tapped[1]);
    close_to("logits of a repeated step", b, a, (size_t)(scene_rows(turn) * shape->vocabulary), tolerance);
    for (int row = 0; row < scene_rows(turn) - turn % 2; row++)
      close_to("taps of a repeated step", tapped[1] + 64 * row, tapped[0] + 64 * row, (size_t)shape->d_model, tolerance);
  }
  scene_close(&want);
  scene_close(&got);
}

/* As in test_pass of test_ops.c: two layers of sums of at most 70 terms, values below 10. */
#define PASS_TOLERANCE 2e-4

/* Weights in bf16 and many rows: each product rounds its x to 8 bits, 2^-9 of each term. Terms are summed with mixed signs, so
 * that stays about what it is of a logit (below 3) through the 9 products of two layers. */
#define HALF_TOLERANCE (9 * 3 * 0x1p-9)

static void test_repeated_steps(void **state) {
  (void)state;
  long before = emulated.counts ? count(REPLAYS) : 0;
  compare_scenes("cuda", &small_shape, PASS_TOLERANCE);
  compare_scenes("cuda", &gated_shape, HALF_TOLERANCE);
  compare_scenes("cuda+deterministic", &gated_shape, PASS_TOLERANCE);
  if (emulated.counts) assert_true(count(REPLAYS) - before >= 3 * 8);
}

/* More kinds of steps than there is room for graphs: the one used longest ago goes, and comes back. */
/* Kernels begin before their turn where the device can (device 0 of the emulator, not device 1) and nobody asked otherwise. */
static void test_overlaps(void **state) {
  (void)state;
  static const struct {
    const char *name;
    bool overlaps;
  } cases[] = {{"cuda:0", true}, {"cuda:1", false}, {"cuda:0+serial", false}, {"cuda:0+deterministic+serial", false}};
  if (!emulated.order) skip();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    long before = overlaps(), launches = count(LAUNCHES);
    check_product(cases[i].name, DTYPE_BF16, 1);
    assert_int_equal(overlaps() - before, cases[i].overlaps ? count(LAUNCHES) - launches : 0);
  }
}

static void test_many_kinds_of_steps(void **state) {
  (void)state;
  struct world *world = world_new("cuda", 1, &small_shape);
  struct op list[64];
  memcpy(list, world->list, sizeof list);
  float plain[61], again[61];
  for (int kind = 0; kind < 150; kind++) {
    for (int turn = 0; turn < 2; turn++) {
      struct error error = ERROR_INIT;
      world_step(world, (struct step_slot[]){{{0, 1}, 5, 0, 2}}, 1);
      list[world->count - 1].u.linear.soft_cap = kind % 75 ? 1.0f + (float)(kind % 75) : 0; /* another list */
      assert_int_equal(world->backend->ops->run(world->backend, list, world->count, &world->step, &error), 0);
      must_read(world->backend, kind == 0 ? plain : again, world->logits, 61);
    }
    if (kind == 75) same_bits("a step that comes again", again, plain, 61);
  }
  world_free(world);
}

/* ---- one wait a step -------------------------------------------------------------------------------------------------- */

/* A step as the engine makes it, with the vectors of a request that begins, draws, and taps that are read: six calls when it is
 * a repeated one, one of them a wait. Whatever was taken from locked memory too early, or given to another too early, shows as a
 * wrong answer, because the emulator does nothing before it is waited for. */
static void test_one_wait(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  struct backend *backend = world->backend;
  struct span taps = must_alloc(backend, 2 * 64);
  int32_t tap_begin[(MAX_LAYERS + 1) * SITE_COUNT + 1];
  at_point(tap_begin, point_index((struct point){1, SITE_RESID_POST}));
  for (int turn = 0; turn < 6; turn++) {
    struct error error = ERROR_INIT;
    struct tap_item tap = {{0, 2}, taps, 64};
    struct memory *vectors = NULL;
    float three[24], tapped[2 * 64] = {0}, again[2 * 64] = {0}, logits[2 * 61];
    static struct sample_result tokens[2];
    struct sample_draw draws[2] = {{.row = 0, .top_p = 1, .n_likely = -1}, {.row = 1, .top_p = 1, .n_likely = -1}};
    struct step_slot slots[2] = {{{0, 1}, turn, 0, 2}, {{1, 2}, turn, 0, 2}};
    world_step(world, slots, 2);
    for (int i = 0; i < 24; i++) three[i] = (float)(turn + i);
    struct edit_item edit = {.kind = EDIT_ROW_COPY, .rows = {turn % 2, 2}, .column_end = 24, .value = 1};
    world->step.edits = &edit;
    world->step.edit_begin = world->step.tap_begin = tap_begin;
    world->step.taps = &tap;
    long calls = count(CALLS), waits = count(WAITS);
    assert_int_equal(backend->ops->alloc(backend, sizeof three, &vectors, &error), 0);
    edit.v = (struct span){vectors, 0};
    assert_int_equal(backend->ops->write(backend, edit.v, three, sizeof three, &error), 0);
    memset(three, 0xFF, sizeof three); /* the caller's again */
    assert_int_equal(backend->ops->run(backend, world->list, world->count, &world->step, &error), 0);
    assert_int_equal(backend->ops->sample(backend, (struct rows){world->logits, world->shape.vocabulary}, 61, draws, 2, tokens, &error), 0);
    assert_int_equal(backend->ops->fetch(backend, taps, 2 * 64 * sizeof(float), &error), 0);
    backend->ops->free(backend, vectors);
    assert_int_equal(backend_wait(backend, &error), 0);
    must_read(backend, tapped, taps, 64);
    must_read(backend, tapped + 64, span_at(taps, 64 * sizeof(float)), 64);
    if (turn > 2) assert_int_equal(count(WAITS) - waits, 1);
    if (turn > 2) assert_int_equal(count(CALLS) - calls, 3 + 6); /* three of them for the vectors */
    for (int row = turn % 2; row < 2; row++)
      for (int i = 0; i < 24; i++) assert_true(tapped[row * 64 + i] == (float)(turn + i));
    must_read(backend, logits, world->logits, 2 * 61);
    for (int row = 0; row < 2; row++)
      for (int i = 0; i < 61; i++) assert_true(logits[row * 61 + i] <= logits[row * 61 + tokens[row].token]);
    assert_int_equal(backend->ops->write(backend, taps, three, sizeof three, &error), 0); /* what was fetched is old now */
    must_read(backend, again, taps, 24);
    assert_memory_equal(again, three, sizeof three);
  }
  drop(backend, taps);
  world_free(world);
}

/* ---- draws --------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 5, FEW_WORDS = 700, WORDS = 9001, STRIDE = WORDS + 3 }; /* of three blocks a row, the last one short */

struct draws {
  struct backend *backend;
  struct span at;
  float *logits;
  int64_t words;
  int turns;
};

/* What the host says of a token's probability, and what came with the draw. f32 rounds the same double but for its last bits: sums
 * in another order move it by 1e-13 or so. */
static void compare_likely(const float *logits, int64_t words, int n, const struct sample_result *result) {
  static struct sampler_likely want[SAMPLE_MOST_LIKELY], got[SAMPLE_MOST_LIKELY];
  int found = sampler_most_likely(logits, words, n, want);
  assert_int_equal(sampler_drawn_likely(result, got), found);
  for (int i = 0; i < found; i++) {
    if (got[i].token != want[i].token) fail_msg("likely token %d of %d is %d, not %d", i, n, got[i].token, want[i].token);
    assert_true(got[i].logprob == want[i].logprob || fabsf(got[i].logprob - want[i].logprob) <= 1e-6f * fabsf(want[i].logprob));
  }
  float expect = sampler_logprob(logits, words, result->token), told = sampler_drawn_logprob(result);
  assert_true(told == expect || fabsf(told - expect) <= 1e-6f * fabsf(expect));
}

/* Draws of one position after the other, by the device and by the sampler of the engine, from the same rows: the same tokens.
 * Amounts of a device are whole numbers of 2^-40, so a draw differs only where its number falls so close to a border. */
static void compare_draws(const struct draws *d, struct sampler_options options, int n_likely) {
  static struct sampler_candidate desk[WORDS];
  struct sampler *a[ROWS], *b[ROWS];
  struct error error = ERROR_INIT;
  for (int row = 0; row < ROWS; row++, options.stream++) {
    a[row] = sampler_new(&options, d->words, d->turns, &error);
    b[row] = sampler_new(&options, d->words, d->turns, &error);
  }
  for (int turn = 0; turn < d->turns; turn++) {
    struct sample_draw draws[ROWS];
    static struct sample_result results[ROWS];
    for (int row = 0; row < ROWS; row++) {
      draws[row] = sampler_describe(b[row]);
      draws[row].row = row;
      if (row % 2) draws[row].n_likely = n_likely;
    }
    draws[4].row = 0; /* two from one row */
    assert_int_equal(d->backend->ops->sample(d->backend, (struct rows){d->at, STRIDE}, d->words, draws, ROWS, results, &error), 0);
    assert_int_equal(backend_wait(d->backend, &error), 0);
    for (int row = 0; row < ROWS; row++) {
      const float *logits = d->logits + (size_t)draws[row].row * STRIDE;
      int32_t want = sampler_draw(a[row], logits, desk), token = results[row].token;
      if (token != want)
        fail_msg("row %d turn %d, k %lld p %g min %g heat %g: token %d, not %d", row, turn, (long long)options.top_k, options.top_p,
                 options.min_p, options.temperature, token, want);
      assert_true(results[row].logit == logits[token]);
      if (draws[row].n_likely >= 0) compare_likely(logits, d->words, n_likely, &results[row]);
      sampler_take(b[row], token);
    }
  }
  for (int row = 0; row < ROWS; row++) sampler_free(a[row]), sampler_free(b[row]);
}

/* Rows of noise, of equals by halves, of one number, with both zeros and -inf, and noise again. */
static struct draws draws_open(int64_t words, int turns) {
  static float logits[ROWS * STRIDE];
  struct draws d = {must_open("cuda", 1), {NULL, 0}, logits, words, turns};
  fill(logits, ROWS * STRIDE, 40, 6);
  for (int i = 0; i < WORDS; i++) {
    logits[1 * STRIDE + i] = rintf(2 * logits[i]) / 2;
    logits[2 * STRIDE + i] = -3;
    logits[3 * STRIDE + i] = i % 3 ? -INFINITY : i % 2 ? 0.0f : -0.0f;
  }
  d.at = must_put(d.backend, logits, ROWS * STRIDE);
  return d;
}

static void draws_close(const struct draws *d) {
  drop(d->backend, d->at);
  backend_close(d->backend);
}

static void test_draws(void **state) {
  (void)state;
  static const struct { int64_t k; double p, min; } filters[] = {
      {0, 1, 0}, {1, 1, 0}, {7, 1, 0}, {300, 1, 0}, {FEW_WORDS, 1, 0}, {0, 0.9, 0}, {0, 0.3, 0}, {0, 0, 0}, {20, 0.8, 0},
      {300, 0.99, 0}, {699, 0.5, 0}, {0, 1, 0.1}, {0, 1, 1}, {0, 0.9, 0.02}, {50, 1, 0.001}, {50, 0.95, 0.3}};
  struct draws d = draws_open(FEW_WORDS, 12);
  for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
    for (int heat = 0; heat < 3; heat++)
      compare_draws(&d, (struct sampler_options){.temperature = heat, .top_k = filters[i].k, .top_p = filters[i].p,
                                                 .min_p = filters[i].min, .seed = 11 + heat, .stream = 2}, heat ? 5 * heat : -1);
  draws_close(&d);
}

/* Rows of several blocks: what one of them has goes together with what the others have. Among the filters are those that leave more
 * than one block takes from all (4,096), or is given by one (512). */
static void test_draws_from_long_rows(void **state) {
  (void)state;
  static const struct { int64_t k; double p, min, heat; } filters[] = {{0, 1, 0, 0}, {0, 1, 0, 1}, {40, 1, 0, 1}, {0, 0.9, 0, 1},
                                                                       {8000, 1, 0, 1}, {0, 0.999, 0, 30}, {600, 0.9, 0.1, 2}};
  struct draws d = draws_open(WORDS, 4);
  for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
    compare_draws(&d, (struct sampler_options){.temperature = filters[i].heat, .top_k = filters[i].k, .top_p = filters[i].p,
                                               .min_p = filters[i].min, .seed = 5}, i % 2 ? 20 : 0);
  draws_close(&d);
}

/* More blocks than one has threads to look at their sums. */
static void test_draws_from_the_longest_rows(void **state) {
  (void)state;
  enum { LONG = 4096 * 260 + 5 };
  struct backend *backend = must_open("cuda", 1);
  struct error error = ERROR_INIT;
  float *logits = malloc(LONG * sizeof *logits);
  struct sampler_candidate *desk = malloc(LONG * sizeof *desk);
  fill(logits, LONG, 41, 2);
  struct span at = must_put(backend, logits, LONG);
  for (int kind = 0; kind < 2; kind++) {
    struct sampler_options options = {.temperature = 1, .top_p = 1, .top_k = kind ? 50 : 0, .seed = 6};
    struct sampler *a = sampler_new(&options, LONG, 6, &error), *b = sampler_new(&options, LONG, 6, &error);
    for (int turn = 0; turn < 6; turn++) {
      static struct sample_result result;
      struct sample_draw draw = sampler_describe(b);
      assert_int_equal(backend->ops->sample(backend, (struct rows){at, LONG}, LONG, &draw, 1, &result, &error), 0);
      assert_int_equal(backend_wait(backend, &error), 0);
      assert_int_equal(result.token, sampler_draw(a, logits, desk));
      sampler_take(b, result.token);
    }
    sampler_free(a);
    sampler_free(b);
  }
  free(desk);
  free(logits);
  drop(backend, at);
  backend_close(backend);
}

/* What was drawn before counts against itself, and biases lie on top of that, on the likeliest tokens of some rows. */
static void test_draws_with_changed_logits(void **state) {
  (void)state;
  static const struct sampler_bias bias[] = {{3, 4.5f}, {0, -100}, {5000, 30}, {WORDS - 1, 29.75f}, {17, 0.125f}};
  struct draws d = draws_open(WORDS, 8);
  struct sampler_options options = {.temperature = 0, .top_p = 1, .frequency_penalty = 0.75, .presence_penalty = 0.5, .seed = 3};
  compare_draws(&d, options, 4);
  options.bias = bias;
  options.n_bias = sizeof bias / sizeof *bias;
  compare_draws(&d, options, 4);
  options.temperature = 0.8;
  compare_draws(&d, options, 64);
  options.top_p = 0.95;
  options.presence_penalty = -1;
  compare_draws(&d, options, 1);
  options.frequency_penalty = options.presence_penalty = 0;
  compare_draws(&d, options, -1);
  draws_close(&d);
}

/* More than one launch takes, from few rows. */
static void test_many_draws(void **state) {
  (void)state;
  enum { MANY = 100 };
  struct draws d = draws_open(FEW_WORDS, 1);
  struct error error = ERROR_INIT;
  static struct sample_draw draws[MANY];
  static struct sample_result results[MANY];
  static const struct sample_change push[] = {{6, 1000}, {7, 1001}};
  for (int i = 0; i < MANY; i++)
    draws[i] = (struct sample_draw){.row = i % ROWS, .temperature = i % 3, .top_p = 1, .unit = 0.5, .n_likely = -1,
                                    .biases = push + i % 2, .n_biases = i % 5 == 0};
  assert_int_equal(d.backend->ops->sample(d.backend, (struct rows){d.at, STRIDE}, FEW_WORDS, draws, MANY, results, &error), 0);
  assert_int_equal(backend_wait(d.backend, &error), 0);
  for (int i = 0; i < MANY; i++)
    if (i % 5 == 0)
      assert_int_equal(results[i].token, 6 + i % 2);
    else if (i >= 15)
      assert_int_equal(results[i].token, results[i - 15].token); /* of the same row, heat and number */
  draws_close(&d);
}

/* ---- errors ---------------------------------------------------------------------------------------------------------- */

/* Every call of a step may fail: each time the run says so, and when the device is well again, so are the answers. */
static void test_every_call_may_fail(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  float plain[3 * 61], again[3 * 61];
  struct step_slot slots[3] = {{{0, 1}, 3, 0, 2}, {{1, 2}, 4, 0, 2}, {{2, 3}, 5, 0, 2}};
  world_step(world, slots, 3);
  world_run(world);
  must_read(world->backend, plain, world->logits, 3 * 61);
  long failures = 0;
  for (long calls = 0; calls < 200; calls++) {
    struct error error = ERROR_INIT;
    emulated.order(calls, 1); /* an invalid value: the device goes on */
    int failed = world->backend->ops->run(world->backend, world->list, world->count, &world->step, &error);
    if (backend_wait(world->backend, failed ? NULL : &error) != 0) failed = -1;
    emulated.order(0, 0);
    if (failed) assert_int_equal(error.code, ERROR_DEVICE);
    failures += failed != 0;
  }
  assert_true(failures >= 5); /* a replayed step is few calls; the first ones are dozens */
  world_run(world);
  must_read(world->backend, again, world->logits, 3 * 61);
  same_bits("after failures", again, plain, 3 * 61);
  world_free(world);
}

/* A kernel that reads what it may not makes every later call fail: the backend says so at once and asks no more. */
static void test_a_lost_device(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  struct error error = ERROR_INIT, later = ERROR_INIT, read = ERROR_INIT;
  float x;
  world_step(world, (struct step_slot[]){{{0, 2}, 0, 0, 2}}, 1);
  emulated.order(6, ILLEGAL_ADDRESS);
  assert_int_equal(world->backend->ops->run(world->backend, world->list, world->count, &world->step, &error), -1);
  assert_int_equal(error.code, ERROR_DEVICE);
  assert_non_null(strstr(error.text, "started again"));
  emulated.order(0, 0); /* a real one does not come back; it must not be asked either */
  long calls = count(CALLS);
  assert_int_equal(world->backend->ops->run(world->backend, world->list, world->count, &world->step, &later), -1);
  assert_int_equal(later.code, ERROR_DEVICE);
  assert_int_equal(world->backend->ops->read(world->backend, &x, world->logits, 4, &read), -1);
  assert_int_equal(read.code, ERROR_DEVICE);
  assert_int_equal(count(CALLS), calls);
  world_free(world);
}

static void test_too_little_memory(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct backend *backend = must_open("cuda", 1);
  struct error error = ERROR_INIT;
  struct memory *memory = NULL;
  emulated.capacity(((size_t)100 << 20) + (size_t)count(BYTES));
  assert_int_equal(backend->ops->alloc(backend, (size_t)300 << 20, &memory, &error), -1);
  assert_int_equal(error.code, ERROR_MEMORY);
  assert_non_null(strstr(error.text, "no room for 300 MiB: 100 of"));
  emulated.capacity((size_t)4 << 30);
  assert_int_equal(backend->ops->alloc(backend, (size_t)300 << 20, &memory, NULL), 0); /* it goes on */
  backend->ops->free(backend, memory);
  backend_close(backend);
}

/* Nothing of a backend that is closed stays behind, whatever it has done. */
static void test_nothing_is_left(void **state) {
  (void)state;
  if (!emulated.order) skip();
  assert_int_equal(count(BYTES), 0);
}

static void test_names(void **state) {
  (void)state;
  static const char *const wrong[] = {"cuda:", "cuda:x", "cuda:-1", "cuda:0+", "cuda+fast", "cuda:99", "cuda+serial+"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct error error = ERROR_INIT;
    assert_null(backend_open(wrong[i], 1, &error));
    assert_int_equal(error.code, ERROR_ARGUMENT);
  }
  struct backend *backend = must_open("auto", 1);
  assert_string_equal(backend->ops->name, "cuda:0");
  backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_names),          cmocka_unit_test(test_products), cmocka_unit_test(test_shapes_of_products),
      cmocka_unit_test(test_gates),
      cmocka_unit_test(test_kept_types),     cmocka_unit_test(test_prompts), cmocka_unit_test(test_beyond_f16),
      cmocka_unit_test(test_repeated_steps), cmocka_unit_test(test_overlaps),
      cmocka_unit_test(test_many_kinds_of_steps), cmocka_unit_test(test_every_call_may_fail),
      cmocka_unit_test(test_one_wait),       cmocka_unit_test(test_draws),
      cmocka_unit_test(test_draws_from_long_rows), cmocka_unit_test(test_draws_from_the_longest_rows),
      cmocka_unit_test(test_draws_with_changed_logits),
      cmocka_unit_test(test_many_draws),
      cmocka_unit_test(test_a_lost_device),  cmocka_unit_test(test_too_little_memory),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_emulator() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
