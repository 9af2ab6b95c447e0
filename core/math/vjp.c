/* vjp.c: the way back through one row: edits, copies, residuals, positions, and the pieces that norms are taken apart into. Knows
 * neither products nor who calls it. */
#include "core/math/vjp.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

void cotangents_take(float *from, int64_t n, float *to) {
  memcpy(to, from, (size_t)n * sizeof *to);
  memset(from, 0, (size_t)n * sizeof *from);
}

static void add_to(float *to, const float *g, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += g[i];
}

static double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

double activation_slope(enum activation act, double x) {
  switch (act) {
    case ACT_NONE: return 1;
    case ACT_RELU: return x > 0;
    case ACT_GELU_TANH: {
      double c = sqrt(2 / M_PI), t = tanh(c * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
    }
    case ACT_GELU_ERF: return 0.5 * (1 + erf(x / sqrt(2))) + x * exp(-0.5 * x * x) / sqrt(2 * M_PI);
    case ACT_SILU: {
      double s = 1 / (1 + exp(-x));
      return s * (1 + x * (1 - s));
    }
  }
  assert(!"unknown activation");
  return 0;
}

/* ---- edits ---- */

/* The row in front of edit `i` of the point. */
static const float *before_edit(const struct way_back *back, struct point_items items, int i, int32_t row, float *h) {
  const struct op *op = back->op;
  assert(op->u.point.before.at.memory);
  memcpy(h, rows_at(op->u.point.before, row), (size_t)op->width * sizeof *h);
  items.n_edits = i;
  items.n_taps = 0;
  back->point(back->context, &items, op_step_row(op, back->step, row), h, op->u.point.column, op->width);
  return h;
}

static void back_along(float *g, double factor, const float *v, int64_t n) {
  for (int64_t i = 0; i < n; i++) g[i] = (float)(g[i] + factor * v[i]);
}

/* a = act(h.enc + bias) * fold: with its slope, h += (value - a) v or (value - 1) a v. */
static void back_feature(const struct edit_item *item, const float *h, float *g, struct edit_window window) {
  const float *v = span_floats(item->v) + window.skip, *enc = span_floats(item->enc) + window.skip;
  double p = dot(h, enc, window.n) + item->bias;
  if (!(p > fmax(item->threshold, 0))) return;
  double times = item->kind == EDIT_ROW_FEATURE_SET ? -1.0 : item->value - 1.0;
  back_along(g, times * dot(g, v, window.n) * item->fold, enc, window.n);
}

/* g: of the columns that the edit changes; h: what was there, for those that ask. */
static void back_edit(const struct edit_item *item, const float *h, float *g, struct edit_window window) {
  const float *v = item->v.memory ? span_floats(item->v) + window.skip : NULL;
  switch (item->kind) {
    case EDIT_ROW_ADD: return;
    case EDIT_ROW_PROJECT: back_along(g, (item->value - 1.0) * dot(g, v, window.n), v, window.n); return;
    case EDIT_ROW_CAP:
      if (dot(h, v, window.n) > item->value) back_along(g, -dot(g, v, window.n), v, window.n);
      return;
    case EDIT_ROW_SCALE:
      for (int64_t i = 0; i < window.n; i++) g[i] *= item->value;
      return;
    case EDIT_ROW_FILL:
    case EDIT_ROW_COPY:
    case EDIT_ROW_REPLACE: memset(g, 0, (size_t)window.n * sizeof *g); return;
    case EDIT_ROW_FEATURE_SET:
    case EDIT_ROW_FEATURE_SCALE: back_feature(item, h, g, window); return;
  }
}

static void back_point(const struct way_back *back, int32_t row, float *scratch) {
  const struct op *op = back->op;
  struct point_items items = point_items(back->step, op->layer, op->u.point.site);
  float *g = cotangents_at(back->vjp, op->u.point.x, row);
  for (int i = items.n_edits - 1; i >= 0; i--) {
    const struct edit_item *item = &items.edits[i];
    struct edit_window window = edit_window(item, op->u.point.column, op->width);
    if (!row_in(item->rows, op_step_row(op, back->step, row)) || window.n <= 0) continue;
    const float *h = edit_asks(item->kind) ? before_edit(back, items, i, row, scratch) + window.first : NULL;
    back_edit(item, h, g + window.first, window);
  }
}

/* ---- norms in pieces ---- */

static int parts_of(const struct op *op) { return op->u.norm.parts ? op->u.norm.parts : 1; }

static double mean_of(const struct norm *norm, const float *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; norm->kind == NORM_LAYER && i < n; i++) sum += x[i];
  return sum / (double)n;
}

/* s = sqrt(mean((x - m)^2) + eps); the mean's own part is 0, because x - m adds up to 0. */
static void back_norm_scale(const struct way_back *back, int32_t row) {
  const struct op *op = back->op;
  int64_t n = op->width;
  for (int part = 0; part < parts_of(op); part++) {
    const float *x = rows_at(op->u.norm.x, row) + part * n;
    float *to = cotangents_at(back->vjp, op->u.norm.x, row) + part * n, g;
    cotangents_take(cotangents_at(back->vjp, op->u.norm.scale, row) + part, 1, &g);
    if (back->vjp->hold_norms) continue;
    double middle = mean_of(&op->u.norm.norm, x, n), times = (double)g / rows_at(op->u.norm.scale, row)[part] / (double)n;
    for (int64_t i = 0; i < n; i++) to[i] = (float)(to[i] + times * (x[i] - middle));
  }
}

static void back_normalize(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  int64_t n = op->width;
  for (int part = 0; part < parts_of(op); part++) {
    const float *x = rows_at(op->u.norm.x, row) + part * n;
    double scale = rows_at(op->u.norm.scale, row)[part], middle = mean_of(&op->u.norm.norm, x, n), along = 0;
    cotangents_take(cotangents_at(back->vjp, op->u.norm.y, row) + part * n, n, g);
    float *to = cotangents_at(back->vjp, op->u.norm.x, row) + part * n;
    double mean = mean_of(&op->u.norm.norm, g, n);
    for (int64_t i = 0; i < n; i++) to[i] = (float)(to[i] + (g[i] - mean) / scale);
    for (int64_t i = 0; i < n; i++) along += g[i] * (x[i] - middle);
    float *to_scale = cotangents_at(back->vjp, op->u.norm.scale, row) + part;
    *to_scale = (float)(*to_scale - along / (scale * scale));
  }
}

static void back_gain(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  const float *gain = span_floats(op->u.norm.norm.gain);
  for (int part = 0; part < parts_of(op); part++) {
    float *to = cotangents_at(back->vjp, op->u.norm.x, row) + part * op->width;
    cotangents_take(cotangents_at(back->vjp, op->u.norm.y, row) + part * op->width, op->width, g);
    for (int64_t i = 0; i < op->width; i++) to[i] += g[i] * (gain ? gain[i] : 1);
  }
}

/* ---- the others ---- */

/* y = x p with p = softmax(x). */
static void back_solu(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  const float *x = rows_at(op->u.solu.x, row);
  float *to = cotangents_at(back->vjp, op->u.solu.x, row);
  double largest = -DBL_MAX, total = 0, mean = 0;
  cotangents_take(cotangents_at(back->vjp, op->u.solu.y, row), op->width, g);
  for (int64_t i = 0; i < op->width; i++) largest = fmax(largest, x[i]);
  for (int64_t i = 0; i < op->width; i++) total += exp(x[i] - largest);
  for (int64_t i = 0; i < op->width; i++) mean += (double)g[i] * x[i] * exp(x[i] - largest) / total;
  for (int64_t i = 0; i < op->width; i++) to[i] = (float)(to[i] + exp(x[i] - largest) / total * (g[i] + (double)g[i] * x[i] - mean));
}

/* A turn by an angle, factor and all, is undone as far as it is a turn: its transpose. */
static void back_rotate(const struct way_back *back, int32_t row) {
  const struct op *op = back->op;
  int half = op->u.rotate.dims / 2;
  bool halves = op->u.rotate.pairing == ROTARY_HALVES;
  const float *cosine = span_floats(op->u.rotate.table) + (int64_t)back->step->position[row] * op->u.rotate.dims;
  for (int head = 0; head < op->u.rotate.heads; head++) {
    float *g = cotangents_at(back->vjp, op->u.rotate.x, row) + head * op->width;
    for (int i = 0; i < half; i++) {
      float *a = halves ? g + i : g + 2 * i, *b = halves ? a + half : a + 1;
      double c = cosine[i], s = cosine[half + i], was = *a;
      *a = (float)(was * c + *b * s);
      *b = (float)(*b * c - was * s);
    }
  }
}

/* y = cap tanh(x / cap) has the slope 1 - (y / cap)^2. */
static void back_cap(const struct way_back *back, int32_t row) {
  const struct op *op = back->op;
  const float *y = rows_at(op->u.linear.y, row);
  float *g = cotangents_at(back->vjp, op->u.linear.y, row);
  double cap = op->u.linear.soft_cap;
  for (int64_t i = 0; i < op->u.linear.w->n_out; i++) g[i] = (float)(g[i] * (1 - y[i] / cap * (y[i] / cap)));
}

static void back_begin(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  if (!op->u.begin.embedded.at.memory) return;
  cotangents_take(cotangents_at(back->vjp, op->u.begin.to, row), op->width, g);
  add_to(cotangents_at(back->vjp, op->u.begin.embedded, row), g, op->width);
  if (op->u.begin.positions.memory) add_to(cotangents_at(back->vjp, op->u.begin.placed, row), g, op->width);
}

/* to += x - before, in rows that an edit of the point covers. */
static void back_delta(const struct way_back *back, int32_t row) {
  const struct op *op = back->op;
  struct point_items items = point_items(back->step, op->layer, op->u.point.site);
  if (!items_edit(&items, op_step_row(op, back->step, row))) return;
  const float *g = cotangents_at(back->vjp, op->u.point.to, row);
  float *before = cotangents_at(back->vjp, op->u.point.before, row);
  add_to(cotangents_at(back->vjp, op->u.point.x, row), g, op->width);
  for (int64_t i = 0; i < op->width; i++) before[i] -= g[i];
}

/* Columns [begin, end) of y, which came from row `from` of x. */
static void back_columns(const struct way_back *back, int32_t row, int32_t from, int64_t begin, int64_t end, float *g) {
  const struct op *op = back->op;
  cotangents_take(cotangents_at(back->vjp, op->u.gather.y, row), op->width, g);
  add_to(cotangents_at(back->vjp, op->u.gather.x, from) + begin, g + begin, end - begin);
}

static void back_place(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  cotangents_take(cotangents_at(back->vjp, op->u.place.y, row), op->width, g);
  add_to(cotangents_at(back->vjp, op->u.place.x, row), g, op->width);
}

bool vjp_goes_by_rows(enum op_code code) {
  return code != OP_NORM && code != OP_LINEAR && code != OP_GATE && code != OP_ATTEND;
}

size_t vjp_scratch_floats(const struct op *op) { return (size_t)op->width; }

void vjp_row(const struct way_back *back, int32_t row, float *scratch) {
  const struct op *op = back->op;
  switch (op->code) {
    case OP_BEGIN: back_begin(back, row, scratch); return;
    case OP_EMBED: return;
    case OP_NORM_SCALE: back_norm_scale(back, row); return;
    case OP_NORMALIZE: back_normalize(back, row, scratch); return;
    case OP_GAIN: back_gain(back, row, scratch); return;
    case OP_SOLU: back_solu(back, row, scratch); return;
    case OP_PLACE: back_place(back, row, scratch); return;
    case OP_ROTATE: back_rotate(back, row); return;
    case OP_SUBLAYER:
      add_to(cotangents_at(back->vjp, op->u.sublayer.out, row), cotangents_at(back->vjp, op->u.sublayer.resid, row), op->width);
      return;
    case OP_POINT: back_point(back, row, scratch); return;
    case OP_GATHER: back_columns(back, row, back->step->logit_row[row], 0, op->width, scratch); return;
    case OP_COPY: back_columns(back, row, row, 0, op->width, scratch); return;
    case OP_KEEP: back_columns(back, row, row, op->u.gather.begin, op->u.gather.end, scratch); return;
    case OP_CAP: back_cap(back, row); return;
    case OP_DELTA: back_delta(back, row); return;
    default: assert(!"an op without a way back");
  }
}
