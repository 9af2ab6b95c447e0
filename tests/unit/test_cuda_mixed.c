/* Steps that mix prompts and decodes: attention of a row gives the same bits beside whatever else is in the step, walked by one block
 * or spread over many. Needs a library (STEERD_CUDA_LIBRARY), emulated or real. */
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

/* ---- attention alone ----------------------------------------------------------------------------------------------------------- */

/* A part of a step: rows [position, position + rows) of a text. */
struct part {
  int position, rows;
};
enum { MOST_PARTS = 90, MOST_BLOCKS = 240, LONGEST = 160 }; /* LONGEST: rows of a part */

struct heads {
  int n, kv, d, window;
  float soft_cap;
  bool taps; /* of attn_z */
};

/* Texts that are old; what they have behind them is noise. */
struct past {
  struct backend *backend;
  struct heads heads;
  struct span qkv, z, taps, kv;
  struct op op;
  int width, columns; /* of z, of qkv */
  bool shared; /* all texts are one, but for the block that they write to */
};

/* Keys and values that are finite and below 2 in size, whether they are read as f32 or as halves of either kind. */
static void fill_pool(struct backend *backend, struct span kv, size_t bytes) {
  uint16_t *bits = malloc(bytes);
  for (size_t i = 0; i < bytes / 2; i++) {
    uint32_t words[4];
    random_words(7, 70, i, words);
    bits[i] = (uint16_t)(0x3C00 | (words[0] & 0x81FF));
  }
  assert_int_equal(backend->ops->write(backend, kv, bits, bytes, NULL), 0);
  free(bits);
}

static void past_open(struct past *p, const char *name, struct heads heads, enum dtype kept, bool shared) {
  *p = (struct past){.backend = must_open(name, 1), .heads = heads, .width = heads.n * heads.d, .shared = shared};
  p->columns = p->width + 2 * heads.kv * heads.d;
  size_t block = p->backend->ops->kv_block_bytes(p->backend, heads.kv, heads.d, kept);
  size_t blocks = shared ? MOST_BLOCKS + MOST_PARTS : MOST_PARTS * 16;
  p->qkv = must_alloc(p->backend, (size_t)(600 * p->columns));
  p->z = must_alloc(p->backend, (size_t)(600 * p->width));
  p->taps = must_alloc(p->backend, (size_t)(600 * p->width));
  p->kv = must_alloc(p->backend, blocks * block / 4);
  fill_pool(p->backend, p->kv, blocks * block);
  p->op = (struct op){.code = OP_ATTEND, .set = ROWS_ACTIVE, .width = p->width};
  p->op.u.attend.qkv = (struct rows){p->qkv, p->columns};
  p->op.u.attend.z = (struct rows){p->z, p->width};
  p->op.u.attend.k = p->width;
  p->op.u.attend.v = p->width + heads.kv * heads.d;
  p->op.u.attend.n_head = heads.n;
  p->op.u.attend.n_kv_head = heads.kv;
  p->op.u.attend.d_head = heads.d;
  p->op.u.attend.scale = 0.4f;
  p->op.u.attend.window = heads.window;
  p->op.u.attend.soft_cap = heads.soft_cap;
  p->op.u.attend.kv = kept;
}

static void past_close(struct past *p) {
  struct span spans[] = {p->qkv, p->z, p->taps, p->kv};
  for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) drop(p->backend, spans[i]);
  backend_close(p->backend);
}

static int32_t block_of(const struct past *p, int text, int block, int last) {
  if (!p->shared) return text * 16 + block;
  return block < last ? block : MOST_BLOCKS + text;
}

/* Puts down q, k and v of a row, which depend on its text and position alone. */
static void put_row(const struct past *p, int row, int text, int position) {
  static float values[4096];
  fill(values, (size_t)p->columns, (uint64_t)(100000 * (text + 1) + position), 1.5f);
  size_t bytes = (size_t)p->columns * sizeof *values;
  assert_int_equal(p->backend->ops->write(p->backend, span_at(p->qkv, (size_t)row * bytes), values, bytes, NULL), 0);
}

/* One step of parts [begin, end), part i of text i; z of its rows to `z`. */
static int past_step(struct past *p, const struct part *parts, int begin, int end, float *z) {
  static int32_t table[MOST_PARTS * MOST_BLOCKS], position[600];
  struct step_slot slots[MOST_PARTS];
  int32_t tap_begin[2 * SITE_COUNT + 1];
  int rows = 0;
  for (int i = begin; i < end; i++) {
    slots[i - begin] = (struct step_slot){{rows, rows + parts[i].rows}, parts[i].position, 0, 1};
    for (int b = 0; b < MOST_BLOCKS; b++)
      table[(i - begin) * MOST_BLOCKS + b] = block_of(p, i, b, (parts[i].position + parts[i].rows - 1) / KV_BLOCK);
    for (int k = 0; k < parts[i].rows; k++, rows++) put_row(p, rows, i, position[rows] = parts[i].position + k);
  }
  struct row_range all[2] = {{0, rows}, {0, rows}};
  struct tap_item tap = {{0, rows}, p->taps, p->width};
  struct step step = {.n_layer = 1, .n_rows = rows, .position = position, .n_slots = end - begin, .slots = slots, .active = all,
                      .arriving = all, .kv = p->kv, .kv_table = table, .kv_blocks = MOST_BLOCKS};
  for (int i = 0; i <= 2 * SITE_COUNT; i++) tap_begin[i] = i > point_index((struct point){0, SITE_ATTN_Z});
  if (p->heads.taps) step.taps = &tap, step.tap_begin = tap_begin;
  assert_int_equal(p->backend->ops->run(p->backend, &p->op, 1, &step, NULL), 0);
  must_read(p->backend, z, p->z, (size_t)(rows * p->width));
  float *tapped = malloc((size_t)(rows * p->width) * sizeof *tapped);
  must_read(p->backend, tapped, p->taps, (size_t)(rows * p->width));
  if (p->heads.taps) same_bits("a tap of z", tapped, z, (size_t)(rows * p->width));
  free(tapped);
  return rows;
}

/* All parts in one step against each of them in a step of its own, but for prompts of plain mode: their sums begin where tiles do. */
static void check_company(struct past *p, const char *what, const struct part *parts, int n) {
  float *together = malloc(600 * (size_t)p->width * sizeof *together), *alone = malloc(LONGEST * (size_t)p->width * sizeof *alone);
  bool deterministic = strstr(p->backend->ops->name, "deterministic") != NULL;
  past_step(p, parts, 0, n, together);
  for (int i = 0, row = 0; i < n; row += parts[i++].rows) {
    char name[120];
    if (!deterministic && parts[i].rows >= 32) continue;
    int rows = past_step(p, parts, i, i + 1, alone);
    snprintf(name, sizeof name, "%s, %s, heads of %d: part %d at %d", p->backend->ops->name, what, p->heads.d, i, parts[i].position);
    same_bits(name, together + row * p->width, alone, (size_t)(rows * p->width));
  }
  free(together);
  free(alone);
}

static void test_decodes_beside_prompts(void **state) {
  (void)state;
  static const struct heads heads[] = {{6, 2, 9, 0, 0, false}, {8, 1, 24, 300, 20, true}, {3, 3, 70, 0, 0, true}};
  static const struct part few[] = {{1000, 1}, {0, 70}, {127, 1}, {128, 1}, {639, 1}, {0, 1}, {890, 7}, {300, 34}, {640, 1}};
  static const char *const names[] = {"cuda", "cuda+deterministic"};
  struct part many[MOST_PARTS]; /* more than 64 rows: those of up to four chunks are walked by one block */
  for (int i = 0; i < MOST_PARTS; i++) many[i] = (struct part){i == 40 ? 17 : i * 97 % 1000, i == 40 ? 100 : 1};
  for (int i = 0; i < 6; i++) {
    struct past past;
    past_open(&past, names[i % 2], heads[i / 2], i / 2 == 1 ? DTYPE_F16 : DTYPE_BF16, false);
    check_company(&past, "few decodes", few, sizeof few / sizeof *few);
    if (i < 4) check_company(&past, "many decodes", many, MOST_PARTS);
    past_close(&past);
  }
}

/* More chunks than a step spreads (WORK_MOST_SPREAD): the last ones are walked. */
static void test_more_than_is_spread(void **state) {
  (void)state;
  struct part parts[MOST_PARTS];
  struct past past;
  past_open(&past, "cuda", (struct heads){1, 1, 8, 0, 0, false}, DTYPE_BF16, true);
  for (int i = 0; i < MOST_PARTS; i++) parts[i] = (struct part){MOST_BLOCKS * KV_BLOCK - 1 - i, 1}; /* of 119 or 120 chunks */
  check_company(&past, "long texts", parts, MOST_PARTS);
  past_close(&past);
}

/* Bytes that a step sends tell how many blocks it is cut into: 16 for each. */
static long bytes_of_step(struct past *p, const struct part *parts, int n) {
  float *z = malloc(600 * (size_t)p->width * sizeof *z);
  put_row(p, 0, 0, 0); /* what is not the step's is sent in front */
  past_step(p, parts, 0, n, z);
  free(z);
  return emulated.sent();
}

static void test_long_rows_are_spread(void **state) {
  (void)state;
  if (!emulated.sent) skip();
  struct past past;
  past_open(&past, "cuda", (struct heads){1, 1, 8, 0, 0, false}, DTYPE_BF16, false);
  static const struct part near[] = {{0, 100}, {0, 1}}, far[] = {{0, 100}, {1023, 1}};
  long before = emulated.sent(), first = bytes_of_step(&past, near, 2) - before;
  before = emulated.sent();
  long blocks = (bytes_of_step(&past, far, 2) - before - first) / 16;
  assert_int_equal(blocks, 7 + 15 / 4); /* seven more chunks, and 15 more places of its table of blocks */
  past_close(&past);
}

/* ---- whole steps, recorded --------------------------------------------------------------------------------------------------- */

enum { DECODES = 30, PROMPT = 60 };

static void step_alone(struct world *world, int slot, int position, float *logits) {
  struct step_slot slots[MAX_SLOTS];
  for (int i = 0; i <= slot; i++) slots[i] = (struct step_slot){{0, 0}, 0, 0, world->shape.n_layer};
  slots[slot] = (struct step_slot){{0, 1}, position, 0, world->shape.n_layer};
  world_step(world, slots, slot + 1);
  world_run(world);
  must_read(world->backend, logits, world->logits, (size_t)world->shape.vocabulary);
}

/* Decodes at places that come nearer to each other's, beside a prompt; the number of blocks changes from step to step, the graph
 * does not. */
static void check_recorded(const struct shape *shape) {
  struct world *mixed = world_new("cuda+deterministic", 1, shape), *alone = world_new("cuda+deterministic", 1, shape);
  struct world *worlds[] = {mixed, alone};
  int vocabulary = shape->vocabulary;
  size_t block = mixed->backend->ops->kv_block_bytes(mixed->backend, shape->n_kv_head, shape->d_head, shape->dtype);
  float *together = malloc((size_t)((DECODES + PROMPT) * vocabulary) * sizeof *together), own[200];
  for (int w = 0; w < 2; w++) fill_pool(worlds[w]->backend, worlds[w]->kv, MAX_SLOTS * MAX_LAYERS * KV_BLOCKS * block); /* all texts have a past */
  for (int turn = 0; turn < 4; turn++) {
    struct step_slot slots[MAX_SLOTS];
    for (int i = 0; i < DECODES; i++) slots[i] = (struct step_slot){{i, i + 1}, (i * 37 + turn * 90) % 300, 0, shape->n_layer};
    slots[DECODES] = (struct step_slot){{DECODES, DECODES + PROMPT}, turn * PROMPT, 0, shape->n_layer};
    world_step(mixed, slots, DECODES + 1);
    world_run(mixed);
    must_read(mixed->backend, together, mixed->logits, (size_t)((DECODES + PROMPT) * vocabulary));
    for (int i = 0; i < DECODES; i++) {
      step_alone(alone, i, slots[i].position, own);
      same_bits("a decode beside a prompt", together + i * vocabulary, own, (size_t)vocabulary);
    }
  }
  world_free(mixed);
  world_free(alone);
  free(together);
}

static void test_recorded_steps(void **state) {
  (void)state;
  long before = emulated.counts ? count(REPLAYS) : 0;
  check_recorded(&small_shape);
  check_recorded(&gated_shape);
  if (emulated.counts) assert_true(count(REPLAYS) - before > 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_decodes_beside_prompts), cmocka_unit_test(test_more_than_is_spread),
      cmocka_unit_test(test_long_rows_are_spread),   cmocka_unit_test(test_recorded_steps),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
