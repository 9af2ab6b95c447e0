/* attend.c: causal attention over the key and value cache.
 *
 * A block holds, for each KV head, 64 keys [64][d_head] and then 64 values [64][d_head]. */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/explicit.h"
#include "core/math/ref/ref.h"

size_t ref_kv_block_bytes(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish) {
  (void)backend;
  (void)wish;
  return (size_t)n_kv_head * 2 * KV_BLOCK * (size_t)d_head * sizeof(float);
}

struct cache {
  const struct op *op;
  const struct step *step;
  int slot;
};

/* Where the key (which = 0) or value (which = 1) of a position and KV head lies. */
static float *cached(const struct cache *cache, int32_t position, int kv_head, int which) {
  int64_t d = cache->op->u.attend.d_head;
  int32_t block = kv_block_of(cache->step, cache->slot, cache->op->layer, position / KV_BLOCK);
  assert(block >= 0);
  size_t bytes = ref_kv_block_bytes(NULL, cache->op->u.attend.n_kv_head, cache->op->u.attend.d_head, cache->op->u.attend.kv);
  float *data = span_floats(span_at(cache->step->kv, (size_t)block * bytes));
  return data + ((2 * kv_head + which) * KV_BLOCK + position % KV_BLOCK) * d;
}

static void store_row(const struct cache *cache, int32_t row, int32_t position) {
  const struct op *op = cache->op;
  const float *qkv = rows_at(op->u.attend.qkv, row);
  int64_t d = op->u.attend.d_head;
  for (int head = 0; head < op->u.attend.n_kv_head; head++) {
    memcpy(cached(cache, position, head, 0), qkv + op->u.attend.k + head * d, (size_t)d * sizeof(float));
    memcpy(cached(cache, position, head, 1), qkv + op->u.attend.v + head * d, (size_t)d * sizeof(float));
  }
}

static double score(const struct op *op, const float *q, const float *k) {
  double sum = 0;
  for (int i = 0; i < op->u.attend.d_head; i++) sum += (double)q[i] * k[i];
  sum *= op->u.attend.scale;
  double cap = op->u.attend.soft_cap;
  return cap > 0 ? cap * tanh(sum / cap) : sum;
}

/* z = sum over j of softmax(score)_j v_j; scores are computed once for the largest and once for the sums. */
static void attend_head(const struct cache *cache, const float *q, float *z, int32_t position, int kv_head) {
  const struct op *op = cache->op;
  int d = op->u.attend.d_head;
  int32_t begin = window_begin(position, op->u.attend.window);
  double largest = -DBL_MAX, total = 0;
  for (int32_t j = begin; j <= position; j++) largest = fmax(largest, score(op, q, cached(cache, j, kv_head, 0)));
  for (int32_t j = begin; j <= position; j++) total += exp(score(op, q, cached(cache, j, kv_head, 0)) - largest);
  memset(z, 0, (size_t)d * sizeof *z);
  for (int32_t j = begin; j <= position; j++) {
    const float *value = cached(cache, j, kv_head, 1);
    double weight = exp(score(op, q, cached(cache, j, kv_head, 0)) - largest) / total;
    for (int i = 0; i < d; i++) z[i] = (float)(z[i] + weight * value[i]);
  }
}

static void attend_row(const struct cache *cache, int32_t row, int32_t position) {
  const struct op *op = cache->op;
  int group = op->u.attend.n_head / op->u.attend.n_kv_head, d = op->u.attend.d_head;
  for (int head = 0; head < op->u.attend.n_head; head++)
    attend_head(cache, rows_at(op->u.attend.qkv, row) + op->u.attend.q + head * d,
                rows_at(op->u.attend.z, row) + head * d, position, head / group);
}

static void each_row(const struct op *op, const struct step *step,
                     void (*visit)(const struct cache *, int32_t row, int32_t position)) {
  for (int slot = 0; slot < step->n_slots; slot++) {
    const struct step_slot *s = &step->slots[slot];
    if (!slot_active(s, op->layer)) continue;
    struct cache cache = {op, step, slot};
    for (int32_t row = s->rows.begin; row < s->rows.end; row++)
      visit(&cache, row, s->position + row - s->rows.begin);
  }
}

void ref_attend(const struct op *op, const struct step *step) {
  each_row(op, step, store_row);
  each_row(op, step, attend_row);
  if (!op->u.attend.bare) ref_point(op, step, SITE_ATTN_Z, op->u.attend.z, op_rows(op, step));
}

static const float *keys_at(const struct op *op, const struct step *step, int slot, int block, int kv_head) {
  struct cache cache = {op, step, slot};
  return cached(&cache, block * KV_BLOCK, kv_head, 0);
}

static void edit_whole_row(const void *context, const struct point_items *items, int32_t row, float *h, int64_t width) {
  (void)context;
  ref_point_row(items, row, h, 0, width);
}

int ref_pattern(const struct op *op, const struct step *step, struct error *error) {
  int64_t d = op->u.attend.d_head;
  struct explicit_ways ways = {.keys = keys_at, .key_position = d, .key_element = 1, .value_offset = KV_BLOCK * d,
                               .value_position = d, .point = edit_whole_row};
  size_t floats = size_max(explicit_scratch_floats(op, step), 1);
  float *scratch = malloc(floats * sizeof *scratch);
  if (!scratch) return error_memory(error, floats * sizeof *scratch);
  struct row_range rows = op_rows(op, step);
  for (int32_t row = rows.begin; row < rows.end; row++)
    if (explicit_wanted(op, step, row)) explicit_row(op, step, row, &ways, scratch);
  free(scratch);
  return 0;
}
