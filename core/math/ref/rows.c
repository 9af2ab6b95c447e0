/* rows.c: formulas over one row: activations, norms, edits, taps. Knows nothing of where rows come from. */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/math/ref/ref.h"

float ref_activate(enum activation act, float x) {
  double v = x;
  switch (act) {
    case ACT_NONE: return x;
    case ACT_RELU: return x < 0 ? 0 : x; /* NaN stays */
    case ACT_GELU_TANH: return (float)(0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))));
    case ACT_GELU_ERF: return (float)(0.5 * v * (1 + erf(v / sqrt(2))));
    case ACT_SILU: return (float)(v / (1 + exp(-v)));
  }
  assert(!"unknown activation");
  return x;
}

void ref_solu_row(int64_t width, const float *x, float *y) {
  double largest = -DBL_MAX, total = 0;
  for (int64_t i = 0; i < width; i++) largest = fmax(largest, x[i]);
  for (int64_t i = 0; i < width; i++) total += exp(x[i] - largest);
  for (int64_t i = 0; i < width; i++) y[i] = (float)(x[i] * exp(x[i] - largest) / total);
}

/* What the norm takes off every element. */
static double norm_middle(const struct norm *norm, int64_t width, const float *x) {
  double sum = 0;
  if (norm->kind != NORM_LAYER) return 0;
  for (int64_t i = 0; i < width; i++) sum += x[i];
  return sum / (double)width;
}

float ref_norm_scale(const struct norm *norm, int64_t width, const float *x) {
  double middle = norm_middle(norm, width, x), square = 0;
  for (int64_t i = 0; i < width; i++) square += (x[i] - middle) * (x[i] - middle);
  return (float)sqrt(square / (double)width + norm->eps);
}

void ref_normalize_row(const struct norm *norm, int64_t width, const float *x, float scale, float *y) {
  double middle = norm_middle(norm, width, x);
  for (int64_t i = 0; i < width; i++) y[i] = (float)((x[i] - middle) / scale);
}

void ref_gain_row(const struct norm *norm, int64_t width, const float *x, float *y) {
  const float *gain = span_floats(norm->gain), *bias = span_floats(norm->bias);
  for (int64_t i = 0; i < width; i++) y[i] = (float)(x[i] * (gain ? gain[i] : 1.0) + (bias ? bias[i] : 0.0));
}

void ref_norm_row(const struct norm *norm, int64_t width, const float *x, float *y) {
  if (norm->kind == NORM_NONE) {
    memmove(y, x, (size_t)width * sizeof *y);
    return;
  }
  ref_normalize_row(norm, width, x, ref_norm_scale(norm, width, x), y);
  ref_gain_row(norm, width, y, y);
}

static double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

static void add_scaled(float *h, double scale, const float *v, int64_t n) {
  for (int64_t i = 0; i < n; i++) h[i] = (float)(h[i] + scale * v[i]);
}

/* The activation of the item's feature at h, in folded units. */
static double feature_value(const struct edit_item *item, const float *h, struct edit_window window) {
  double p = dot(h, span_floats(item->enc) + window.skip, window.n) + item->bias;
  return p > fmax(item->threshold, 0) ? p * item->fold : 0;
}

static void edit_row(const struct edit_item *item, int64_t row, float *h, struct edit_window window) {
  const float *v = item->v.memory ? span_floats(item->v) + window.skip : NULL;
  int64_t n = window.n, stride = item->column_end - item->column_begin;
  switch (item->kind) {
    case EDIT_ROW_ADD: add_scaled(h, item->value, v, n); return;
    case EDIT_ROW_PROJECT: add_scaled(h, (item->value - 1.0) * dot(h, v, n), v, n); return;
    case EDIT_ROW_CAP: {
      double along = dot(h, v, n);
      add_scaled(h, fmin(along, item->value) - along, v, n);
      return;
    }
    case EDIT_ROW_SCALE:
      for (int64_t i = 0; i < n; i++) h[i] *= item->value;
      return;
    case EDIT_ROW_FILL:
      for (int64_t i = 0; i < n; i++) h[i] = item->value;
      return;
    case EDIT_ROW_COPY: memcpy(h, v, (size_t)n * sizeof *h); return;
    case EDIT_ROW_REPLACE: memcpy(h, v + (row - item->rows.begin) * stride, (size_t)n * sizeof *h); return;
    case EDIT_ROW_FEATURE_SET: add_scaled(h, item->value - feature_value(item, h, window), v, n); return;
    case EDIT_ROW_FEATURE_SCALE: {
      double a = feature_value(item, h, window);
      add_scaled(h, item->value * a - a, v, n);
      return;
    }
  }
  assert(!"unknown edit");
}

void ref_point_row(const struct point_items *items, int32_t row, float *h, int64_t column, int64_t width) {
  for (int i = 0; i < items->n_edits; i++) {
    const struct edit_item *item = &items->edits[i];
    struct edit_window window = edit_window(item, column, width);
    if (row_in(item->rows, row) && window.n > 0) edit_row(item, row, h + window.first, window);
  }
  for (int i = 0; i < items->n_taps; i++) {
    const struct tap_item *tap = &items->taps[i];
    if (row_in(tap->rows, row))
      memcpy(span_floats(tap->to) + (row - tap->rows.begin) * tap->ld + column, h, (size_t)width * sizeof *h);
  }
}

void ref_point(const struct op *op, const struct step *step, enum site site, struct rows x, struct row_range rows) {
  struct point_items items = point_items(step, op->layer, site);
  int64_t column = op->code == OP_POINT ? op->u.point.column : 0;
  for (int32_t row = rows.begin; row < rows.end; row++)
    ref_point_row(&items, op_step_row(op, step, row), rows_at(x, row), column, op->width);
}
