/* train_aux.c: what brings dead features back: those that have been silent for long are taught what the others leave out (AuxK; Gao
 * et al. 2024, "Scaling and evaluating sparse autoencoders"). */
#include <stdlib.h>
#include <string.h>

#include "core/dict/train_int.h"

static void find_dead(struct trainer *t) {
  t->aux.n_dead = 0;
  for (int64_t f = 0; f < t->options.n_feat; f++)
    if (t->silent[f] > t->options.dead_after) t->aux.dead[t->aux.n_dead++] = (int32_t)f;
}

static int make_room(struct trainer *t, struct error *error) {
  const struct train_options *o = &t->options;
  if (!t->aux.error) t->aux.error = train_floats(o->batch, train_width_out(o));
  if (t->aux.n_dead > t->aux.room) {
    free(t->aux.rows);
    t->aux.room = t->aux.n_dead + t->aux.n_dead / 4;
    t->aux.rows = train_floats(t->aux.room, o->width + 1); /* and a bias for each */
  }
  if (t->aux.error && t->aux.rows) return 0;
  t->aux.room = 0;
  return error_memory(error, (size_t)(t->aux.n_dead * o->width) * sizeof(float));
}

/* Their folded encoders, one behind the other, and the biases behind them all; of JUMPRELU such that they make what is missing up to
 * the threshold. */
static void gather(struct trainer *t) {
  bool jump = t->options.kind == TRAIN_JUMPRELU;
  int64_t width = t->options.width, n = t->aux.n_dead;
  for (int64_t i = 0; i < n; i++) {
    int32_t f = t->aux.dead[i];
    float by = jump ? -t->norms[f] : t->norms[f];
    for (int64_t c = 0; c < width; c++) t->aux.rows[i * width + c] = t->enc.value[f * width + c] * by;
    t->aux.rows[n * width + i] = (t->b_enc.value[f] - t->thresholds.value[f]) * by;
  }
}

/* k 0: all above 0. */
static int encode(struct trainer *t, int64_t k, struct memory *bias, struct error *error) {
  const struct ops *ops = t->backend->ops;
  const struct train_options *o = &t->options;
  int64_t n = t->aux.n_dead;
  const struct matrix_part part = {.data = t->aux.rows, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = n, .ld = o->width};
  struct matrix *matrix = NULL;
  if (ops->write(t->backend, (struct span){bias, 0}, t->aux.rows + n * o->width, (size_t)n * sizeof(float), error) != 0 ||
      ops->matrix_new(t->backend, &part, 1, o->width, &matrix, error) != 0)
    return -1;
  const struct encode_args args = {.kind = k ? ENCODE_TOPK : ENCODE_RELU, .w = matrix, .x = {{t->rows, 0}, o->width}, .n_rows = o->batch,
                                   .bias = {bias, 0}, .k = (int32_t)k};
  t->aux.codes.n_rows = 0;
  int failed = ops->encode(t->backend, &args, &t->aux.codes, error);
  ops->matrix_free(t->backend, matrix);
  return failed;
}

/* ---- what they leave out ---- */

static void error_row(struct trainer *t, int64_t row, double *square) {
  const struct sparse *codes = &t->aux.codes;
  int64_t width = train_width_out(&t->options);
  float *e = t->aux.error + row * width;
  memcpy(e, t->error + row * width, (size_t)width * sizeof *e);
  for (size_t i = codes->start[row]; i < codes->start[row + 1]; i++)
    t->learn->add_scaled(e, codes->value[i], t->dec.value + (int64_t)t->aux.dead[codes->index[i]] * width, width);
  *square = t->learn->dot(e, e, width);
}

static void error_work(struct pool_worker *worker, void *context) {
  struct trainer *t = context;
  size_t begin, end;
  while (pool_take(worker, (size_t)t->options.batch, 8, &begin, &end))
    for (; begin < end; begin++) error_row(t, (int64_t)begin, &t->row_square[begin]);
}

static double sum_values(const struct sparse *codes) {
  double sum = 0;
  for (size_t i = 0; i < codes->start[codes->n_rows]; i++) sum += codes->value[i];
  return sum;
}

/* What the dead miss up to their thresholds. */
static int pre_act(struct trainer *t, double *loss, struct error *error) {
  const struct train_options *o = &t->options;
  if (encode(t, 0, t->least, error) != 0) return -1;
  *loss = o->pre_act * sum_values(&t->aux.codes) / (double)o->batch;
  t->aux.scale = (float)(o->pre_act / (double)o->batch);
  train_unfold(t, &t->aux.codes, t->aux.dead);
  return train_columns_make(&t->aux.columns, &t->aux.codes, o->n_feat, error);
}

/* Fewer dead than the paper's number teach with less weight. */
int train_aux(struct trainer *t, double *loss, struct error *error) {
  const struct train_options *o = &t->options;
  int64_t width = train_width_out(o), k = width > 1 ? width / 2 : 1;
  double squares = 0;
  *loss = 0;
  find_dead(t);
  if (t->aux.n_dead == 0 || (o->kind == TRAIN_JUMPRELU ? o->pre_act : o->aux) == 0) return 0;
  double share = t->aux.n_dead < k ? (double)t->aux.n_dead / (double)k : 1;
  if (make_room(t, error) != 0) return -1;
  gather(t);
  if (o->kind == TRAIN_JUMPRELU) return pre_act(t, loss, error);
  if (encode(t, t->aux.n_dead < k ? t->aux.n_dead : k, t->least, error) != 0) return -1;
  train_unfold(t, &t->aux.codes, t->aux.dead);
  pool_run(t->pool, error_work, t);
  for (int64_t row = 0; row < o->batch; row++) squares += t->row_square[row];
  *loss = o->aux * share * squares / (double)o->batch;
  t->aux.scale = (float)(2 * o->aux * share / (double)o->batch);
  return train_columns_make(&t->aux.columns, &t->aux.codes, o->n_feat, error);
}

struct learn_entries train_aux_entries(const struct trainer *t, int64_t place) {
  const struct train_columns *columns = &t->aux.columns;
  size_t begin = columns->start[place], end = columns->start[place + 1];
  return (struct learn_entries){(int64_t)(end - begin), columns->row + begin, columns->value + begin};
}
