/* vjp.c: the obvious way back: products, norms, activations and attention as their formulas stand, in double. */
#include "core/math/vjp.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/ref/ref.h"

static void add_to(float *to, double value) { *to = (float)(*to + value); }

/* dx = dy W. */
static void back_linear(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  const struct matrix *w = op->u.linear.w;
  float *to = cotangents_at(back->vjp, op->u.linear.x, row);
  cotangents_take(cotangents_at(back->vjp, op->u.linear.y, row), w->n_out, g);
  for (int64_t in = 0; in < w->n_in; in++) {
    double sum = 0;
    for (int64_t out = 0; out < w->n_out; out++) sum += g[out] * ref_weight(w, out, in);
    add_to(&to[in], sum);
  }
}

static void back_gate(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  const float *x = rows_at(op->u.gate.x, row), *up = op->u.gate.up.at.memory ? rows_at(op->u.gate.up, row) : NULL;
  float *to = cotangents_at(back->vjp, op->u.gate.x, row), *to_up = up ? cotangents_at(back->vjp, op->u.gate.up, row) : NULL;
  cotangents_take(cotangents_at(back->vjp, op->u.gate.y, row), op->width, g);
  for (int64_t i = 0; i < op->width; i++) {
    add_to(&to[i], g[i] * activation_slope(op->u.gate.act, x[i]) * (up ? up[i] : 1));
    if (up) add_to(&to_up[i], (double)g[i] * ref_activate(op->u.gate.act, x[i]));
  }
}

/* With h = (x - m) / s and e = dy * gain: dx = (e - mean(e) - h mean(e h)) / s, without the first mean for RMS, without the second where
 * s is a constant. */
static void back_norm_part(const struct way_back *back, const float *x, const float *g, float *to) {
  const struct norm *norm = &back->op->u.norm.norm;
  const float *gain = span_floats(norm->gain);
  int64_t n = back->op->width;
  bool centred = norm->kind == NORM_LAYER;
  double middle = 0, scale = ref_norm_scale(norm, n, x), mean = 0, along = 0;
  for (int64_t i = 0; centred && i < n; i++) middle += x[i] / (double)n;
  for (int64_t i = 0; i < n; i++) {
    double e = g[i] * (gain ? gain[i] : 1.0);
    mean += centred ? e / (double)n : 0;
    along += back->vjp->hold_norms ? 0 : e * (x[i] - middle) / scale / (double)n;
  }
  for (int64_t i = 0; i < n; i++)
    add_to(&to[i], (g[i] * (gain ? gain[i] : 1.0) - mean - (x[i] - middle) / scale * along) / scale);
}

static void back_norm(const struct way_back *back, int32_t row, float *g) {
  const struct op *op = back->op;
  for (int part = 0; part < (op->u.norm.parts ? op->u.norm.parts : 1); part++) {
    float *to = cotangents_at(back->vjp, op->u.norm.x, row) + part * op->width;
    cotangents_take(cotangents_at(back->vjp, op->u.norm.y, row) + part * op->width, op->width, g);
    if (op->u.norm.norm.kind == NORM_NONE)
      for (int64_t i = 0; i < op->width; i++) to[i] += g[i];
    else
      back_norm_part(back, rows_at(op->u.norm.x, row) + part * op->width, g, to);
  }
}

/* ---- attention ---- */

/* A head of a query. Positions count from the slot's rows. */
struct looker {
  const struct way_back *back;
  int32_t first, row; /* row of position 0, row of the query */
  int head;
};

static int64_t key_column(const struct looker *l, int64_t begin) {
  const struct op *op = l->back->op;
  return begin + l->head / (op->u.attend.n_head / op->u.attend.n_kv_head) * (int64_t)op->u.attend.d_head;
}

static const float *key_of(const struct looker *l, int32_t j) {
  return rows_at(l->back->op->u.attend.qkv, l->first + j) + key_column(l, l->back->op->u.attend.k);
}
static const float *value_of(const struct looker *l, int32_t j) {
  return rows_at(l->back->op->u.attend.qkv, l->first + j) + key_column(l, l->back->op->u.attend.v);
}

static double product(const float *a, const float *b, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

/* The pattern of the query into p [position + 1], and into slope how each score grows with the scaled product. */
static void look(const struct looker *l, const float *q, int32_t begin, int32_t position, double *p, double *slope) {
  const struct op *op = l->back->op;
  double largest = -DBL_MAX, total = 0, cap = op->u.attend.soft_cap;
  for (int32_t j = begin; j <= position; j++) {
    double score = product(q, key_of(l, j), op->u.attend.d_head) * op->u.attend.scale, bent = tanh(score / cap);
    p[j] = cap > 0 ? cap * bent : score;
    slope[j] = cap > 0 ? 1 - bent * bent : 1;
    largest = fmax(largest, p[j]);
  }
  for (int32_t j = begin; j <= position; j++) total += p[j] = exp(p[j] - largest);
  for (int32_t j = begin; j <= position; j++) p[j] /= total;
}

/* dv_j = p_j dz; with s_j the score: ds_j = p_j (dz.v_j - sum_i p_i dz.v_i), through the cap to q and k_j. */
static void back_head(const struct looker *l, int32_t position, const float *g, double *p, double *slope) {
  const struct op *op = l->back->op;
  const struct vjp *vjp = l->back->vjp;
  int d = op->u.attend.d_head;
  int32_t begin = window_begin(position, op->u.attend.window);
  const float *q = rows_at(op->u.attend.qkv, l->row) + op->u.attend.q + l->head * d;
  float *to = cotangents_at(vjp, op->u.attend.qkv, l->row) + op->u.attend.q + l->head * d;
  double mean = 0;
  look(l, q, begin, position, p, slope);
  for (int32_t j = begin; j <= position; j++) mean += p[j] * product(g, value_of(l, j), d);
  for (int32_t j = begin; j <= position; j++) {
    float *row = cotangents_at(vjp, op->u.attend.qkv, l->first + j);
    float *to_key = row + key_column(l, op->u.attend.k), *to_value = row + key_column(l, op->u.attend.v);
    double score = p[j] * (product(g, value_of(l, j), d) - mean) * slope[j] * op->u.attend.scale;
    for (int i = 0; i < d; i++) add_to(&to_value[i], p[j] * g[i]);
    for (int i = 0; !vjp->hold_pattern && i < d; i++) {
      add_to(&to[i], score * key_of(l, j)[i]);
      add_to(&to_key[i], score * q[i]);
    }
  }
}

static void back_slot(const struct way_back *back, const struct step_slot *slot, float *g, double *p) {
  const struct op *op = back->op;
  int32_t keys = slot->position + slot->rows.end - slot->rows.begin;
  for (int32_t row = slot->rows.begin; row < slot->rows.end; row++) {
    int32_t position = slot->position + row - slot->rows.begin;
    cotangents_take(cotangents_at(back->vjp, op->u.attend.z, row), op->width, g);
    for (int head = 0; head < op->u.attend.n_head; head++) {
      struct looker l = {back, slot->rows.begin - slot->position, row, head};
      back_head(&l, position, g + head * op->u.attend.d_head, p, p + keys);
    }
  }
}

static int back_attend(const struct way_back *back, struct error *error) {
  const struct step *step = back->step;
  size_t keys = 0, width = (size_t)back->op->width;
  for (int i = 0; i < step->n_slots; i++)
    keys = size_max(keys, (size_t)(step->slots[i].position + step->slots[i].rows.end - step->slots[i].rows.begin));
  double *p = malloc(2 * keys * sizeof *p);
  float *g = malloc(width * sizeof *g);
  int failed = p && g ? 0 : error_memory(error, 2 * keys * sizeof *p);
  for (int i = 0; !failed && i < step->n_slots; i++)
    if (slot_active(&step->slots[i], back->op->layer)) back_slot(back, &step->slots[i], g, p);
  free(p);
  free(g);
  return failed;
}

/* ---- all ---- */

static void edit_row(const void *context, const struct point_items *items, int32_t row, float *h, int64_t column, int64_t width) {
  (void)context;
  ref_point_row(items, row, h, column, width);
}

static void back_row(const struct way_back *back, int32_t row, float *scratch) {
  switch (back->op->code) {
    case OP_LINEAR: back_linear(back, row, scratch); return;
    case OP_GATE: back_gate(back, row, scratch); return;
    case OP_NORM: back_norm(back, row, scratch); return;
    default: vjp_row(back, row, scratch); return;
  }
}

int ref_vjp(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error) {
  (void)backend;
  struct way_back back = {.op = op, .step = step, .vjp = vjp, .point = edit_row};
  if (op->code == OP_ATTEND) return back_attend(&back, error);
  size_t floats = size_max(op->code == OP_LINEAR ? (size_t)op->u.linear.w->n_out : vjp_scratch_floats(op), 1);
  float *scratch = malloc(floats * sizeof *scratch);
  if (!scratch) return error_memory(error, floats * sizeof *scratch);
  struct row_range rows = op_rows(op, step);
  for (int32_t row = rows.begin; row < rows.end; row++) back_row(&back, row, scratch);
  free(scratch);
  return 0;
}
