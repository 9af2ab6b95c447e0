/* The way back through every op that has one, on every backend: against differences of the way there, which knows nothing of it, and
 * against ref. What an op wrote has no cotangent left; what it read keeps what was there and gets its share on top.
 *
 * A trial has a copy of its backend's memory, which is sent before and fetched behind what runs there. */
#include "tests/unit/ops_world.h"

#define BANK ((size_t)1 << 18) /* floats */
#define STEP 0x1p-7f           /* of a difference: its square is what a curved function is off by */
/* Differences: outputs are rounded to 2^-24 of numbers below 10, a few hundred of which are added up and divided by 2^-6. Slopes:
 * STEP^2 times a third derivative below 10. Both are below 1e-3. */
#define DIFFERENCE 1e-3
/* Beside ref, which sums in double: f32 chains of at most some hundred terms below 10, and exponents of scores. */
#define ROUNDING 3e-5

enum { MOST_PIECES = 4, PROBES = 30 };

struct piece {
  struct rows at;
  int64_t width;
};

/* One op, what it reads and what it writes. */
struct trial {
  struct backend *backend;
  struct memory *values, *cotangents;
  float *value, *cotangent; /* [BANK] copies */
  size_t used; /* floats of the bank */
  struct op op;
  struct step step;
  struct vjp vjp;
  struct vjp zeros; /* cotangents that are 0, as in a vjp's hints */
  struct piece in[MOST_PIECES], out[MOST_PIECES];
  int n_in, n_out;
  int32_t rows, n_ctx;
  int32_t position[MAX_ROWS], logit_row[MAX_ROWS], token[MAX_ROWS];
  uint8_t origin[MAX_ROWS];
  struct step_slot slot[2];
  struct row_range active[2], arriving[2];
  int32_t kv_table[2 * KV_BLOCKS], edit_begin[2 * SITE_COUNT + 1];
  struct span spans[8];
  struct matrix *matrix;
  struct file file[2];
  int n_spans, n_files;
};

static void trial_open(struct trial *t, const char *backend, int32_t rows) {
  memset(t, 0, sizeof *t);
  t->backend = must_open(backend, 3);
  t->rows = rows;
  t->values = must_alloc(t->backend, BANK).memory;
  t->cotangents = must_alloc(t->backend, BANK).memory;
  t->value = calloc(BANK, sizeof *t->value);
  t->cotangent = calloc(BANK, sizeof *t->cotangent);
  t->vjp = (struct vjp){.values = t->values, .cotangents = t->cotangents};
  for (int32_t i = 0; i < rows; i++) {
    t->position[i] = i;
    t->logit_row[i] = (i * 2) % rows;
  }
  t->active[0] = t->arriving[0] = t->active[1] = t->arriving[1] = (struct row_range){0, rows};
  t->slot[0] = (struct step_slot){{0, rows}, 0, 0, 1};
  t->step = (struct step){.n_layer = 1, .n_rows = rows, .token = t->token, .position = t->position, .origin = t->origin, .n_slots = 1,
                          .slots = t->slot, .active = t->active, .arriving = t->arriving, .kv_table = t->kv_table,
                          .kv_blocks = KV_BLOCKS, .n_logit_rows = rows, .logit_row = t->logit_row};
  for (int i = 0; i < 2 * KV_BLOCKS; i++) t->kv_table[i] = i;
  t->op = (struct op){.set = ROWS_ACTIVE};
}

static void trial_close(struct trial *t) {
  struct backend *b = t->backend;
  for (int i = 0; i < t->n_spans; i++) drop(b, t->spans[i]);
  b->ops->matrix_free(b, t->matrix);
  for (int i = 0; i < t->n_files; i++) free(t->file[i].block);
  b->ops->free(b, t->values);
  b->ops->free(b, t->cotangents);
  free(t->value);
  free(t->cotangent);
  backend_close(b);
}

/* Rows of the bank; a few floats lie between one and the next. */
static struct rows place(struct trial *t, int64_t width) {
  struct rows rows = {{t->values, t->used * sizeof(float)}, width + 3};
  t->used += (size_t)t->rows * (size_t)(width + 3) + 5;
  assert_true(t->used <= BANK);
  return rows;
}

static struct rows reads(struct trial *t, struct rows at, int64_t width) {
  t->in[t->n_in++] = (struct piece){at, width};
  return at;
}
static struct rows writes(struct trial *t, struct rows at, int64_t width) {
  t->out[t->n_out++] = (struct piece){at, width};
  return at;
}

static struct span keep(struct trial *t, size_t floats, uint64_t stream, float scale) {
  return t->spans[t->n_spans++] = put_noise(t->backend, floats, stream, scale);
}

static size_t float_at(struct rows rows, int64_t row, int64_t i) { return rows.at.offset / sizeof(float) + (size_t)(row * rows.ld + i); }
static float *value_at(const struct trial *t, const struct piece *piece, int64_t row, int64_t i) { return t->value + float_at(piece->at, row, i); }
static float *cotangent_at(const struct trial *t, const struct piece *piece, int64_t row, int64_t i) {
  return t->cotangent + float_at(piece->at, row, i);
}

static void send(struct trial *t, struct memory *to, const float *from) {
  assert_int_equal(t->backend->ops->write(t->backend, (struct span){to, 0}, from, t->used * sizeof *from, NULL), 0);
}
static void fetch(struct trial *t, struct memory *from, float *to) { must_read(t->backend, to, (struct span){from, 0}, t->used); }

static float loss_weight(int piece, int64_t row, int64_t i) { return noise((uint64_t)(100 + piece), (uint64_t)(row * 1000 + i)); }

/* The sum of what the op writes, with a weight each. */
static double loss(struct trial *t) {
  double sum = 0;
  send(t, t->values, t->value);
  assert_int_equal(t->backend->ops->run(t->backend, &t->op, 1, &t->step, NULL), 0);
  fetch(t, t->values, t->value);
  for (int p = 0; p < t->n_out; p++)
    for (int32_t row = 0; row < t->rows; row++)
      for (int64_t i = 0; i < t->out[p].width; i++) sum += (double)loss_weight(p, row, i) * *value_at(t, &t->out[p], row, i);
  return sum;
}

/* Values of all pieces that are read, to be set again before each run: some ops work in place. */
static float *save(const struct trial *t) {
  float *all = malloc(BANK * sizeof *all);
  memcpy(all, t->value, BANK * sizeof *all);
  return all;
}
static void restore(struct trial *t, const float *all) { memcpy(t->value, all, BANK * sizeof *all); }

static bool in_place(const struct trial *t, const struct piece *out) {
  for (int p = 0; p < t->n_in; p++)
    if (t->in[p].at.at.offset == out->at.at.offset) return true;
  return false;
}

static bool is_zero(const struct trial *t, int32_t row, int64_t i) {
  bool absent = row < t->active[0].begin || row >= t->active[0].end;
  return absent || i < t->zeros.outputs_from || (t->zeros.period && row % t->zeros.period >= t->zeros.used);
}

/* Cotangents: those of what is written are the weights of the loss, all others something that was there. */
static void seed(struct trial *t) {
  fill(t->cotangent, t->used, 77, 1);
  for (int p = 0; p < t->n_out; p++)
    for (int32_t row = 0; row < t->rows; row++)
      for (int64_t i = 0; i < t->out[p].width; i++) *cotangent_at(t, &t->out[p], row, i) = is_zero(t, row, i) ? 0 : loss_weight(p, row, i);
  send(t, t->cotangents, t->cotangent);
}

/* The op, there: the copy has what stood before. */
static void go_back(struct trial *t) {
  struct error error = ERROR_INIT;
  if (t->backend->ops->vjp(t->backend, &t->op, &t->step, &t->vjp, &error) != 0) fail_msg("%s", error.text);
}

static double difference(struct trial *t, const float *was, const struct piece *in, int64_t row, int64_t i) {
  double side[2];
  for (int k = 0; k < 2; k++) {
    restore(t, was);
    *value_at(t, in, row, i) += k ? STEP : -STEP;
    side[k] = loss(t);
  }
  restore(t, was);
  return (side[1] - side[0]) / (2.0 * (double)STEP);
}

/* What the way back adds to the cotangents of everything that is read: [rows][width] of each piece in turn. */
static float *way_back(struct trial *t, const float *was, size_t *n) {
  restore(t, was);
  loss(t);
  seed(t);
  float *before = malloc(BANK * sizeof *before), *out = malloc(BANK * sizeof *out);
  memcpy(before, t->cotangent, BANK * sizeof *before);
  go_back(t);
  fetch(t, t->cotangents, t->cotangent);
  *n = 0;
  for (int p = 0; p < t->n_in; p++) {
    bool place = false;
    for (int o = 0; o < t->n_out; o++) place |= t->out[o].at.at.offset == t->in[p].at.at.offset;
    for (int32_t row = 0; row < t->rows; row++)
      for (int64_t i = 0; i < t->in[p].width; i++) {
        size_t at = float_at(t->in[p].at, row, i);
        out[(*n)++] = t->cotangent[at] - (place ? 0 : before[at]);
      }
  }
  for (int o = 0; o < t->n_out; o++)
    for (int32_t row = 0; row < t->rows && !in_place(t, &t->out[o]); row++)
      for (int64_t i = 0; i < t->out[o].width; i++) assert_true(*cotangent_at(t, &t->out[o], row, i) == 0);
  free(before);
  restore(t, was);
  return out;
}

static double rms(const float *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
  return sqrt(sum / (double)(n ? n : 1));
}

/* One element of what is read, told by its number among all. */
static void probe(struct trial *t, const char *what, const float *was, const float *got, size_t at, double limit) {
  size_t rest = at;
  int p = 0;
  while (rest >= (size_t)t->rows * (size_t)t->in[p].width) rest -= (size_t)t->rows * (size_t)t->in[p++].width;
  int64_t row = (int64_t)(rest / (size_t)t->in[p].width), i = (int64_t)(rest % (size_t)t->in[p].width);
  double want = difference(t, was, &t->in[p], row, i);
  if (!(fabs(got[at] - want) <= limit))
    fail_msg("%s on %s: piece %d, row %d, column %d: %.7g, a difference gives %.7g (allowed %.2g)", what, t->backend->ops->name, p,
             (int)row, (int)i, (double)got[at], want, limit);
}

static void check_differences(struct trial *t, const char *what) {
  size_t n;
  float *was = save(t), *got = way_back(t, was, &n);
  double limit = DIFFERENCE * fmax(1, rms(got, n));
  for (uint64_t k = 0; k < PROBES; k++) probe(t, what, was, got, (size_t)(random_unit(3, 9, k) * (double)n), limit);
  free(was);
  free(got);
}

/* make: fills a trial's op, step and pieces; the same numbers on every backend. */
typedef void maker(struct trial *t, int variant);

static const char *backends[4];
static int n_backends;

static void check(const char *what, maker *make, int variants, int32_t rows, bool differences) {
  for (int v = 0; v < variants; v++) {
    float *first = NULL;
    size_t n_first = 0;
    for (int b = 0; b < n_backends; b++) {
      struct trial t;
      char name[80];
      snprintf(name, sizeof name, "%s, variant %d, %d rows", what, v, (int)rows);
      trial_open(&t, backends[b], rows);
      make(&t, v);
      if (differences) check_differences(&t, name);
      size_t n;
      float *was = save(&t), *got = way_back(&t, was, &n);
      if (first) {
        assert_int_equal(n, n_first);
        close_to(name, got, first, n, ROUNDING * fmax(1, rms(first, n)));
        free(got);
      } else {
        first = got;
        n_first = n;
      }
      free(was);
      trial_close(&t);
    }
    free(first);
  }
}

static void fill_pieces(struct trial *t, float scale) {
  for (int p = 0; p < t->n_in; p++)
    for (int32_t row = 0; row < t->rows; row++)
      for (int64_t i = 0; i < t->in[p].width; i++) {
        float x = scale * noise((uint64_t)(20 + p), (uint64_t)(row * 2000 + i));
        *value_at(t, &t->in[p], row, i) = x + (x < 0 ? -2 * STEP : 2 * STEP); /* not within a step of a kink at 0 */
      }
}

/* ---- products, gates, norms ---- */

static void make_linear(struct trial *t, int variant) {
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  struct matrix_part parts[2];
  enum dtype dtype = dtypes[variant % 3];
  int n_in = variant < 3 ? 53 : variant < 6 ? 160 : 1000, n_out = variant < 3 ? 30 : variant < 6 ? 300 : 4500;
  for (int i = 0; i < 2; i++) {
    t->file[i] = file_new(dtype, i ? ROWS_ARE_INPUTS : ROWS_ARE_OUTPUTS, i ? 7 : n_out, n_in, (uint64_t)(40 + i), 0.3f);
    parts[i] = t->file[i].part;
  }
  t->n_files = 2;
  t->matrix = must_matrix(t->backend, parts, 2, n_in);
  t->op.code = OP_LINEAR;
  t->op.u.linear.w = t->matrix;
  t->op.u.linear.x = reads(t, place(t, n_in), n_in);
  t->op.u.linear.y = writes(t, place(t, n_out + 7), n_out + 7);
  t->op.u.linear.bias = keep(t, (size_t)n_out + 7, 50, 1);
  fill_pieces(t, 1);
}

/* More weights than a device widens at a time. */
static void make_large_linear(struct trial *t, int variant) { make_linear(t, 7 + variant); }

static void make_gate(struct trial *t, int variant) {
  t->op.code = OP_GATE;
  t->op.width = 37;
  t->op.u.gate.act = (enum activation)(variant / 2);
  t->op.u.gate.x = reads(t, place(t, 37), 37);
  if (variant % 2) t->op.u.gate.up = reads(t, place(t, 37), 37);
  t->op.u.gate.y = writes(t, place(t, 37), 37);
  fill_pieces(t, 3);
}

static void make_norm(struct trial *t, int variant) {
  int parts = variant % 2 ? 3 : 1, width = variant % 2 ? 9 : 37;
  t->op.code = OP_NORM;
  t->op.width = width;
  t->op.u.norm.norm = (struct norm){.kind = (enum norm_kind)(variant / 2 % 3), .eps = 1e-2f};
  if (variant >= 6) t->op.u.norm.norm.gain = keep(t, (size_t)width, 51, 1);
  if (variant >= 6) t->op.u.norm.norm.bias = keep(t, (size_t)width, 52, 1);
  t->op.u.norm.parts = parts;
  t->op.u.norm.x = reads(t, place(t, parts * width), parts * width);
  t->op.u.norm.y = writes(t, place(t, parts * width), parts * width);
  fill_pieces(t, 2);
  for (int32_t row = 0; row < t->rows; row++)
    for (int64_t i = 0; i < t->in[0].width; i++) *value_at(t, &t->in[0], row, i) += 0.5f; /* a mean */
}

static void make_norm_piece(struct trial *t, int variant) {
  static const enum op_code codes[] = {OP_NORM_SCALE, OP_NORMALIZE, OP_GAIN};
  enum { WIDTH = 11, PARTS = 2 };
  t->op.code = codes[variant / 2];
  t->op.width = WIDTH;
  t->op.u.norm.norm = (struct norm){.kind = variant % 2 ? NORM_RMS : NORM_LAYER, .eps = 1e-2f};
  t->op.u.norm.norm.gain = keep(t, WIDTH, 51, 1);
  t->op.u.norm.parts = PARTS;
  t->op.u.norm.x = reads(t, place(t, PARTS * WIDTH), PARTS * WIDTH);
  t->op.u.norm.scale = place(t, PARTS);
  t->op.u.norm.y = place(t, PARTS * WIDTH);
  if (t->op.code == OP_NORM_SCALE) writes(t, t->op.u.norm.scale, PARTS);
  if (t->op.code == OP_NORMALIZE) reads(t, t->op.u.norm.scale, PARTS);
  if (t->op.code != OP_NORM_SCALE) writes(t, t->op.u.norm.y, PARTS * WIDTH);
  fill_pieces(t, 1);
  for (int32_t row = 0; row < t->rows && t->op.code == OP_NORMALIZE; row++)
    for (int i = 0; i < PARTS; i++) *value_at(t, &t->in[1], row, i) += 2; /* a divisor */
}

static void test_products(void **state) {
  (void)state;
  check("product", make_linear, 3, 5, true);
  check("product", make_linear, 6, 1, true);
  check("product", make_linear, 6, 200, false);
  check("large product", make_large_linear, 2, 2, false);
}
static void test_gates(void **state) {
  (void)state;
  check("gate", make_gate, 10, 5, true);
}
static void test_norms(void **state) {
  (void)state;
  check("norm", make_norm, 12, 4, true);
  check("piece of a norm", make_norm_piece, 6, 4, true);
}

/* With what it divides by held, a norm is linear: twice the input less its mean is twice the output. */
static void make_held_norm(struct trial *t, int variant) {
  make_norm(t, 6 + 2 * (1 + variant));
  t->vjp.hold_norms = true;
}

static void test_held_norms(void **state) {
  (void)state;
  for (int v = 0; v < 2; v++)
    for (int b = 0; b < n_backends; b++) {
      struct trial t;
      size_t n, width = 37;
      trial_open(&t, backends[b], 3);
      make_held_norm(&t, v);
      float *was = save(&t), *got = way_back(&t, was, &n), gain[37];
      must_read(t.backend, gain, t.op.u.norm.norm.gain, width);
      for (int32_t row = 0; row < t.rows; row++) {
        const float *x = value_at(&t, &t.in[0], row, 0);
        double middle = 0, square = 0, mean = 0;
        bool centred = t.op.u.norm.norm.kind == NORM_LAYER;
        for (size_t i = 0; i < width; i++) {
          middle += centred ? x[i] / (double)width : 0;
          mean += centred ? (double)loss_weight(0, row, (int64_t)i) * gain[i] / (double)width : 0;
        }
        for (size_t i = 0; i < width; i++) square += (x[i] - middle) * (x[i] - middle) / (double)width;
        for (size_t i = 0; i < width; i++)
          assert_float_equal(got[(size_t)row * width + i],
                             ((double)loss_weight(0, row, (int64_t)i) * gain[i] - mean) / sqrt(square + (double)1e-2f), ROUNDING);
      }
      free(was);
      free(got);
      trial_close(&t);
    }
  check("norm held", make_held_norm, 2, 4, false);
}

/* ---- attention ---- */

/* Fewer heads of keys than of queries, across a border of blocks, with a window and a cap, or neither. */
static void make_heads(struct trial *t, int variant, int heads, int kv_heads, int d) {
  const int width = (heads + 2 * kv_heads) * d;
  t->op.code = OP_ATTEND;
  t->op.width = heads * d;
  t->op.u.attend.qkv = reads(t, place(t, width), width);
  t->op.u.attend.z = writes(t, place(t, heads * d), heads * d);
  t->op.u.attend.bare = true;
  t->op.u.attend.k = heads * d;
  t->op.u.attend.v = (heads + kv_heads) * d;
  t->op.u.attend.n_head = heads;
  t->op.u.attend.n_kv_head = kv_heads;
  t->op.u.attend.d_head = d;
  t->op.u.attend.scale = 0.7f;
  t->op.u.attend.window = variant & 1 ? 5 : 0;
  t->op.u.attend.soft_cap = variant & 2 ? 1.5f : 0;
  size_t block = t->backend->ops->kv_block_bytes(t->backend, kv_heads, d, DTYPE_F32);
  t->step.kv = t->spans[t->n_spans++] = must_alloc(t->backend, block / sizeof(float) * KV_BLOCKS * 2);
  fill_pieces(t, 1.5f);
}

static void make_attend(struct trial *t, int variant) { make_heads(t, variant, 4, 2, 9); }

static void make_one_key_head(struct trial *t, int variant) { make_heads(t, variant, 3, 1, 7); }

/* More scores than a device has at a time. */
static void make_many_heads(struct trial *t, int variant) { make_heads(t, variant, 96, 8, 2); }

static void make_two_texts(struct trial *t, int variant) {
  make_attend(t, variant);
  int32_t half = t->rows / 2;
  t->slot[0].rows.end = half;
  t->slot[1] = (struct step_slot){{half, t->rows}, 0, 0, 1};
  for (int32_t row = half; row < t->rows; row++) t->position[row] = row - half;
  t->step.n_slots = 2;
}

static void make_held_pattern(struct trial *t, int variant) {
  make_attend(t, variant);
  t->vjp.hold_pattern = true;
}

static void test_attention(void **state) {
  (void)state;
  check("attention", make_attend, 4, 11, true);
  check("attention", make_attend, 4, 70, true);
  check("attention of two texts", make_two_texts, 4, 20, true);
  check("attention of one head of keys", make_one_key_head, 4, 20, true);
  check("attention of many heads", make_many_heads, 2, MAX_ROWS, false);
}

/* Values get what they get otherwise, queries and keys nothing. */
static void test_held_pattern(void **state) {
  (void)state;
  for (int b = 0; b < n_backends; b++) {
    struct trial t, whole;
    size_t n, values = 6 * 9, width = 8 * 9;
    trial_open(&t, backends[b], 9);
    trial_open(&whole, backends[b], 9);
    make_held_pattern(&t, 3);
    make_attend(&whole, 3);
    float *was = save(&t), *got = way_back(&t, was, &n), *want = way_back(&whole, was, &n);
    for (size_t i = 0; i < n; i++) assert_true(got[i] == (i % width < values ? 0 : want[i]));
    free(was);
    free(got);
    free(want);
    trial_close(&t);
    trial_close(&whole);
  }
  check("attention held", make_held_pattern, 4, 9, false);
}

/* Some rows at a time are all rows at once, but for the order of sums. */
static void check_pieces(const char *backend, int variant) {
  enum { ROWS = 30, EACH = 7 };
  struct trial t;
  size_t n;
  trial_open(&t, backend, ROWS);
  make_attend(&t, variant);
  float *was = save(&t), *whole = way_back(&t, was, &n);
  loss(&t);
  seed(&t);
  float *before = malloc(BANK * sizeof *before);
  memcpy(before, t.cotangent, BANK * sizeof *before);
  for (int32_t at = 0; at < ROWS; at += EACH) {
    int32_t end = at + EACH < ROWS ? at + EACH : ROWS;
    t.slot[0] = (struct step_slot){{at, end}, at, 0, 1};
    t.active[0] = (struct row_range){at, end};
    go_back(&t);
  }
  fetch(&t, t.cotangents, t.cotangent);
  for (int32_t row = 0, k = 0; row < ROWS; row++)
    for (int64_t i = 0; i < t.in[0].width; i++, k++) {
      size_t at = float_at(t.in[0].at, row, i);
      assert_float_equal(t.cotangent[at] - before[at], whole[k], ROUNDING);
    }
  free(before);
  free(was);
  free(whole);
  trial_close(&t);
}

static void test_pieces(void **state) {
  (void)state;
  for (int b = 0; b < n_backends; b++)
    for (int variant = 2; variant < 4; variant++) check_pieces(backends[b], variant);
}

/* ---- along rows ---- */

static void make_solu(struct trial *t, int variant) {
  (void)variant;
  t->op.code = OP_SOLU;
  t->op.width = 21;
  t->op.u.solu.x = reads(t, place(t, 21), 21);
  t->op.u.solu.y = writes(t, place(t, 21), 21);
  fill_pieces(t, 2);
}

static void make_place(struct trial *t, int variant) {
  (void)variant;
  t->op.code = OP_PLACE;
  t->op.width = 21;
  t->op.u.place.table = keep(t, 21 * (size_t)t->rows, 60, 1);
  t->op.u.place.x = reads(t, place(t, 21), 21);
  t->op.u.place.y = writes(t, place(t, 21), 21);
  fill_pieces(t, 2);
}

static void make_rotate(struct trial *t, int variant) {
  t->op.code = OP_ROTATE;
  t->op.width = 10;
  t->op.u.rotate.heads = 3;
  t->op.u.rotate.dims = 6;
  t->op.u.rotate.pairing = variant ? ROTARY_NEIGHBOURS : ROTARY_HALVES;
  t->op.u.rotate.table = keep(t, 6 * (size_t)t->rows, 61, 1);
  t->op.u.rotate.x = writes(t, reads(t, place(t, 30), 30), 30);
  fill_pieces(t, 2);
}

static void make_sublayer(struct trial *t, int variant) {
  (void)variant;
  t->op.code = OP_SUBLAYER;
  t->op.width = 21;
  t->op.u.sublayer.out = reads(t, place(t, 21), 21);
  t->op.u.sublayer.resid = writes(t, reads(t, place(t, 21), 21), 21);
  t->op.u.sublayer.norm.kind = NORM_NONE;
  fill_pieces(t, 2);
}

static void make_gather(struct trial *t, int variant) {
  static const enum op_code codes[] = {OP_GATHER, OP_COPY, OP_KEEP};
  t->op.code = codes[variant];
  t->op.set = codes[variant] == OP_GATHER ? ROWS_LOGIT : ROWS_ACTIVE;
  t->op.width = 21;
  t->op.u.gather.begin = 4;
  t->op.u.gather.end = 13;
  t->op.u.gather.x = reads(t, place(t, 21), 21);
  t->op.u.gather.y = writes(t, place(t, 21), 21);
  fill_pieces(t, 2);
}

static void make_cap(struct trial *t, int variant) {
  (void)variant;
  t->file[0] = file_new(DTYPE_F32, ROWS_ARE_OUTPUTS, 21, 4, 62, 1);
  t->n_files = 1;
  t->matrix = must_matrix(t->backend, &t->file[0].part, 1, 4);
  t->op.code = OP_CAP;
  t->op.u.linear.w = t->matrix;
  t->op.u.linear.soft_cap = 2;
  t->op.u.linear.y = writes(t, reads(t, place(t, 21), 21), 21);
  fill_pieces(t, 3);
}

static void make_begin(struct trial *t, int variant) {
  t->file[0] = file_new(DTYPE_F32, ROWS_ARE_OUTPUTS, 4, 21, 66, 1);
  t->n_files = 1;
  t->matrix = must_matrix(t->backend, &t->file[0].part, 1, 21);
  t->op.code = OP_BEGIN;
  t->op.u.begin.embed = t->matrix;
  t->op.width = 21;
  t->op.set = ROWS_ARRIVING;
  t->op.u.begin.embedded = reads(t, place(t, 21), 21);
  t->op.u.begin.placed = place(t, 21);
  if (variant) t->op.u.begin.positions = keep(t, 21, 63, 1);
  if (variant) reads(t, t->op.u.begin.placed, 21);
  t->op.u.begin.to = writes(t, place(t, 21), 21);
  fill_pieces(t, 2);
}

static void test_rows(void **state) {
  (void)state;
  check("solu", make_solu, 1, 4, true);
  check("place", make_place, 1, 4, true);
  check("rotate", make_rotate, 2, 4, true);
  check("sublayer", make_sublayer, 1, 4, true);
  check("gather, copy, keep", make_gather, 3, 4, true);
  check("cap", make_cap, 1, 4, true);
  check("begin", make_begin, 2, 4, true);
}

/* ---- edits ---- */

#define EDIT_WIDTH 21
static struct edit_item edits[10];

static void unit(struct trial *t, struct span span, size_t n) {
  float v[EDIT_WIDTH];
  must_read(t->backend, v, span, n);
  double length = rms(v, n) * sqrt((double)n);
  for (size_t i = 0; i < n; i++) v[i] = (float)(v[i] / length);
  t->backend->ops->write(t->backend, span, v, n * sizeof *v, NULL);
}

/* Each kind alone on some rows and columns, then all of them one behind the other. */
static void make_point(struct trial *t, int variant) {
  int kinds = EDIT_ROW_FEATURE_SCALE + 1, first = variant < kinds ? variant : 0, last = variant < kinds ? variant + 1 : kinds;
  struct span v = keep(t, EDIT_WIDTH * (size_t)t->rows, 64, 1), enc = keep(t, EDIT_WIDTH, 65, 1);
  unit(t, v, 15);
  int n = 0;
  for (int k = first; k < last; k++)
    if (variant < kinds || (k != EDIT_ROW_FILL && k != EDIT_ROW_COPY && k != EDIT_ROW_REPLACE)) /* these end everything */
      edits[n++] = (struct edit_item){.kind = (enum edit_kind)k, .rows = {1, t->rows}, .column_begin = 4, .column_end = 19,
                                      .value = k == EDIT_ROW_ADD ? 4.0f : k == EDIT_ROW_SCALE ? -1.5f : 0.3f, .v = v, .enc = enc, .bias = 0.2f,
                                      .threshold = 0.1f, .fold = 1.25f};
  for (int p = 0; p <= 2 * SITE_COUNT; p++) t->edit_begin[p] = p > (int)SITE_ATTN_OUT ? n : 0;
  t->step.edits = edits;
  t->step.edit_begin = t->edit_begin;
  t->op.code = OP_POINT;
  t->op.width = EDIT_WIDTH;
  t->op.u.point.site = SITE_ATTN_OUT;
  t->op.u.point.x = writes(t, reads(t, place(t, EDIT_WIDTH), EDIT_WIDTH), EDIT_WIDTH);
  t->op.u.point.before = place(t, EDIT_WIDTH);
  fill_pieces(t, 2);
  for (int32_t row = 0; row < t->rows; row++)
    memcpy(t->value + float_at(t->op.u.point.before, row, 0), t->value + float_at(t->op.u.point.x, row, 0), EDIT_WIDTH * sizeof(float));
}

static void make_delta(struct trial *t, int variant) {
  make_point(t, 0);
  (void)variant;
  t->n_in = t->n_out = 0;
  t->op.code = OP_DELTA;
  reads(t, t->op.u.point.x, EDIT_WIDTH);
  reads(t, t->op.u.point.before, EDIT_WIDTH);
  t->op.u.point.to = writes(t, reads(t, place(t, EDIT_WIDTH), EDIT_WIDTH), EDIT_WIDTH);
  fill_pieces(t, 2);
}

static void test_edits(void **state) {
  (void)state;
  check("edit", make_point, EDIT_ROW_FEATURE_SCALE + 2, 9, true);
  check("delta", make_delta, 1, 4, true);
}

/* ---- what is 0 for certain ---- */

/* What comes of cotangents some of which are 0, whether the backend is told or not: the same, but for the order of sums. */
static float *with_zeros(const char *backend, maker *make, int variant, const struct vjp *zeros, struct row_range rows, bool told, size_t *n) {
  struct trial t;
  trial_open(&t, backend, 24);
  make(&t, variant);
  t.zeros = *zeros;
  t.slot[0] = (struct step_slot){rows, rows.begin, 0, 1};
  t.active[0] = t.arriving[0] = rows;
  if (told) t.vjp = (struct vjp){t.values, t.cotangents, .period = zeros->period, .used = zeros->used, .outputs_from = zeros->outputs_from};
  float *was = save(&t), *got = way_back(&t, was, n);
  free(was);
  trial_close(&t);
  return got;
}

static const struct row_range some_rows[] = {{0, 24}, {3, 21}, {6, 8}, {8, 9}};

static void check_zeros_of(const char *what, maker *make, int variant, const struct vjp *zeros, const struct row_range *rows, size_t n_rows) {
  for (int b = 0; b < n_backends; b++)
    for (size_t i = 0; i < n_rows; i++) {
      size_t n, n_told;
      float *want = with_zeros(backends[b], make, variant, zeros, rows[i], false, &n);
      float *got = with_zeros(backends[b], make, variant, zeros, rows[i], true, &n_told);
      assert_int_equal(n, n_told);
      close_to(what, got, want, n, ROUNDING * fmax(1, rms(want, n)));
      free(want);
      free(got);
    }
}

static void check_zeros(const char *what, maker *make, int variant, const struct vjp *zeros) {
  check_zeros_of(what, make, variant, zeros, some_rows, sizeof some_rows / sizeof *some_rows);
}

static void test_zeros(void **state) {
  static const struct vjp hints[] = {{.period = 8, .used = 3}, {.period = 8, .used = 8}, {.period = 8, .used = 1}, {.period = 24, .used = 7}};
  (void)state;
  for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
    struct vjp zeros = hints[i];
    int variant = (int)i % 3; /* small ones, and 3 more: larger than a block */
    check_zeros("product, rows", make_linear, variant + (i == 3 ? 0 : 3), &zeros);
    zeros.outputs_from = 17;
    check_zeros("product, rows and outputs", make_linear, variant, &zeros);
    zeros.outputs_from = 144;
    if (i < 2) check_zeros("larger product, rows and outputs", make_linear, variant + 3, &zeros);
  }
  check_zeros("norm", make_norm, 0, &hints[0]);
  check_zeros("gate", make_gate, 1, &hints[0]);
  check_zeros_of("many weights", make_large_linear, 1, &(struct vjp){.outputs_from = 4000}, some_rows, 1);
}

int main(void) {
  backends[0] = "ref";
  n_backends = 1 + fast_backends(backends + 1);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_products),  cmocka_unit_test(test_gates),        cmocka_unit_test(test_norms),
      cmocka_unit_test(test_held_norms), cmocka_unit_test(test_attention),   cmocka_unit_test(test_held_pattern),
      cmocka_unit_test(test_pieces),    cmocka_unit_test(test_rows),         cmocka_unit_test(test_edits),        cmocka_unit_test(test_zeros),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
