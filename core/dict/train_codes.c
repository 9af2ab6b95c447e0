/* train_codes.c: which features fire in the rows of a step, by rows and by features. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/train_int.h"

/* ---- by rows ---- */

static int encode(struct trainer *t, enum encode_kind kind, struct error *error) {
  const struct train_options *o = &t->options;
  const struct encode_args args = {.kind = kind, .w = t->matrix, .x = {{t->rows, 0}, o->width}, .n_rows = o->batch,
                                   .bias = {t->bias, 0}, .threshold = {t->least, 0}, .k = (int32_t)o->k};
  t->codes.n_rows = 0;
  return t->backend->ops->encode(t->backend, &args, &t->codes, error);
}

static size_t entries_of(const struct sparse *codes) { return codes->n_rows ? codes->start[codes->n_rows] : 0; }

/* ---- the largest of all rows ---- */

/* Floats above 0 stand in the order of their bits. */
static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* Where the k-th largest falls among counts [1 << 16] of keys; *above: how many are in larger ones. 1 <= k <= their sum. */
static uint32_t find_bucket(const uint32_t *counts, size_t k, size_t *above) {
  uint32_t bucket = 0xFFFF;
  *above = 0;
  while (*above + counts[bucket] < k) *above += counts[bucket--];
  return bucket;
}

/* The k-th largest value's bits by their upper, then their lower halves; *equal: how many with these bits are among the k. */
static uint32_t kth_bits(const float *value, size_t n, size_t k, uint32_t *counts, size_t *equal) {
  size_t above, below;
  memset(counts, 0, sizeof *counts << 16);
  for (size_t i = 0; i < n; i++) counts[bits_of(value[i]) >> 16]++;
  uint32_t high = find_bucket(counts, k, &above);
  memset(counts, 0, sizeof *counts << 16);
  for (size_t i = 0; i < n; i++)
    if (bits_of(value[i]) >> 16 == high) counts[bits_of(value[i]) & 0xFFFF]++;
  uint32_t low = find_bucket(counts, k - above, &below);
  *equal = k - above - below;
  return high << 16 | low;
}

/* Of equal values those of earlier rows, then of lower features, stay. */
static void keep_above(struct sparse *codes, uint32_t least, size_t equal) {
  size_t kept = 0, at = 0;
  for (size_t row = 0; row < codes->n_rows; row++) {
    for (size_t end = codes->start[row + 1]; at < end; at++) {
      uint32_t bits = bits_of(codes->value[at]);
      bool stays = bits > least || (bits == least && equal > 0);
      if (stays && bits == least) equal--;
      codes->value[kept] = codes->value[at];
      codes->index[kept] = codes->index[at];
      kept += stays;
    }
    codes->start[row + 1] = kept;
  }
}

static double threshold_keeps(int64_t steps) {
  double keeps = 1 - 1 / (1 + (double)steps / 20);
  return keeps < 0.99 ? keeps : 0.99;
}

static int keep_largest(struct trainer *t, size_t k, struct error *error) {
  size_t n = entries_of(&t->codes), equal;
  float least = INFINITY;
  if (n > k) {
    uint32_t *counts = malloc(sizeof *counts << 16);
    if (!counts) return error_memory(error, sizeof *counts << 16);
    uint32_t bits = kth_bits(t->codes.value, n, k, counts, &equal);
    keep_above(&t->codes, bits, equal);
    free(counts);
  }
  for (size_t i = 0; i < entries_of(&t->codes); i++) least = fminf(least, t->codes.value[i]);
  if (!isfinite(least)) return 0;
  t->cut = least;
  double keeps = threshold_keeps(t->options.steps);
  t->threshold = keeps * t->threshold + (1 - keeps) * least;
  t->weight = keeps * t->weight + (1 - keeps);
  return 0;
}

/* What is far below the last step's smallest is not brought at first; where too little is left, all is. Either way the same are
 * kept. */
static int encode_batch(struct trainer *t, struct error *error) {
  size_t k = (size_t)t->options.k * (size_t)t->options.batch;
  for (int64_t f = 0; f < t->options.n_feat; f++) t->bias_rows[f] = t->cut * 0.75f; /* as scratch: a step ends by writing them */
  if (t->backend->ops->write(t->backend, (struct span){t->least, 0}, t->bias_rows, (size_t)t->options.n_feat * sizeof(float), error) != 0 ||
      encode(t, ENCODE_JUMPRELU, error) != 0)
    return -1;
  if (entries_of(&t->codes) < k && t->cut > 0 && encode(t, ENCODE_RELU, error) != 0) return -1;
  return keep_largest(t, k, error);
}

int train_encode_above(struct trainer *t, struct error *error) { return encode(t, ENCODE_RELU, error); }

int train_encode(struct trainer *t, struct error *error) {
  if (t->options.kind == TRAIN_BATCHTOPK) return encode_batch(t, error);
  if (t->options.kind == TRAIN_JUMPRELU) return train_jump_encode(t, error);
  return encode(t, t->options.kind == TRAIN_TOPK ? ENCODE_TOPK : ENCODE_RELU, error);
}

void train_unfold(const struct trainer *t, struct sparse *codes, const int32_t *of) {
  for (size_t i = 0; i < entries_of(codes); i++) {
    int32_t f = of ? of[codes->index[i]] : codes->index[i];
    codes->value[i] /= t->norms[f];
  }
}

/* ---- by features ---- */

static int columns_room(struct train_columns *columns, size_t entries, int64_t n_feat, struct error *error) {
  if (!columns->start) columns->start = calloc((size_t)n_feat + 2, sizeof *columns->start);
  if (!columns->start) return error_memory(error, (size_t)n_feat * sizeof *columns->start);
  if (entries <= columns->capacity) return 0;
  free(columns->row);
  free(columns->value);
  columns->capacity = entries + entries / 4;
  columns->row = malloc(columns->capacity * sizeof *columns->row);
  columns->value = malloc(columns->capacity * sizeof *columns->value);
  if (columns->row && columns->value) return 0;
  columns->capacity = 0;
  return error_memory(error, entries * (sizeof *columns->row + sizeof *columns->value));
}

/* start[f + 2] counts, then start[f + 1] is where the next entry of f goes, and its end behind the last. */
int train_columns_make(struct train_columns *columns, const struct sparse *codes, int64_t n_feat, struct error *error) {
  size_t n = entries_of(codes), *start;
  if (columns_room(columns, n, n_feat, error) != 0) return -1;
  start = columns->start;
  memset(start, 0, ((size_t)n_feat + 2) * sizeof *start);
  for (size_t i = 0; i < n; i++) start[codes->index[i] + 2]++;
  for (int64_t f = 0; f < n_feat; f++) start[f + 2] += start[f + 1];
  for (size_t row = 0; row < codes->n_rows; row++)
    for (size_t i = codes->start[row]; i < codes->start[row + 1]; i++) {
      size_t at = start[codes->index[i] + 1]++;
      columns->row[at] = (int32_t)row;
      columns->value[at] = codes->value[i];
    }
  return 0;
}

void train_columns_free(struct train_columns *columns) {
  free(columns->start);
  free(columns->row);
  free(columns->value);
}
