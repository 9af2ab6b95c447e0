/* What the CUDA backend does in one launch is what its single ops do, bit by bit. Needs a library (STEERD_CUDA_LIBRARY),
 * emulated or real. */
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

/* ---- attention of texts with one row each ------------------------------------------------------------------------------------- */

enum { TEXTS = 3, LONGEST = 270, BLOCKS = 5 };
static const int lengths[TEXTS] = {LONGEST, 3, 131};

/* What stands in front of attention, and how wide it is. */
struct heads {
  const char *name;
  int n_head, n_kv_head, d_head, dims, window;
  enum rotary_pairing pairing;
  bool q_norm, k_norm, items; /* edits and taps of z */
  float soft_cap;
  enum dtype kept;
};

static const struct heads all_heads[] = {
    {"nothing in front", 3, 3, 8, 0, 0, ROTARY_HALVES, false, false, true, 0, DTYPE_F32},
    {"turned", 4, 2, 16, 16, 0, ROTARY_NEIGHBOURS, false, false, true, 30, DTYPE_BF16},
    {"turned in part, windowed", 8, 2, 24, 10, 150, ROTARY_HALVES, false, false, false, 0, DTYPE_F16},
    {"normed and turned", 10, 2, 12, 12, 0, ROTARY_HALVES, true, true, false, 0, DTYPE_BF16},
    {"normed", 9, 1, 140, 0, 130, ROTARY_HALVES, true, true, true, 20, DTYPE_F32},
    {"q alone normed", 6, 1, 8, 8, 0, ROTARY_HALVES, true, false, false, 0, DTYPE_F32},
};

struct stage {
  struct backend *backend;
  const struct heads *heads;
  struct span qkv, z, kv, q_gain, k_gain, turns, direction, taps;
  struct op list[4];
  size_t count;
  int width, columns; /* of z, of qkv */
};

static struct op *add_op(struct stage *s, enum op_code code, int64_t width) {
  struct op *op = &s->list[s->count++];
  *op = (struct op){.code = code, .set = ROWS_ACTIVE, .width = width};
  return op;
}

static void add_head_norm(struct stage *s, struct span gain, int64_t column, int heads) {
  struct op *op = add_op(s, OP_NORM, s->heads->d_head);
  op->u.norm.x = op->u.norm.y = (struct rows){span_at(s->qkv, (size_t)column * sizeof(float)), s->columns};
  op->u.norm.norm = (struct norm){.kind = NORM_RMS, .eps = 1e-6f, .gain = gain};
  op->u.norm.parts = heads;
}

static void make_list(struct stage *s) {
  const struct heads *h = s->heads;
  int64_t k = (int64_t)h->n_head * h->d_head;
  if (h->q_norm) add_head_norm(s, s->q_gain, 0, h->n_head);
  if (h->k_norm) add_head_norm(s, s->k_gain, k, h->n_kv_head);
  if (h->dims) {
    struct op *op = add_op(s, OP_ROTATE, h->d_head);
    op->u.rotate.x = (struct rows){s->qkv, s->columns};
    op->u.rotate.heads = h->n_head + h->n_kv_head;
    op->u.rotate.dims = h->dims;
    op->u.rotate.pairing = h->pairing;
    op->u.rotate.table = s->turns;
  }
  struct op *op = add_op(s, OP_ATTEND, s->width);
  op->u.attend.qkv = (struct rows){s->qkv, s->columns};
  op->u.attend.z = (struct rows){s->z, s->width};
  op->u.attend.k = k;
  op->u.attend.v = k + (int64_t)h->n_kv_head * h->d_head;
  op->u.attend.n_head = h->n_head;
  op->u.attend.n_kv_head = h->n_kv_head;
  op->u.attend.d_head = h->d_head;
  op->u.attend.window = h->window;
  op->u.attend.scale = 0.4f;
  op->u.attend.soft_cap = h->soft_cap;
  op->u.attend.kv = h->kept;
}

static void stage_open(struct stage *s, const char *name, const struct heads *heads) {
  memset(s, 0, sizeof *s);
  s->backend = must_open(name, 1);
  s->heads = heads;
  s->width = heads->n_head * heads->d_head;
  s->columns = s->width + 2 * heads->n_kv_head * heads->d_head;
  s->qkv = must_alloc(s->backend, (size_t)(LONGEST * s->columns));
  s->z = must_alloc(s->backend, (size_t)(LONGEST * s->width));
  s->taps = must_alloc(s->backend, (size_t)(LONGEST * s->width));
  s->q_gain = put_noise(s->backend, (size_t)heads->d_head, 1, 2);
  s->k_gain = put_noise(s->backend, (size_t)heads->d_head, 2, 2);
  s->turns = put_noise(s->backend, (size_t)(LONGEST * (heads->dims + 1)), 3, 1);
  s->direction = put_noise(s->backend, (size_t)s->width, 4, 0.2f);
  size_t block = s->backend->ops->kv_block_bytes(s->backend, heads->n_kv_head, heads->d_head, heads->kept);
  s->kv = must_alloc(s->backend, block / 4 * TEXTS * BLOCKS);
  float *garbage = malloc(block * TEXTS * BLOCKS); /* NaN: what nobody wrote must not matter */
  memset(garbage, 0xFF, block * TEXTS * BLOCKS);
  s->backend->ops->write(s->backend, s->kv, garbage, block * TEXTS * BLOCKS, NULL);
  free(garbage);
  make_list(s);
}

static void stage_close(struct stage *s) {
  struct span spans[] = {s->qkv, s->z, s->kv, s->q_gain, s->k_gain, s->turns, s->direction, s->taps};
  for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) drop(s->backend, spans[i]);
  backend_close(s->backend);
}

static float *rows_of_text(const struct stage *s, int text, int position) {
  static float row[4096];
  fill(row, (size_t)s->columns, (uint64_t)(1000 * (text + 1) + position), 1.5f);
  return row;
}

/* One step of texts: rows [from[i], to[i]) of each, z and taps into `out`, by text and position. Text 2 is edited in z, across its
 * heads; every row is tapped. */
static void stage_step(struct stage *s, const int *from, const int *to, bool items, float *out[TEXTS], float *tapped[TEXTS]) {
  static const int32_t blocks[TEXTS * BLOCKS] = {3, 7, 0, 9, 14, 5, 1, 2, 4, 6, 8, 10, 11, 12, 13};
  struct step_slot slots[TEXTS];
  int32_t positions[LONGEST], table[TEXTS * BLOCKS], edit_begin[2 * SITE_COUNT + 1], tap_begin[2 * SITE_COUNT + 1];
  struct edit_item edit = {.kind = EDIT_ROW_PROJECT, .column_begin = 3, .column_end = s->width - 2, .value = 1.5f, .v = s->direction};
  int rows = 0, n = 0, point = point_index((struct point){0, SITE_ATTN_Z});
  for (int text = 0; text < TEXTS; text++) {
    if (from[text] >= to[text]) continue;
    if (text == 2) edit.rows = (struct row_range){rows, rows + to[text] - from[text]};
    slots[n] = (struct step_slot){{rows, rows + to[text] - from[text]}, from[text], 0, 1};
    memcpy(table + n++ * BLOCKS, blocks + text * BLOCKS, BLOCKS * sizeof *table);
    for (int position = from[text]; position < to[text]; position++, rows++) {
      positions[rows] = position;
      size_t row = (size_t)s->columns * sizeof(float);
      assert_int_equal(s->backend->ops->write(s->backend, span_at(s->qkv, (size_t)rows * row), rows_of_text(s, text, position), row, NULL), 0);
    }
  }
  struct row_range all[2] = {{0, rows}, {0, rows}};
  struct tap_item tap = {{0, rows}, s->taps, s->width};
  struct step step = {.n_layer = 1, .n_rows = rows, .position = positions, .n_slots = n, .slots = slots, .active = all,
                      .arriving = all, .kv = s->kv, .kv_table = table, .kv_blocks = BLOCKS};
  for (int p = 0; p <= 2 * SITE_COUNT; p++) edit_begin[p] = tap_begin[p] = p > point;
  if (items) step.taps = &tap, step.tap_begin = tap_begin;
  if (items && edit.rows.end > edit.rows.begin) step.edits = &edit, step.edit_begin = edit_begin;
  assert_int_equal(s->backend->ops->run(s->backend, s->list, s->count, &step, NULL), 0);
  for (int i = 0, text = 0; text < TEXTS; text++) {
    size_t size = (size_t)((to[text] - from[text]) * s->width), at = (size_t)(from[text] * s->width);
    if (from[text] >= to[text]) continue;
    must_read(s->backend, out[text] + at, span_at(s->z, (size_t)(slots[i].rows.begin * s->width) * sizeof(float)), size);
    if (items) must_read(s->backend, tapped[text] + at, span_at(s->taps, (size_t)(slots[i].rows.begin * s->width) * sizeof(float)), size);
    i++;
  }
}

/* Where the step that begins at a position ends. Few enough rows that none of it is a prompt, whose attention is another (prompt.cu). */
enum { PIECE = 31 };
static int piece_end(int position) { return (position / PIECE + 1) * PIECE; }
static int step_end(int position) { return position / PIECE % 4 ? piece_end(position) : position + 1; }

/* Each text alone in pieces, then again all texts side by side, in part with one row of each at a time. */
static void check_single_rows(const char *name, const struct heads *heads, bool items) {
  struct stage s;
  float *whole[TEXTS], *single[TEXTS], *whole_taps[TEXTS], *single_taps[TEXTS];
  stage_open(&s, name, heads);
  size_t size = (size_t)(LONGEST * s.width);
  for (int i = 0; i < TEXTS; i++) {
    whole[i] = calloc(4 * size, sizeof(float));
    single[i] = whole[i] + size, whole_taps[i] = whole[i] + 2 * size, single_taps[i] = whole[i] + 3 * size;
  }
  for (int text = 0; text < TEXTS; text++)
    for (int position = 0; position < lengths[text]; position = piece_end(position)) {
      int from[TEXTS] = {0}, to[TEXTS] = {0};
      from[text] = position;
      to[text] = piece_end(position) < lengths[text] ? piece_end(position) : lengths[text];
      stage_step(&s, from, to, items, whole, whole_taps);
    }
  for (int position = 0; position < LONGEST; position = step_end(position)) {
    int from[TEXTS], to[TEXTS];
    for (int text = 0; text < TEXTS; text++) {
      from[text] = position;
      to[text] = step_end(position) < lengths[text] ? step_end(position) : lengths[text];
    }
    stage_step(&s, from, to, items, single, single_taps);
  }
  for (int text = 0; text < TEXTS; text++) {
    same_bits(heads->name, single[text], whole[text], (size_t)(lengths[text] * s.width));
    if (items) same_bits(heads->name, single_taps[text], single[text], (size_t)(lengths[text] * s.width));
    free(whole[text]);
  }
  stage_close(&s);
}

static void test_single_rows(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof all_heads / sizeof *all_heads; i++)
    check_single_rows(all_heads[i].kept == DTYPE_F32 ? "cuda+deterministic" : "cuda", &all_heads[i], all_heads[i].items);
}

/* ---- rows that are put down once more for the product behind ---------------------------------------------------------------- */

/* Widths of whole pieces, so that there is nothing that keeps ops apart; of rows that fit the library, those of q, k and v and the logits. */
static const struct shape narrow_shapes[] = {{2, 40, 6, 2, 24, 72, 64, 0, 0, NORM_RMS, ACT_SILU, true, DTYPE_BF16},
                                             {2, 48, 3, 3, 16, 136, 64, 50, 30, NORM_LAYER, ACT_GELU_TANH, false, DTYPE_F16},
                                             {2, 40, 2, 1, 20, 88, 64, 0, 0, NORM_RMS, ACT_SILU, true, DTYPE_F32}};
enum { NARROW_KINDS = 4 };

/* Some texts end behind layer 0: products of layer 1 are of rows in the middle. `single`: each text has a row. */
static void narrow_step(struct world *world, int rows, bool single) {
  struct step_slot slots[MAX_SLOTS];
  int n = 0, row = 0;
  while (row < rows) {
    int more = single ? 1 : n == 1 ? rows - 7 : 2, end = row + more < rows ? row + more : rows;
    slots[n] = (struct step_slot){{row, end}, 0, 0, n < (single ? 2 : 1) ? 1 : 2};
    row = end;
    n++;
  }
  world_step(world, slots, n);
}

/* The logits of a step with edits and taps at attn_z (kind 1), mlp_post (2), both (3), run as one list or op by op. */
static void narrow_run(struct world *world, int kind, bool whole, float *logits) {
  static int32_t begin[(MAX_LAYERS + 1) * SITE_COUNT + 1];
  struct op *op = world->list;
  int n_rows = world->step.n_rows, z = point_index((struct point){1, SITE_ATTN_Z}), post = point_index((struct point){1, SITE_MLP_POST});
  struct edit_item edits[2] = {{.kind = EDIT_ROW_ADD, .rows = {1, n_rows - 1}, .column_begin = 3, .column_end = 37, .value = 0.7f, .v = world->vectors},
                               {.kind = EDIT_ROW_PROJECT, .rows = {2, n_rows}, .column_begin = 0, .column_end = 40, .value = -0.5f, .v = world->vectors}};
  for (int p = 0; p <= point_count(MAX_LAYERS); p++) begin[p] = (kind % 2 && p > z) + (kind / 2 && p > post);
  world->step.edits = kind == 2 ? edits + 1 : edits;
  world->step.edit_begin = kind ? begin : NULL;
  memset(logits, 0, MAX_ROWS * 64 * sizeof *logits);
  if (whole)
    for (int i = 0; i < (kind == 3 ? 3 : 1); i++) world_run(world); /* launched, recorded and repeated */
  for (size_t i = 0; i < world->count && !whole; i++, op++)
    assert_int_equal(world->backend->ops->run(world->backend, op, 1, &world->step, NULL), 0);
  must_read(world->backend, logits, world->logits, (size_t)(world->step.n_logit_rows * world->shape.vocabulary));
}

static void check_narrow(const struct shape *shape, int rows, bool single, bool bias, bool room) {
  static float whole[MAX_ROWS * 64], apart[MAX_ROWS * 64];
  struct world *world = world_new("cuda", 1, shape);
  for (size_t i = 0; i < world->count; i++) {
    if (world->list[i].code != OP_LINEAR) continue;
    if (!bias) world->list[i].u.linear.bias.memory = NULL;
    if (!room) world->list[i].u.linear.room = 0;
  }
  narrow_step(world, rows, single);
  for (int kind = rows > 256 ? 3 : 0; kind < NARROW_KINDS; kind++) { /* large steps are slow here */
    narrow_run(world, kind, true, whole);
    long whole_nodes = kind == 3 && emulated.launches ? count_launches(NODES) : 0;
    narrow_run(world, kind, false, apart);
    assert_true(isfinite(apart[0]));
    /* Of a layer q k v, attention, o, rows, up (and gate), the point of mlp_post, down, rows: as for one row. */
    if (whole_nodes && single && shape->dtype != DTYPE_F32) assert_true(whole_nodes <= 8 * shape->n_layer + 4);
    same_bits("a list and its ops one by one", whole, apart, (size_t)(rows * shape->vocabulary));
  }
  world_free(world);
}

/* By our kernel up to 256 rows (matrices are small here), by the library beyond, and for weights in f32. */
static void test_narrow_rows(void **state) {
  (void)state;
  check_narrow(&narrow_shapes[0], 40, true, true, true);
  check_narrow(&narrow_shapes[0], 70, false, false, true);
  check_narrow(&narrow_shapes[0], 258, false, false, true);
  check_narrow(&narrow_shapes[1], 40, true, true, true);
  check_narrow(&narrow_shapes[2], 40, false, false, true);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_single_rows), cmocka_unit_test(test_narrow_rows)};
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
