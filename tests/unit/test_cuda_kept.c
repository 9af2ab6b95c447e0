/* Keys and values as the CUDA backend keeps them, and attention that reads them, of one row and of prompts, against sums in double.
 * Needs a library (STEERD_CUDA_LIBRARY), emulated or real. */
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

struct heads {
  int n, kv, d, window;
  float soft_cap;
};
enum { TEXT = 150, TEXTS = 4, TEXT_BLOCKS = 3, WIDEST_HEAD = 520 };

static int qkv_width(const struct heads *h) { return (h->n + 2 * h->kv) * h->d; }

/* Rows of a step, all its rows, have their weights of positions [from, to) of one head multiplied. */
struct scaled {
  int head, from, to;
  float by;
};

/* Texts of up to TEXT positions, attended to in steps of rows [from, to) of each; the pool is full of NaN. */
struct texts {
  const struct scaled *scaled; /* NULL: none */
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

/* Runs a step of one text with weights multiplied, positions [.., keys). */
static int run_scaled(struct texts *t, struct step *step, int32_t keys) {
  const struct scaled *s = t->scaled;
  struct op list[2] = {t->op, t->op};
  int32_t begin[2 * SITE_COUNT + 1];
  struct edit_item edit = {.kind = EDIT_ROW_SCALE, .rows = {0, step->n_rows}, .column_begin = s->head * keys + s->from,
                           .column_end = s->head * keys + s->to, .value = s->by};
  assert_true(point_count(1) < 2 * SITE_COUNT + 1);
  for (int p = 0; p <= point_count(1); p++) begin[p] = p > point_index((struct point){0, SITE_PATTERN});
  list[1].code = OP_PATTERN;
  step->keys = &keys;
  step->edits = &edit;
  step->edit_begin = begin;
  return t->backend->ops->run(t->backend, list, 2, step, NULL);
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
  assert_int_equal(t->scaled ? run_scaled(t, &step, range[0][1]) : t->backend->ops->run(t->backend, &t->op, 1, &step, NULL), 0);
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
    if (t->scaled && head == t->scaled->head && j >= t->scaled->from && j < t->scaled->to) weight *= t->scaled->by;
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

/* Values of KV head 0, element 3, that are no finite numbers (an edit can make them): rows that see one get no finite number there, and
 * all else has the bits that it has without them. Some rows of a tile see them and others not yet, or no more. */
static void check_odd_values(struct backend *backend, const struct heads *heads, enum dtype type) {
  static const struct { int position; float value; } odd[] = {{20, INFINITY}, {45, NAN}, {70, -INFINITY}, {109, NAN}, {130, NAN}};
  int width = heads->n * heads->d, group = heads->n / heads->kv;
  float *clean = malloc((size_t)(TEXT * width) * sizeof *clean);
  struct texts t;
  texts_open(&t, backend, *heads, type);
  for (int turn = 0; turn < 2; turn++) {
    for (size_t i = 0; turn && i < sizeof odd / sizeof *odd; i++)
      t.qkv[odd[i].position * qkv_width(heads) + width + heads->kv * heads->d + 3] = type == DTYPE_F16 ? NAN : odd[i].value; /* f16 keeps no infinity */
    texts_step(&t, (const int[TEXTS][2]){{0, 110}});
    texts_step(&t, (const int[TEXTS][2]){{110, TEXT}, {0, 35}});
    if (!turn) memcpy(clean, t.z, (size_t)(TEXT * width) * sizeof *clean);
  }
  for (int row = 0; row < TEXT; row++)
    for (int i = 0; i < width; i++) {
      bool sees = false;
      for (size_t k = 0; k < sizeof odd / sizeof *odd; k++)
        sees |= odd[k].position <= row && (!heads->window || odd[k].position > row - heads->window);
      sees = sees && i / heads->d < group && i % heads->d == 3;
      float got = t.z[row * width + i], was = clean[row * width + i];
      if (sees ? isfinite(got) : memcmp(&got, &was, sizeof got) != 0)
        fail_msg("%s, heads of %d: row %d element %d: %.9g, was %.9g", dtype_name(type), heads->d, row, i, got, was);
    }
  texts_close(&t);
  free(clean);
}

static void test_odd_values(void **state) {
  (void)state;
  static const struct heads heads[] = {{4, 1, 64, 0, 0}, {4, 2, 24, 15, 0}, {2, 2, 128, 70, 0}, {2, 1, 200, 40, 30}};
  struct backend *backend = must_open("cuda", 1);
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
    for (int half = 0; half < 2; half++) check_odd_values(backend, &heads[i], half ? DTYPE_F16 : DTYPE_BF16);
  backend_close(backend);
}

/* Weights that are edited and summed again: narrow heads share their positions out to threads, wide ones are taken in turns. */
static void test_edited_patterns(void **state) {
  (void)state;
  static const struct heads heads[] = {{2, 1, 8, 0, 0}, {3, 3, 140, 30, 0}, {2, 1, 300, 0, 0}, {1, 1, WIDEST_HEAD, 90, 20}};
  static const struct scaled scaled = {.head = 0, .from = 95, .to = 111, .by = -3};
  struct backend *backend = must_open("cuda+deterministic", 1);
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    struct texts t;
    texts_open(&t, backend, heads[i], DTYPE_F32);
    texts_step(&t, (const int[TEXTS][2]){{0, 110}});
    t.scaled = &scaled;
    texts_step(&t, (const int[TEXTS][2]){{110, 113}});
    /* As of kept types: exact but for sums in f32; weights are multiplied by 3 and rounded once more. */
    check_text(&t, 0, DTYPE_F32, (struct slack){3 * 0x1p-20, 0, 3 * 0x1p-20}, 110, 113);
    texts_close(&t);
  }
  backend_close(backend);
}

/* One row that sees more chunks than are brought together at a time; keys and values are put where they lie (cache.cuh), in f32: of one head
 * of 4, keys [64][4], then values [16][4][4]. */
static void test_long_row(void **state) {
  (void)state;
  enum { W = 4, AT = 4500, BLOCKS = AT / KV_BLOCK + 1, BLOCK = 2 * KV_BLOCK * W };
  static float pool[BLOCKS * BLOCK], qkv[3 * W];
  static int32_t table[BLOCKS];
  struct backend *backend = must_open("cuda+deterministic", 1);
  assert_int_equal(backend->ops->kv_block_bytes(backend, 1, W, DTYPE_F32), BLOCK * sizeof(float));
  fill(pool, BLOCKS * BLOCK, 71, 2);
  fill(qkv, 3 * W, 72, 2);
  for (int i = 0; i < BLOCKS; i++) table[i] = i * 7 % BLOCKS;
  struct span kv = must_put(backend, pool, BLOCKS * BLOCK), from = must_put(backend, qkv, 3 * W), to = must_alloc(backend, W);
  struct op op = {.code = OP_ATTEND, .set = ROWS_ACTIVE, .width = W};
  op.u.attend.qkv = (struct rows){from, 3 * W};
  op.u.attend.z = (struct rows){to, W};
  op.u.attend.k = W, op.u.attend.v = 2 * W;
  op.u.attend.n_head = op.u.attend.n_kv_head = 1;
  op.u.attend.d_head = W;
  op.u.attend.scale = 1;
  op.u.attend.kv = DTYPE_F32;
  struct step_slot slot = {{0, 1}, AT, 0, 1};
  struct row_range all[2] = {{0, 1}, {0, 1}};
  struct step step = {.n_layer = 1, .n_rows = 1, .n_slots = 1, .slots = &slot, .active = all, .arriving = all, .kv = kv, .kv_table = table, .kv_blocks = BLOCKS};
  assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  float z[W];
  must_read(backend, z, to, W);
  double sums[W] = {0}, total = 0;
  for (int j = 0; j <= AT; j++) {
    const float *block = pool + table[j / KV_BLOCK] * BLOCK, *key = j == AT ? qkv + W : block + j % KV_BLOCK * W;
    double score = 0;
    int p = j % KV_BLOCK;
    for (int i = 0; i < W; i++) score += (double)qkv[i] * key[i];
    total += exp(score);
    for (int i = 0; i < W; i++) sums[i] += exp(score) * (j == AT ? qkv[2 * W + i] : block[KV_BLOCK * W + p / 4 * 16 + i * 4 + p % 4]);
  }
  /* Values below 2; sums of 128 terms of a chunk and then 36, each of both rounded by 2^-24, and exponentials of scores up to 16. */
  for (int i = 0; i < W; i++)
    if (!(fabs(z[i] - sums[i] / total) < 2 * (2 * 164 + 16 * 4) * 0x1p-24)) fail_msg("element %d: %.9g, not %.9g", i, z[i], sums[i] / total);
  drop(backend, kv);
  drop(backend, from);
  drop(backend, to);
  backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kept_types),
      cmocka_unit_test(test_edited_patterns),
      cmocka_unit_test(test_long_row),
      cmocka_unit_test(test_prompts),
      cmocka_unit_test(test_beyond_f16),
      cmocka_unit_test(test_odd_values),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
