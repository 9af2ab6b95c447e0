/* points.c: edits and taps of one row at one point. The items come in their order; sums are the kernels'. */
#include <math.h>
#include <string.h>

#include "core/math/cpu/cpu.h"

/* The activation of the item's feature at h, in folded units. */
static float feature_value(const struct kernels *kernels, const struct edit_item *item, const float *h,
                           struct edit_window window) {
  float p = kernels->dot(h, span_floats(item->enc) + window.skip, window.n) + item->bias;
  return p > fmaxf(item->threshold, 0) ? p * item->fold : 0;
}

/* How far h goes along v, for the edits that are h += f v. */
static float distance(const struct kernels *kernels, const struct edit_item *item, const float *h,
                      struct edit_window window) {
  const float *v = span_floats(item->v) + window.skip;
  float value = item->value, along;
  switch (item->kind) {
    case EDIT_ROW_PROJECT: return (value - 1) * kernels->dot(h, v, window.n);
    case EDIT_ROW_CAP:
      along = kernels->dot(h, v, window.n);
      return fminf(along, value) - along;
    case EDIT_ROW_FEATURE_SET: return value - feature_value(kernels, item, h, window);
    case EDIT_ROW_FEATURE_SCALE:
      along = feature_value(kernels, item, h, window);
      return value * along - along;
    default: return value; /* EDIT_ROW_ADD */
  }
}

static void edit_row(const struct kernels *kernels, const struct edit_item *item, int32_t row, float *h,
                     struct edit_window window) {
  const float *v = item->v.memory ? span_floats(item->v) + window.skip : NULL;
  int64_t n = window.n, stride = item->column_end - item->column_begin;
  switch (item->kind) {
    case EDIT_ROW_SCALE:
      for (int64_t i = 0; i < n; i++) h[i] *= item->value;
      return;
    case EDIT_ROW_FILL:
      for (int64_t i = 0; i < n; i++) h[i] = item->value;
      return;
    case EDIT_ROW_COPY: memcpy(h, v, (size_t)n * sizeof *h); return;
    case EDIT_ROW_REPLACE: memcpy(h, v + (row - item->rows.begin) * stride, (size_t)n * sizeof *h); return;
    default: kernels->add_scaled(h, distance(kernels, item, h, window), v, n); return;
  }
}

void point_row(const struct kernels *kernels, const struct point_items *items, int32_t row, float *h, int64_t column,
               int64_t width) {
  for (int i = 0; i < items->n_edits; i++) {
    const struct edit_item *item = &items->edits[i];
    struct edit_window window = edit_window(item, column, width);
    if (!row_in(item->rows, row) || window.n <= 0) continue;
    edit_row(kernels, item, row, h + window.first, window);
  }
  for (int i = 0; i < items->n_taps; i++) {
    const struct tap_item *tap = &items->taps[i];
    if (row_in(tap->rows, row))
      memcpy(span_floats(tap->to) + (row - tap->rows.begin) * tap->ld + column, h, (size_t)width * sizeof *h);
  }
}
