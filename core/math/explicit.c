/* explicit.c: attention of one row with its scores and weights in the open. Knows no layout of a cache. */
#include "core/math/explicit.h"

#include <assert.h>
#include <math.h>

/* One row: its slot, and what it sees. */
struct seer {
  const struct op *op;
  const struct step *step;
  const struct explicit_ways *ways;
  int slot;
  int32_t row, keys, begin, end; /* keys [begin, end) are seen, of `keys` places */
};

size_t explicit_scratch_floats(const struct op *op, const struct step *step) {
  int32_t most = 0;
  for (int i = 0; i < step->n_slots; i++)
    if (step->keys && step->keys[i] > most) most = step->keys[i];
  return (size_t)op->u.attend.n_head * (size_t)most;
}

static bool looked_at(const struct point_items *items, int32_t row) {
  for (int i = 0; i < items->n_taps; i++)
    if (row_in(items->taps[i].rows, row)) return true;
  return items_edit(items, row);
}

bool explicit_wanted(const struct op *op, const struct step *step, int32_t row) {
  struct point_items scores = point_items(step, op->layer, SITE_SCORES);
  struct point_items pattern = point_items(step, op->layer, SITE_PATTERN);
  return looked_at(&scores, row) || looked_at(&pattern, row);
}

static struct seer seer_of(const struct op *op, const struct step *step, int32_t row, const struct explicit_ways *ways) {
  int slot = 0;
  while (row >= step->slots[slot].rows.end) slot++;
  const struct step_slot *s = &step->slots[slot];
  int32_t position = s->position + row - s->rows.begin;
  assert(position < step->keys[slot]);
  return (struct seer){op, step, ways, slot, row, step->keys[slot], window_begin(position, op->u.attend.window), position + 1};
}

static const float *keys_of(const struct seer *seer, int32_t position, int head) {
  int group = seer->op->u.attend.n_head / seer->op->u.attend.n_kv_head;
  return seer->ways->keys(seer->op, seer->step, seer->slot, position / KV_BLOCK, head / group);
}

static float score(const struct seer *seer, const float *q, int32_t position, int head) {
  const float *key = keys_of(seer, position, head) + position % KV_BLOCK * seer->ways->key_position;
  double sum = 0, cap = seer->op->u.attend.soft_cap;
  for (int i = 0; i < seer->op->u.attend.d_head; i++) sum += (double)q[i] * key[i * seer->ways->key_element];
  sum *= seer->op->u.attend.scale;
  return (float)(cap > 0 ? cap * tanh(sum / cap) : sum);
}

static void fill_scores(const struct seer *seer, float *scores) {
  const float *q = rows_at(seer->op->u.attend.qkv, seer->row) + seer->op->u.attend.q;
  for (int head = 0; head < seer->op->u.attend.n_head; head++)
    for (int32_t j = seer->begin; j < seer->end; j++)
      scores[(int64_t)head * seer->keys + j] = score(seer, q + head * seer->op->u.attend.d_head, j, head);
}

/* What the row does not see stays hidden, whatever an edit made of it. */
static void hide(const struct seer *seer, float *h, float hidden) {
  for (int head = 0; head < seer->op->u.attend.n_head; head++)
    for (int32_t j = 0; j < seer->keys; j++)
      if (j < seer->begin || j >= seer->end) h[(int64_t)head * seer->keys + j] = hidden;
}

static void point(const struct seer *seer, enum site site, float *h, float hidden) {
  struct point_items items = point_items(seer->step, seer->op->layer, site), edits = items, taps = items;
  int64_t width = (int64_t)seer->op->u.attend.n_head * seer->keys;
  edits.n_taps = taps.n_edits = 0;
  seer->ways->point(seer->ways->context, &edits, seer->row, h, width);
  hide(seer, h, hidden);
  seer->ways->point(seer->ways->context, &taps, seer->row, h, width);
}

/* Scores to weights that sum to 1; all 0 where every score is -inf. */
static void soften(const struct seer *seer, float *h) {
  double largest = -INFINITY, total = 0;
  for (int32_t j = seer->begin; j < seer->end; j++) largest = fmax(largest, h[j]);
  if (largest == -INFINITY) largest = 0;
  for (int32_t j = seer->begin; j < seer->end; j++) total += exp(h[j] - largest);
  for (int32_t j = seer->begin; j < seer->end; j++) h[j] = total > 0 ? (float)(exp(h[j] - largest) / total) : 0;
}

static void weigh(const struct seer *seer, const float *weights, int head, float *z) {
  for (int i = 0; i < seer->op->u.attend.d_head; i++) {
    double sum = 0;
    for (int32_t j = seer->begin; j < seer->end; j++) {
      const float *values = keys_of(seer, j, head) + seer->ways->value_offset;
      sum += (double)weights[j] * values[j % KV_BLOCK * seer->ways->value_position + i];
    }
    z[i] = (float)sum;
  }
}

void explicit_row(const struct op *op, const struct step *step, int32_t row, const struct explicit_ways *ways,
                  float *scratch) {
  struct seer seer = seer_of(op, step, row, ways);
  struct point_items scores = point_items(step, op->layer, SITE_SCORES);
  struct point_items pattern = point_items(step, op->layer, SITE_PATTERN);
  fill_scores(&seer, scratch);
  point(&seer, SITE_SCORES, scratch, -INFINITY);
  for (int head = 0; head < op->u.attend.n_head; head++) soften(&seer, scratch + (int64_t)head * seer.keys);
  point(&seer, SITE_PATTERN, scratch, 0);
  if (!items_edit(&scores, row) && !items_edit(&pattern, row)) return;
  for (int head = 0; head < op->u.attend.n_head; head++)
    weigh(&seer, scratch + (int64_t)head * seer.keys, head, rows_at(op->u.attend.z, row) + head * op->u.attend.d_head);
}
