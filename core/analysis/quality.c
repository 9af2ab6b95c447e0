/* quality.c: sums over rows and what follows from them. Knows no model and no text. */
#include "core/analysis/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

#define PIECE 64 /* rows whose errors are made at a time */
#define SHORT_ROW 1e-4 /* what a reconstruction is not divided by, as in SAELens */

/* Of rows y and their reconstructions x^. */
struct lengths {
  double cosines, ratios;   /* sums of <y, x^> / (|y| |x^|) and |x^| / |y| */
  double made2, along;      /* sums of |x^|^2 and <y, x^> */
};

struct quality {
  const struct dict *dict;
  int64_t rows, entries;
  double error2;       /* sum of |y - x^|^2 */
  struct lengths lengths;
  double *mean, *away; /* [d_out]: running mean of y, and sum of squared distances from it (Welford) */
  float *errors;       /* [PIECE, d_out] */
  int64_t *fired;      /* [n_feat] */
  bool alone;          /* rows came of which nobody knew the errors */
};

struct quality *quality_new(const struct dict *dict, struct error *error) {
  const struct dict_info *info = dict_info(dict);
  size_t width = (size_t)info->d_out;
  struct quality *q = calloc(1, sizeof *q);
  if (!q) return error_memory(error, sizeof *q), NULL;
  q->dict = dict;
  q->mean = calloc(2 * width, sizeof *q->mean);
  q->errors = malloc(PIECE * width * sizeof *q->errors);
  q->fired = calloc((size_t)info->n_feat, sizeof *q->fired);
  if (q->mean && q->errors && q->fired) {
    q->away = q->mean + width;
    return q;
  }
  error_memory(error, PIECE * width * sizeof *q->errors);
  quality_free(q);
  return NULL;
}

void quality_free(struct quality *q) {
  if (!q) return;
  free(q->mean);
  free(q->errors);
  free(q->fired);
  free(q);
}

static void add_codes(struct quality *q, const struct sparse *codes, size_t first, size_t n) {
  for (size_t e = codes->start[first]; e < codes->start[first + n]; e++) q->fired[codes->index[e]]++;
  q->entries += (int64_t)(codes->start[first + n] - codes->start[first]);
}

/* A row with |y|^2, |x^|^2 and <y, x^>. */
static void add_lengths(struct lengths *sums, double row2, double made2, double along) {
  double row = sqrt(row2), made = sqrt(made2), both = row * made;
  sums->cosines += both > 0 ? along / both : 0;
  sums->ratios += row < SHORT_ROW ? made : made / row;
  sums->made2 += made2;
  sums->along += along;
}

static void add_row(struct quality *q, const float *y, const float *errors) {
  const struct dict_info *info = dict_info(q->dict);
  double centre = 0, row2 = 0, made2 = 0, along = 0;
  y += info->out_column;
  for (int64_t i = 0; info->center_mean && i < info->d_out; i++) centre += y[i];
  centre /= (double)info->d_out;
  q->rows++;
  for (int64_t i = 0; i < info->d_out; i++) {
    double value = y[i] - centre, off = value - q->mean[i];
    q->mean[i] += off / (double)q->rows;
    q->away[i] += off * (value - q->mean[i]);
    q->error2 += (double)errors[i] * errors[i];
    double made = value - errors[i];
    row2 += value * value;
    made2 += made * made;
    along += value * made;
  }
  add_lengths(&q->lengths, row2, made2, along);
}

int quality_add_errors(struct quality *q, const struct sparse *codes, size_t first, size_t n, const float *y, const float *errors,
                       struct error *error) {
  const struct dict_info *info = dict_info(q->dict);
  if (first + n > codes->n_rows) return error_set(error, ERROR_BUG, "rows without codes");
  if (n) add_codes(q, codes, first, n);
  for (size_t r = 0; r < n; r++) add_row(q, y + r * (size_t)info->out_width, errors + r * (size_t)info->d_out);
  return 0;
}

int quality_add(struct quality *q, const struct sparse *codes, size_t first, size_t n, const float *x, const float *y,
                struct error *error) {
  const struct dict_info *info = dict_info(q->dict);
  size_t in = (size_t)info->in_width, out = (size_t)info->out_width;
  if (first + n > codes->n_rows) return error_set(error, ERROR_BUG, "rows without codes");
  if (info->cross) {
    if (n) add_codes(q, codes, first, n);
    q->rows += (int64_t)n;
    q->alone = true;
    return 0;
  }
  for (size_t at = 0; at < n; at += PIECE) {
    size_t count = size_min(PIECE, n - at);
    dict_errors(q->dict, codes, first + at, count, x + at * in, y + at * out, q->errors);
    if (quality_add_errors(q, codes, first + at, count, y + at * out, q->errors, error) != 0) return -1;
  }
  return 0;
}

void quality_read(const struct quality *q, struct quality_figures *out) {
  double away = 0, rows = q->rows ? (double)q->rows : (double)NAN;
  for (int64_t i = 0; i < dict_info(q->dict)->d_out; i++) away += q->away[i];
  double unexplained = away > 0 ? q->error2 / away : (double)NAN;
  double mse = q->alone ? (double)NAN : q->error2 / rows;
  double known = q->alone ? (double)NAN : rows;
  *out = (struct quality_figures){.rows = q->rows, .l0 = (double)q->entries / rows, .mse = mse, .explained = 1 - unexplained, .unexplained = unexplained,
                                  .cosine = q->lengths.cosines / known, .l2_ratio = q->lengths.ratios / known,
                                  .bias = q->lengths.along != 0 ? q->lengths.made2 / q->lengths.along : (double)NAN};
}

/* ---- state ---- */

struct saved {
  int64_t rows, entries;
  double error2;
  struct lengths lengths;
};

size_t quality_bytes(const struct quality *q) {
  const struct dict_info *info = dict_info(q->dict);
  return sizeof(struct saved) + 2 * (size_t)info->d_out * sizeof *q->mean + (size_t)info->n_feat * sizeof *q->fired;
}

void quality_save(const struct quality *q, struct buffer *out) {
  const struct dict_info *info = dict_info(q->dict);
  struct saved head = {q->rows, q->entries, q->error2, q->lengths};
  buffer_append(out, &head, sizeof head);
  buffer_append(out, q->mean, 2 * (size_t)info->d_out * sizeof *q->mean); /* `away` lies behind it */
  buffer_append(out, q->fired, (size_t)info->n_feat * sizeof *q->fired);
}

int quality_load(struct quality *q, const void *data, size_t bytes, struct error *error) {
  const struct dict_info *info = dict_info(q->dict);
  size_t means = 2 * (size_t)info->d_out * sizeof *q->mean, fired = (size_t)info->n_feat * sizeof *q->fired;
  size_t wanted = quality_bytes(q);
  const char *at = data;
  struct saved head;
  if (bytes != wanted)
    return error_set(error, ERROR_FORMAT, "the saved figures have %zu bytes, expected %zu", bytes, wanted);
  memcpy(&head, at, sizeof head);
  memcpy(q->mean, at + sizeof head, means);
  memcpy(q->fired, at + sizeof head + means, fired);
  q->rows = head.rows;
  q->entries = head.entries;
  q->error2 = head.error2;
  q->lengths = head.lengths;
  return 0;
}

const int64_t *quality_fired(const struct quality *q) { return q->fired; }
