/* train_step.c: one step of training: rows to codes to errors, errors to gradients feature by feature, Adam.
 *
 * One dense product is made, the encode's. All else follows the codes: a row's error is a sum over its features, a feature's gradients
 * are sums over its rows, and what the loss makes of b_dec by way of the encoder is one sum over features, since the encoder reads
 * c = x - b_dec: - sum_f (gradient of b_enc[f]) W_enc[f]. A transcoder's reads x, and there is none. */
#include <math.h>
#include <string.h>

#include "core/dict/train_int.h"

#define ROWS_AT_A_TIME 32
#define BLOCK_BYTES 524288 /* of rows that several features meet, or of features that several rows meet: a part of the second cache */
#define BLOCK_ENTRIES 4    /* on average, of a feature in a block: with fewer, blocks cost more than they spare */
#define STRIP 64 /* columns whose sums over rows one thread makes */

/* ---- schedules ---- */

double train_ramp(int64_t step, int64_t over) { return over > 0 && step < over ? (double)step / (double)over : 1; }

static double rate_of(const struct trainer *t) {
  const struct train_options *o = &t->options;
  int64_t left = o->steps - t->step;
  double rate = o->rate * train_ramp(t->step + 1, o->warm_up);
  return left < o->decay ? rate * (double)(left > 0 ? left : 0) / (double)o->decay : rate;
}

static double l1_of(const struct trainer *t) { return t->options.kind == TRAIN_RELU ? t->options.l1 * train_ramp(t->step, t->options.l1_warm_up) : 0; }

/* ---- rows ---- */

struct centring {
  struct trainer *trainer;
  const float *x, *y;
};

/* to = scale * from - less, less NULL: nothing. */
static void scale_row(const float *from, float scale, const float *less, int64_t width, float *to) {
  for (int64_t i = 0; i < width; i++) to[i] = less ? from[i] * scale - less[i] : from[i] * scale;
}

static void centre_work(struct pool_worker *worker, void *context) {
  const struct centring *centring = context;
  struct trainer *t = centring->trainer;
  int64_t width = t->options.width, out = t->options.width_out;
  size_t begin, end;
  while (pool_take(worker, (size_t)t->options.batch, ROWS_AT_A_TIME, &begin, &end))
    for (int64_t row = (int64_t)begin; row < (int64_t)end; row++) {
      scale_row(centring->x + row * width, (float)t->scale, out ? NULL : t->b_dec.value, width, t->input + row * width);
      if (out) scale_row(centring->y + row * out, (float)t->scale_out, t->b_dec.value, out, t->target + row * out);
    }
}

static int centre(struct trainer *t, const float *x, const float *y, struct error *error) {
  struct centring centring = {t, x, y};
  pool_run(t->pool, centre_work, &centring);
  return t->backend->ops->write(t->backend, (struct span){t->rows, 0}, t->input,
                                (size_t)t->options.batch * (size_t)t->options.width * sizeof(float), error);
}

/* How many of `all` to take together: as many as BLOCK_BYTES hold where something meets enough of them there, else all. `met`: of how
 * many something meets on average. */
static int64_t block_of(int64_t all, double met, int64_t bytes_each) {
  int64_t block = BLOCK_BYTES / bytes_each > 1 ? BLOCK_BYTES / bytes_each : 1;
  return met * (double)block >= BLOCK_ENTRIES * (double)all && block < all ? block : all;
}

static size_t all_entries(const struct trainer *t) { return t->codes.start[t->options.batch]; }

static void begin_errors(struct trainer *t, int64_t row, int64_t end) {
  int64_t width = train_width_out(&t->options);
  for (int64_t i = row * width; i < end * width; i++) t->error[i] = -t->target[i];
}

/* Some rows, features block by block: where many fire a decoder row is brought once for all of these rows. */
static void error_rows(struct trainer *t, int64_t row, int64_t end) {
  const struct sparse *codes = &t->codes;
  int64_t width = train_width_out(&t->options), n_feat = t->options.n_feat;
  int64_t block = block_of(n_feat, (double)all_entries(t) / (double)t->options.batch, width * (int64_t)sizeof(float));
  size_t next[ROWS_AT_A_TIME];
  begin_errors(t, row, end);
  for (int64_t r = row; r < end; r++) next[r - row] = codes->start[r];
  for (int64_t limit = block; limit < n_feat + block; limit += block)
    for (int64_t r = row; r < end; r++) {
      size_t first = next[r - row], at = first, stop = codes->start[r + 1];
      if (limit >= n_feat) at = stop;
      while (at < stop && codes->index[at] < limit) at++;
      t->learn->gather((int64_t)(at - first), codes->index + first, codes->value + first, t->dec.value, width, t->error + r * width);
      next[r - row] = at;
    }
}

static void square_row(struct trainer *t, int64_t row) {
  int64_t width = train_width_out(&t->options);
  const float *c = t->target + row * width, *e = t->error + row * width;
  t->row_error[row] = t->learn->dot(e, e, width);
  t->row_square[row] = t->learn->dot(c, c, width);
}

static void error_work(struct pool_worker *worker, void *context) {
  struct trainer *t = context;
  size_t begin, end;
  while (pool_take(worker, (size_t)t->options.batch, ROWS_AT_A_TIME, &begin, &end)) {
    error_rows(t, (int64_t)begin, (int64_t)end);
    for (; begin < end; begin++) square_row(t, (int64_t)begin);
  }
}

static void sum_columns(const struct trainer *t, const float *rows, int64_t begin, int64_t n, float *sums) {
  memset(sums, 0, (size_t)n * sizeof *sums);
  int64_t width = train_width_out(&t->options);
  for (int64_t row = 0; row < t->options.batch; row++) t->learn->add_scaled(sums, 1, rows + row * width + begin, n);
}

static void columns_work(struct pool_worker *worker, void *context) {
  struct trainer *t = context;
  int64_t width = train_width_out(&t->options);
  size_t begin, end;
  while (pool_take(worker, (size_t)width, STRIP, &begin, &end)) {
    sum_columns(t, t->target, (int64_t)begin, (int64_t)(end - begin), t->column_sums + begin);
    sum_columns(t, t->error, (int64_t)begin, (int64_t)(end - begin), t->column_sums + width + begin);
  }
}

/* What the rows' codes say of the step; the codes are folded. */
static void tell_codes(const struct trainer *t, struct train_figures *out) {
  double sum = 0;
  size_t n = t->codes.start[t->options.batch];
  for (size_t i = 0; i < n; i++) sum += t->codes.value[i];
  out->l0 = (double)n / (double)t->options.batch;
  out->sparsity = l1_of(t) * sum / (double)t->options.batch;
}

static void tell_errors(const struct trainer *t, struct train_figures *out) {
  double left = 0, all = 0, mean = 0;
  int64_t rows = t->options.batch;
  for (int64_t row = 0; row < rows; row++) {
    left += t->row_error[row];
    all += t->row_square[row];
  }
  for (int64_t i = 0; i < train_width_out(&t->options); i++) mean += (double)t->column_sums[i] * t->column_sums[i];
  all -= mean / (double)rows;
  out->mse = left / (double)rows;
  out->explained = all > 0 ? 1 - left / all : (double)NAN;
}

/* ---- gradients ---- */

static struct learn_entries entries_of(const struct trainer *t, int64_t f) {
  size_t begin = t->columns.start[f], end = t->columns.start[f + 1];
  return (struct learn_entries){(int64_t)(end - begin), t->columns.row + begin, t->columns.value + begin};
}

static struct learn_feature feature_of(struct trainer *t, int64_t f, const float *error, float scale) {
  int64_t width = t->options.width, out = train_width_out(&t->options);
  return (struct learn_feature){.error = error, .input = t->input, .decoder = t->dec.value + f * out, .width_out = out,
                                .width_in = width, .scale = scale, .to_decoder = t->dec.gradient + f * out,
                                .to_encoder = t->enc.gradient + f * width};
}

/* What l1 takes of each row's value is of the length of the decoder row too. */
static void penalise_length(struct trainer *t, int64_t f, struct learn_entries entries, float per_value) {
  int64_t width = train_width_out(&t->options);
  double sum = 0;
  for (int64_t i = 0; i < entries.n; i++) sum += entries.value[i];
  t->learn->add_scaled(t->dec.gradient + f * width, (float)(per_value * sum / t->norms[f]), t->dec.value + f * width, width);
}

/* A feature's gradients begin at 0 where they begin at all: one without entries has none, and nothing is written but a 0 in squares. */
static void begin_feature(struct trainer *t, int64_t f, bool fires) {
  int64_t width = t->options.width, out = train_width_out(&t->options);
  t->b_enc.gradient[f] = t->thresholds.gradient[f] = 0;
  t->squares[f] = 0;
  if (!fires) return;
  memset(t->enc.gradient + f * width, 0, (size_t)width * sizeof(float));
  memset(t->dec.gradient + f * out, 0, (size_t)out * sizeof(float));
}

/* Entries [*at, ..) of feature f in rows below `limit`. */
static void add_entries(struct trainer *t, int64_t f, int64_t *at, int64_t limit) {
  struct learn_feature feature = feature_of(t, f, t->error, 2.0f / (float)t->options.batch);
  struct learn_entries all = entries_of(t, f);
  int64_t begin = *at;
  while (*at < all.n && all.row[*at] < limit) ++*at;
  if (*at == begin) return;
  feature.penalty = (float)(l1_of(t) / (double)t->options.batch) * t->norms[f];
  feature.entries = (struct learn_entries){*at - begin, all.row + begin, all.value + begin};
  if (t->jump.each) feature.each = t->jump.each + t->columns.start[f] + begin;
  t->b_enc.gradient[f] += t->learn->feature(&feature);
}

/* Features [begin, end) of a unit, rows block by block: where many fire a row is brought once for all of these features. */
static void add_rows(struct trainer *t, int64_t begin, int64_t end) {
  int64_t rows = t->options.batch, at[TRAIN_UNIT] = {0};
  int64_t block = block_of(rows, (double)all_entries(t) / (double)t->options.n_feat,
                           (t->options.width + train_width_out(&t->options)) * (int64_t)sizeof(float));
  for (int64_t limit = block; limit < rows + block; limit += block)
    for (int64_t f = begin; f < end; f++) add_entries(t, f, &at[f - begin], limit);
}

/* What else it has, and how long it all is. place: among the dead, or -1. */
static void end_feature(struct trainer *t, int64_t f, int64_t place) {
  int64_t width = t->options.width, out = train_width_out(&t->options);
  float *g_enc = t->enc.gradient + f * width, *g_dec = t->dec.gradient + f * out, *bias = &t->b_enc.gradient[f];
  struct learn_entries entries = entries_of(t, f);
  double penalty = l1_of(t) / (double)t->options.batch;
  if (penalty > 0) penalise_length(t, f, entries, penalty);
  if (t->options.kind == TRAIN_JUMPRELU)
    train_jump_feature(t, f, place);
  else if (place >= 0) {
    struct learn_feature other = feature_of(t, f, t->aux.error, t->aux.scale);
    other.entries = train_aux_entries(t, place);
    *bias += t->learn->feature(&other);
  }
  t->squares[f] = (double)t->learn->dot(g_enc, g_enc, width) + (double)t->learn->dot(g_dec, g_dec, out) + (double)*bias * *bias +
                  (double)t->thresholds.gradient[f] * t->thresholds.gradient[f];
}

/* The first of the dead that is not before f. */
static int64_t first_dead(const struct trainer *t, int64_t f) {
  int64_t low = 0, high = t->aux.n_dead;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (t->aux.dead[middle] < f)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The places among the dead of a unit's features that have something to learn there; -1. Whether each has any entry at all. */
static void find_places(const struct trainer *t, int64_t begin, int64_t end, int64_t places[TRAIN_UNIT], bool fires[TRAIN_UNIT]) {
  int64_t next = first_dead(t, begin);
  for (int64_t f = begin; f < end; f++) {
    bool dead = next < t->aux.n_dead && t->aux.dead[next] == f;
    bool learns = dead && t->aux.scale > 0 && train_aux_entries(t, next).n > 0;
    places[f - begin] = learns ? next : -1;
    fires[f - begin] = learns || entries_of(t, f).n > 0 || (t->options.kind == TRAIN_JUMPRELU && train_jump_learns(t, f));
    next += dead;
  }
}

/* Features of a unit, and their share of b_dec's gradient. */
static void gradient_unit(struct trainer *t, int64_t begin, int64_t end) {
  int64_t width = t->options.width, places[TRAIN_UNIT];
  bool fires[TRAIN_UNIT];
  float *partial = t->partial + begin / TRAIN_UNIT * width;
  find_places(t, begin, end, places, fires);
  for (int64_t f = begin; f < end; f++) begin_feature(t, f, fires[f - begin]);
  for (int64_t f = begin; f < end && t->jump.each; f++) train_jump_each(t, f);
  add_rows(t, begin, end);
  memset(partial, 0, (size_t)width * sizeof *partial);
  for (int64_t f = begin; f < end; f++) {
    if (!fires[f - begin]) continue;
    end_feature(t, f, places[f - begin]);
    if (!t->options.width_out) t->learn->add_scaled(partial, -t->b_enc.gradient[f], t->enc.value + f * width, width);
  }
}

static void gradient_work(struct pool_worker *worker, void *context) {
  struct trainer *t = context;
  size_t begin, end;
  while (pool_take(worker, (size_t)t->options.n_feat, TRAIN_UNIT, &begin, &end)) gradient_unit(t, (int64_t)begin, (int64_t)end);
}

static void gradient_of_output_bias(struct trainer *t) {
  int64_t width = train_width_out(&t->options), units = (t->options.n_feat + TRAIN_UNIT - 1) / TRAIN_UNIT;
  float *to = t->b_dec.gradient, by = 2.0f / (float)t->options.batch;
  for (int64_t i = 0; i < width; i++) to[i] = by * t->column_sums[width + i];
  for (int64_t unit = 0; unit < units && !t->options.width_out; unit++) t->learn->add_scaled(to, 1, t->partial + unit * width, width);
}

/* Of all gradients together. */
static double gradient_length(const struct trainer *t) {
  double sum = t->learn->dot(t->b_dec.gradient, t->b_dec.gradient, train_width_out(&t->options));
  for (int64_t f = 0; f < t->options.n_feat; f++) sum += t->squares[f];
  return sqrt(sum);
}

/* ---- the update ---- */

struct updating {
  struct trainer *trainer;
  struct learn_adam adam;
};

static struct learn_adam adam_of(const struct trainer *t, const struct train_figures *figures) {
  double age = (double)(t->step + 1), clip = CLIP_LENGTH / (figures->length + 1e-6);
  return (struct learn_adam){.beta1 = (float)ADAM_BETA1, .beta2 = (float)ADAM_BETA2, .eps = (float)ADAM_EPS,
                             .rate = (float)(figures->rate / (1 - pow(ADAM_BETA1, age))),
                             .unbias = (float)(1 / sqrt(1 - pow(ADAM_BETA2, age))), .gain = clip < 1 ? (float)clip : 1.0f};
}

static void update(const struct trainer *t, const struct learn_adam *adam, const struct train_parameter *p, int64_t begin, int64_t n,
                   bool silent) {
  t->learn->adam(adam, n, silent ? NULL : p->gradient + begin, p->value + begin, p->first + begin, p->second + begin);
}

static void update_thresholds(const struct updating *updating, int64_t begin, int64_t end) {
  struct trainer *t = updating->trainer;
  update(t, &updating->adam, &t->thresholds, begin, end - begin, false);
  for (int64_t f = begin; f < end; f++) t->thresholds.value[f] = fmaxf(t->thresholds.value[f], 0);
}

static void update_work(struct pool_worker *worker, void *context) {
  const struct updating *updating = context;
  struct trainer *t = updating->trainer;
  int64_t width = t->options.width, out = train_width_out(&t->options);
  size_t begin, end;
  while (pool_take(worker, (size_t)t->options.n_feat, TRAIN_UNIT, &begin, &end)) {
    for (int64_t f = (int64_t)begin; f < (int64_t)end; f++) {
      bool silent = t->squares[f] == 0;
      update(t, &updating->adam, &t->enc, f * width, width, silent);
      update(t, &updating->adam, &t->dec, f * out, out, silent);
    }
    update(t, &updating->adam, &t->b_enc, (int64_t)begin, (int64_t)(end - begin), false);
    if (t->options.kind == TRAIN_JUMPRELU) update_thresholds(updating, (int64_t)begin, (int64_t)end);
    trainer_fold(t, (int64_t)begin, (int64_t)(end - begin));
  }
}

static void count_silence(struct trainer *t, struct train_figures *out) {
  out->dead = 0;
  for (int64_t f = 0; f < t->options.n_feat; f++) {
    t->silent[f] = t->columns.start[f + 1] > t->columns.start[f] ? 0 : t->silent[f] + 1;
    out->dead += t->silent[f] > t->options.dead_after;
  }
}

/* ---- the step ---- */

static int forward(struct trainer *t, const float *x, const float *y, struct train_figures *out, struct error *error) {
  if (centre(t, x, y, error) != 0 || train_encode(t, error) != 0) return -1;
  tell_codes(t, out);
  train_unfold(t, &t->codes, NULL);
  pool_run(t->pool, error_work, t);
  pool_run(t->pool, columns_work, t);
  tell_errors(t, out);
  t->aux.scale = 0;
  if (train_columns_make(&t->columns, &t->codes, t->options.n_feat, error) != 0) return -1;
  if (t->options.kind == TRAIN_JUMPRELU && train_jump_slopes(t, &out->sparsity, error) != 0) return -1;
  return train_aux(t, &out->aux, error);
}

static void backward(struct trainer *t, struct train_figures *out) {
  pool_run(t->pool, gradient_work, t);
  gradient_of_output_bias(t);
  out->length = gradient_length(t);
  if (t->jump.each) out->sparsity = train_jump_loss(t);
}

int trainer_step(struct trainer *t, const float *x, const float *y, struct train_figures *out, struct error *error) {
  memset(out, 0, sizeof *out);
  if (forward(t, x, y, out, error) != 0) return -1;
  backward(t, out);
  out->rate = rate_of(t);
  if (!isfinite(out->mse + out->sparsity + out->aux + out->length))
    return error_set(error, ERROR_FORMAT, "the loss is no number any longer at step %lld: a rate below %g may help", (long long)t->step + 1,
                     t->options.rate);
  struct updating updating = {t, adam_of(t, out)};
  pool_run(t->pool, update_work, &updating);
  update(t, &updating.adam, &t->b_dec, 0, train_width_out(&t->options), false);
  count_silence(t, out);
  t->step++;
  return trainer_fold_biases(t, error);
}
