/* train_jump.c: JUMPRELU's thresholds, which learn from the rows that come near them: straight-through estimates in place of slopes
 * that are 0 (Rajamanoharan et al. 2024, "Jumping ahead"; Anthropic, January 2025).
 *
 * One encode brings what is kept and what is near: with u = s / n - t + bandwidth / 2, all u > 0 are brought; of these u > bandwidth / 2
 * are kept, u < bandwidth are near. */
#include <math.h>
#include <stdlib.h>

#include "core/dict/train_int.h"

double train_l0_of(const struct trainer *t) {
  const struct train_options *o = &t->options;
  return o->kind == TRAIN_JUMPRELU ? o->l0 * train_ramp(t->step, o->l0_warm_up) : 0;
}

/* ---- forward ---- */

/* Takes apart what u > 0 has brought. */
static void split_row(struct trainer *t, size_t row, size_t *at, size_t *kept) {
  struct sparse *codes = &t->codes, *near = &t->jump.near;
  float width = (float)t->options.bandwidth;
  for (size_t end = codes->start[row + 1]; *at < end; ++*at) {
    int32_t f = codes->index[*at];
    float u = codes->value[*at], n = t->norms[f], s = u + n * (t->thresholds.value[f] - width / 2);
    bool stays = u > n * width / 2;
    if (u < n * width) sparse_push(near, f, stays ? s : 0);
    codes->index[*kept] = f;
    codes->value[*kept] = s;
    *kept += stays;
  }
  codes->start[row + 1] = *kept;
}

int train_jump_encode(struct trainer *t, struct error *error) {
  size_t at = 0, kept = 0;
  if (train_encode_above(t, error) != 0) return -1;
  t->jump.near.n_rows = 0;
  for (size_t row = 0; row < t->codes.n_rows; row++) {
    if (sparse_row(&t->jump.near, t->codes.start[row + 1] - at, error) != 0) return -1;
    split_row(t, row, &at, &kept);
  }
  return 0;
}

static double count_loss(struct trainer *t) {
  const struct train_options *o = &t->options;
  double l0 = train_l0_of(t), target = o->target_l0, sum = 0;
  for (int64_t row = 0; row < o->batch; row++) {
    double count = (double)(t->codes.start[row + 1] - t->codes.start[row]), off = count - target;
    bool step = o->l0_loss == TRAIN_L0_STEP;
    sum += step ? count : 2 / target * off * off;
    t->jump.row_slope[row] = (float)(l0 * (step ? 1 : 4 / target * off) / (double)o->batch);
  }
  return l0 * sum / (double)o->batch;
}

static int each_room(struct trainer *t, struct error *error) {
  struct train_jump *jump = &t->jump;
  size_t n = t->columns.capacity + 1;
  if (!jump->loss) jump->loss = calloc((size_t)t->options.n_feat, sizeof *jump->loss);
  if (n > jump->room) {
    free(jump->each);
    jump->each = malloc(n * sizeof *jump->each);
    jump->room = jump->each ? n : 0;
  }
  return jump->each && jump->loss ? 0 : error_memory(error, n * sizeof *jump->each);
}

int train_jump_slopes(struct trainer *t, double *loss, struct error *error) {
  if (!t->jump.row_slope) t->jump.row_slope = train_floats(1, t->options.batch); /* of TANH they stay 0 */
  if (!t->jump.row_slope) return error_memory(error, (size_t)t->options.batch * sizeof(float));
  if (t->options.l0_loss == TRAIN_L0_TANH) {
    if (each_room(t, error) != 0) return -1;
  } else
    *loss = count_loss(t);
  return train_columns_make(&t->jump.columns, &t->jump.near, t->options.n_feat, error);
}

/* ---- tanh ---- */

/* What the loss makes of an activation whose s is given. */
static double tanh_slope(const struct trainer *t, double s, double n, double *value) {
  *value = tanh(t->options.tanh_scale * s);
  return train_l0_of(t) / (double)t->options.batch * t->options.tanh_scale * n * (1 - *value * *value);
}

void train_jump_each(struct trainer *t, int64_t f) {
  double sum = 0, value;
  if (t->options.l0_loss != TRAIN_L0_TANH) return;
  for (size_t i = t->columns.start[f]; i < t->columns.start[f + 1]; i++) {
    t->jump.each[i] = (float)tanh_slope(t, (double)t->columns.value[i] * t->norms[f], t->norms[f], &value);
    sum += value;
  }
  t->jump.loss[f] = sum;
}

double train_jump_loss(const struct trainer *t) {
  double sum = 0;
  for (int64_t f = 0; f < t->options.n_feat; f++) sum += t->jump.loss[f];
  return train_l0_of(t) * sum / (double)t->options.batch;
}

/* Its decoder row's length stands in s. */
static void learn_length(struct trainer *t, int64_t f) {
  int64_t width = train_width_out(&t->options);
  double sum = 0, n = t->norms[f];
  for (size_t i = t->columns.start[f]; i < t->columns.start[f + 1]; i++) sum += (double)t->jump.each[i] * t->columns.value[i];
  t->learn->add_scaled(t->dec.gradient + f * width, (float)(sum / (n * n)), t->dec.value + f * width, width);
}

/* ---- thresholds ---- */

bool train_jump_learns(const struct trainer *t, int64_t f) { return t->jump.columns.start[f + 1] > t->jump.columns.start[f]; }

/* Entry i of those that are near: what its pre-activation would have, the threshold the same with the other sign. */
static double estimate(const struct trainer *t, int64_t f, size_t i) {
  const struct train_options *o = &t->options;
  int64_t row = t->jump.columns.row[i], width = train_width_out(o);
  double value, slope = 2 / (double)o->batch * (double)t->learn->dot(t->error + row * width, t->dec.value + f * width, width);
  if (o->l0_loss == TRAIN_L0_TANH) slope += tanh_slope(t, t->jump.columns.value[i], t->norms[f], &value);
  return (t->thresholds.value[f] * slope + t->jump.row_slope[row]) / o->bandwidth;
}

static void learn_threshold(struct trainer *t, int64_t f) {
  int64_t width = t->options.width;
  double threshold = 0, bias = 0;
  for (size_t i = t->jump.columns.start[f]; i < t->jump.columns.start[f + 1]; i++) {
    double slope = estimate(t, f, i);
    threshold -= slope;
    if (!t->options.ste_to_input) continue;
    t->learn->add_scaled(t->enc.gradient + f * width, (float)slope, t->input + t->jump.columns.row[i] * width, width);
    bias += slope;
  }
  t->thresholds.gradient[f] += (float)threshold;
  t->b_enc.gradient[f] += (float)bias;
}

/* What is silent comes nearer to its threshold, and the threshold to it. */
static void learn_silent(struct trainer *t, int64_t f, int64_t place) {
  struct learn_entries entries = train_aux_entries(t, place);
  int64_t width = t->options.width, out = train_width_out(&t->options);
  double each = (double)t->aux.scale * t->norms[f], missing = 0;
  for (int64_t i = 0; i < entries.n; i++) {
    t->learn->add_scaled(t->enc.gradient + f * width, (float)-each, t->input + entries.row[i] * width, width);
    missing += entries.value[i];
  }
  t->learn->add_scaled(t->dec.gradient + f * out, (float)(t->aux.scale * missing / t->norms[f]), t->dec.value + f * out, out);
  t->b_enc.gradient[f] -= (float)(each * (double)entries.n);
  t->thresholds.gradient[f] += (float)(each * (double)entries.n);
}

void train_jump_feature(struct trainer *t, int64_t f, int64_t place) {
  if (t->options.l0_loss == TRAIN_L0_TANH) learn_length(t, f);
  learn_threshold(t, f);
  if (place >= 0) learn_silent(t, f, place);
}

void train_jump_free(struct train_jump *jump) {
  sparse_clear(&jump->near);
  train_columns_free(&jump->columns);
  free(jump->row_slope);
  free(jump->each);
  free(jump->loss);
}
