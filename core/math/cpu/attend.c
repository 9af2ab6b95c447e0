/* attend.c: the units of attention: which rows, which blocks, in what order. The arithmetic is attend.inc.h's. */
#include <assert.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"
#include "core/math/cpu/turn.h"
#include "core/math/explicit.h"

#define UNIT_QUERIES 24 /* queries of a unit: enough that its keys and values are loaded once for many */

size_t cpu_kv_block_bytes(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish) {
  (void)backend;
  (void)wish;
  return (size_t)n_kv_head * (size_t)kv_head_floats(d_head) * sizeof(float);
}

float *kv_keys(const struct op *op, const struct step *step, int slot, int block, int kv_head) {
  int32_t number = kv_block_of(step, slot, op->layer, block);
  assert(block < kv_pages_of(step, slot).stride && number >= 0);
  size_t bytes = cpu_kv_block_bytes(NULL, op->u.attend.n_kv_head, op->u.attend.d_head, op->u.attend.kv);
  return span_floats(span_at(step->kv, (size_t)number * bytes)) + kv_head * kv_head_floats(op->u.attend.d_head);
}

static int unit_rows(const struct op *op) {
  int group = op->u.attend.n_head / op->u.attend.n_kv_head;
  return group >= UNIT_QUERIES ? 1 : UNIT_QUERIES / group;
}

size_t attend_scratch_floats(const struct op *op) {
  int group = op->u.attend.n_head / op->u.attend.n_kv_head;
  size_t n = (size_t)(unit_rows(op) * group);
  return n * (QUERY_FLOATS + (size_t)value_width(op->u.attend.d_head)) + (n + ATTEND_TALLEST) * (size_t)op->u.attend.d_head;
}

/* ---- numbering ----------------------------------------------------------------------------------------- */

/* Units are numbered slot by slot, pieces of a slot, and KV heads inside a piece. */
struct place {
  int slot, piece, kv_head;
};

static int slot_pieces(const struct op *op, const struct step_slot *slot, bool blocks) {
  if (!slot_active(slot, op->layer)) return 0;
  int rows = slot->rows.end - slot->rows.begin;
  if (rows == 0) return 0;
  if (blocks) return (slot->position + rows - 1) / KV_BLOCK - slot->position / KV_BLOCK + 1;
  return (rows + unit_rows(op) - 1) / unit_rows(op);
}

static size_t count_units(const struct op *op, const struct step *step, bool blocks) {
  size_t n = 0;
  for (int i = 0; i < step->n_slots; i++) n += (size_t)slot_pieces(op, &step->slots[i], blocks);
  return n * (size_t)op->u.attend.n_kv_head;
}

static struct place find_unit(const struct op *op, const struct step *step, bool blocks, size_t unit) {
  struct place place = {0, 0, (int)(unit % (size_t)op->u.attend.n_kv_head)};
  int piece = (int)(unit / (size_t)op->u.attend.n_kv_head), pieces;
  while (piece >= (pieces = slot_pieces(op, &step->slots[place.slot], blocks))) {
    piece -= pieces;
    place.slot++;
  }
  place.piece = piece;
  return place;
}

/* ---- keys and values into the cache --------------------------------------------------------------------- */

/* One KV head, the positions of one slot that fall into one block. */
static void store_unit(const struct op *op, const struct step *step, struct place place) {
  const struct step_slot *slot = &step->slots[place.slot];
  int d_head = op->u.attend.d_head, block = slot->position / KV_BLOCK + place.piece;
  int at = block * KV_BLOCK > slot->position ? 0 : slot->position - block * KV_BLOCK;
  int32_t row = slot->rows.begin + block * KV_BLOCK + at - slot->position;
  int rows = slot->rows.end - row < KV_BLOCK - at ? slot->rows.end - row : KV_BLOCK - at;
  int64_t ld = op->u.attend.qkv.ld, width = value_width(d_head);
  float *keys = kv_keys(op, step, place.slot, block, place.kv_head), *values = keys + (int64_t)KV_BLOCK * d_head + at * width;
  const float *qkv = rows_at(op->u.attend.qkv, row);
  const float *k = qkv + op->u.attend.k + place.kv_head * d_head, *v = qkv + op->u.attend.v + place.kv_head * d_head;
  turn_rows(k, ld, rows, d_head, keys + at, KV_BLOCK);
  for (int r = 0; r < rows; r++) memcpy(values + r * width, v + r * ld, (size_t)d_head * sizeof *v);
}

void attend_store(const struct op *op, const struct step *step, struct pool_worker *worker) {
  size_t total = count_units(op, step, true), unit, end;
  while (pool_take(worker, total, 1, &unit, &end)) store_unit(op, step, find_unit(op, step, true, unit));
}

/* ---- queries --------------------------------------------------------------------------------------------- */

/* Asks for the keys that a unit of a single row meets first: a text's blocks were last touched a step ago, and such a unit is over before
 * memory answers. */
static void fetch_keys(const struct op *op, const struct step *step, struct place place) {
  const struct step_slot *slot = &step->slots[place.slot];
  if (slot->rows.end - slot->rows.begin > 1) return;
  int block = window_begin(slot->position, op->u.attend.window) / KV_BLOCK, seen = slot->position - block * KV_BLOCK + 1;
  const float *keys = kv_keys(op, step, place.slot, block, place.kv_head);
  for (int d = 0; d < op->u.attend.d_head; d++)
    for (int at = 0; at < KV_BLOCK && at < seen; at += LANES) __builtin_prefetch(keys + d * KV_BLOCK + at, 0, 3);
}

/* Units are taken from the last to the first: later rows see more positions, and the long units should not be
 * the ones that are left over. */
void attend_walk(const struct op *op, const struct step *step, const struct kernels *kernels,
                 struct pool_worker *worker, float *scratch) {
  size_t total = count_units(op, step, false), at, end;
  while (pool_take(worker, total, 1, &at, &end)) {
    struct place place = find_unit(op, step, false, total - 1 - at);
    struct row_range rows = step->slots[place.slot].rows;
    rows.begin += place.piece * unit_rows(op);
    if (rows.end > rows.begin + unit_rows(op)) rows.end = rows.begin + unit_rows(op);
    size_t next = at + (size_t)worker->threads;
    if (next < total) fetch_keys(op, step, find_unit(op, step, false, total - 1 - next));
    kernels->attend(&(struct attend_unit){op, step, place.slot, place.kv_head, rows}, scratch);
  }
}

/* ---- in the open ------------------------------------------------------------------------------------------ */

static const float *keys_at(const struct op *op, const struct step *step, int slot, int block, int kv_head) {
  return kv_keys(op, step, slot, block, kv_head);
}

static void edit_whole_row(const void *context, const struct point_items *items, int32_t row, float *h, int64_t width) {
  point_row(context, items, row, h, 0, width);
}

void attend_explicit(const struct op *op, const struct step *step, const struct kernels *kernels, struct row_range rows,
                     float *scratch) {
  int32_t d_head = op->u.attend.d_head;
  struct explicit_ways ways = {.keys = keys_at, .key_position = 1, .key_element = KV_BLOCK,
                               .value_offset = (int64_t)KV_BLOCK * d_head, .value_position = value_width(d_head),
                               .point = edit_whole_row, .context = kernels};
  for (int32_t row = rows.begin; row < rows.end; row++)
    if (explicit_wanted(op, step, row)) explicit_row(op, step, row, &ways, scratch);
}
