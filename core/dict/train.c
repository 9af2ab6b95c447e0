/* train.c: a trainer's memory and its parameters from their first values on. Knows no step; options are train_options.c's. */
#include "core/dict/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/checked.h"
#include "core/base/random.h"
#include "core/dict/train_int.h"

#define STREAM_DIRECTIONS 1 /* of random numbers */
#define STREAM_READ 2

/* ---- memory ---- */

void *train_floats(int64_t rows, int64_t width) {
  size_t bytes = size_round_up((size_t)rows * (size_t)width * sizeof(float) + 1, 64), huge = (size_t)2 << 20;
  bool large = bytes >= huge;
  void *at = aligned_alloc(large ? huge : 64, large ? size_round_up(bytes, huge) : bytes);
  if (!at) return NULL;
  if (large) madvise(at, bytes, MADV_HUGEPAGE); /* a matter of speed alone */
  return memset(at, 0, bytes);
}

static int parameter_new(struct train_parameter *p, int64_t rows, int64_t width, struct error *error) {
  float **const parts[] = {&p->value, &p->first, &p->second, &p->gradient};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (!(*parts[i] = train_floats(rows, width))) return error_memory(error, (size_t)(rows * width) * sizeof(float));
  return 0;
}

static void parameter_free(struct train_parameter *p) {
  free(p->value);
  free(p->first);
  free(p->second);
  free(p->gradient);
}

static int make_arrays(struct trainer *t, struct error *error) {
  const struct train_options *o = &t->options;
  int64_t out = train_width_out(o);
  size_t features = (size_t)o->n_feat, rows = (size_t)o->batch;
  int64_t units = (o->n_feat + TRAIN_UNIT - 1) / TRAIN_UNIT;
  if (parameter_new(&t->enc, o->n_feat, o->width, error) || parameter_new(&t->dec, o->n_feat, out, error) ||
      parameter_new(&t->b_enc, 1, o->n_feat, error) || parameter_new(&t->b_dec, 1, out, error) ||
      parameter_new(&t->thresholds, 1, o->n_feat, error))
    return -1;
  t->silent = calloc(features, sizeof *t->silent);
  t->norms = train_floats(1, o->n_feat);
  t->bias_rows = train_floats(1, o->n_feat);
  t->input = train_floats(o->batch, o->width);
  t->target = o->width_out ? train_floats(o->batch, out) : t->input;
  t->error = train_floats(o->batch, out);
  t->row_error = calloc(2 * rows, sizeof *t->row_error);
  t->squares = calloc(features, sizeof *t->squares);
  t->partial = train_floats(units, o->width);
  t->column_sums = train_floats(2, out);
  t->aux.dead = calloc(features, sizeof *t->aux.dead);
  if (!t->silent || !t->norms || !t->bias_rows || !t->input || !t->target || !t->error || !t->row_error || !t->squares || !t->partial ||
      !t->column_sums || !t->aux.dead)
    return error_memory(error, rows * (size_t)(o->width + out) * sizeof(float));
  t->row_square = t->row_error + rows;
  return 0;
}

static int make_matrix(struct trainer *t, struct error *error) {
  const struct train_options *o = &t->options;
  const struct ops *ops = t->backend->ops;
  const struct matrix_part part = {.data = t->enc.value, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = o->n_feat, .ld = o->width};
  const struct matrix_wish wish = {.dtype = DTYPE_F32, .written = true};
  size_t rows = (size_t)o->batch * (size_t)o->width * sizeof(float), features = (size_t)o->n_feat * sizeof(float);
  return ops->matrix_new_as(t->backend, &part, 1, o->width, &wish, &t->matrix, error) != 0 ||
                 ops->alloc(t->backend, rows, &t->rows, error) != 0 || ops->alloc(t->backend, features, &t->bias, error) != 0 ||
                 ops->alloc(t->backend, features, &t->least, error) != 0
             ? -1
             : 0;
}

/* ---- first values ---- */

/* Anywhere in the cube [-1, 1)^width, by its seed alone: no function of libm whose bits differ. */
static void direct_row(const struct trainer *t, uint64_t stream, int64_t f, float *row, int64_t width) {
  int64_t blocks = (width + 3) / 4;
  for (int64_t i = 0; i < width; i++) {
    uint32_t words[4];
    random_words(t->options.seed, stream, (uint64_t)(f * blocks + i / 4), words);
    row[i] = (float)((int32_t)(words[i % 4] >> 8) - (1 << 23)) / (float)(1 << 23);
  }
  float length = sqrtf(t->learn->dot(row, row, width)), by = length > 0 ? (float)t->options.init_norm / length : 0;
  for (int64_t i = 0; i < width; i++) row[i] *= by;
}

/* What a transcoder reads has directions of its own. */
static void direct_feature(struct trainer *t, int64_t f) {
  int64_t width = t->options.width, out = train_width_out(&t->options);
  float *row = t->dec.value + f * out;
  direct_row(t, STREAM_DIRECTIONS, f, row, out);
  if (t->options.width_out)
    direct_row(t, STREAM_READ, f, t->enc.value + f * width, width);
  else
    memcpy(t->enc.value + f * width, row, (size_t)width * sizeof *row);
}

/* How far above 0 s / n is where the encode is to bring it. */
static float below(const struct trainer *t, int64_t f) {
  return t->options.kind == TRAIN_JUMPRELU ? t->thresholds.value[f] - (float)t->options.bandwidth / 2 : 0;
}

void trainer_fold(struct trainer *t, int64_t first, int64_t count) {
  int64_t width = t->options.width, out = train_width_out(&t->options);
  for (int64_t f = first; f < first + count; f++) {
    const float *row = t->dec.value + f * out;
    float length = sqrtf(t->learn->dot(row, row, out));
    t->norms[f] = length > 1e-8f ? length : 1e-8f;
    t->bias_rows[f] = (t->b_enc.value[f] - below(t, f)) * t->norms[f];
  }
  t->backend->ops->matrix_write(t->matrix, first, count, t->enc.value + first * width, t->norms + first);
}

int trainer_fold_biases(struct trainer *t, struct error *error) {
  return t->backend->ops->write(t->backend, (struct span){t->bias, 0}, t->bias_rows, (size_t)t->options.n_feat * sizeof(float), error);
}

static void fold_work(struct pool_worker *worker, void *context) {
  struct trainer *t = context;
  size_t begin, end;
  while (pool_take(worker, (size_t)t->options.n_feat, TRAIN_UNIT, &begin, &end)) trainer_fold(t, (int64_t)begin, (int64_t)(end - begin));
}

int trainer_fold_all(struct trainer *t, struct error *error) {
  pool_run(t->pool, fold_work, t);
  return trainer_fold_biases(t, error);
}

struct trainer *trainer_new(const struct train_options *options, const char *device, int threads, struct error *error) {
  if (train_check(options, error) != 0) return NULL;
  struct trainer *t = calloc(1, sizeof *t);
  if (!t) return error_memory(error, sizeof *t), NULL;
  t->options = *options;
  t->backend = backend_open(device, threads, error);
  t->pool = t->backend ? pool_new(threads, error) : NULL;
  if (!t->pool) goto failed;
  t->learn = t->backend->ops->learn;
  if (!t->learn) {
    error_set(error, ERROR_ARGUMENT, "training runs on the processor, not on '%s'", device);
    goto failed;
  }
  if (make_arrays(t, error) != 0 || make_matrix(t, error) != 0) goto failed;
  for (int64_t f = 0; f < options->n_feat; f++) {
    direct_feature(t, f);
    t->thresholds.value[f] = (float)options->threshold;
  }
  if (trainer_fold_all(t, error) == 0) return t;
failed:
  trainer_free(t);
  return NULL;
}

static void free_backend(struct trainer *t) {
  if (!t->backend) return;
  t->backend->ops->matrix_free(t->backend, t->matrix);
  t->backend->ops->free(t->backend, t->rows);
  t->backend->ops->free(t->backend, t->bias);
  t->backend->ops->free(t->backend, t->least);
  backend_close(t->backend);
}

void trainer_free(struct trainer *t) {
  if (!t) return;
  free_backend(t);
  pool_free(t->pool);
  struct train_parameter *const parameters[] = {&t->enc, &t->dec, &t->b_enc, &t->b_dec, &t->thresholds};
  for (size_t i = 0; i < 5; i++) parameter_free(parameters[i]);
  if (t->target != t->input) free(t->target);
  void *const arrays[] = {t->silent, t->norms, t->bias_rows, t->input, t->error, t->row_error, t->squares, t->partial,
                          t->column_sums, t->aux.dead, t->aux.rows, t->aux.error};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
  sparse_clear(&t->codes);
  sparse_clear(&t->aux.codes);
  train_columns_free(&t->columns);
  train_columns_free(&t->aux.columns);
  train_jump_free(&t->jump);
  free(t);
}

/* What makes the mean length of rows [n, width] the root of the width, and their mean, multiplied by that; 0 where there is no such
 * number. */
static int scale_rows(const float *x, int64_t n, int64_t width, double *scale, float *means, struct error *error) {
  double lengths = 0, *mean = calloc((size_t)width, sizeof *mean);
  if (!mean) return error_memory(error, (size_t)width * sizeof *mean);
  for (int64_t row = 0; row < n; row++) {
    double square = 0;
    for (int64_t i = 0; i < width; i++) {
      square += (double)x[row * width + i] * x[row * width + i];
      mean[i] += x[row * width + i];
    }
    lengths += sqrt(square);
  }
  bool fine = lengths > 0 && isfinite(lengths);
  *scale = fine ? sqrt((double)width) * (double)n / lengths : 0;
  for (int64_t i = 0; fine && means && i < width; i++) means[i] = (float)(*scale * mean[i] / (double)n);
  free(mean);
  if (fine) return 0;
  return error_set(error, ERROR_ARGUMENT, "the activations are %s: there is nothing to be learned from them",
                   lengths == 0 ? "all 0" : "not finite");
}

int trainer_begin(struct trainer *t, const float *x, const float *y, int64_t n, struct error *error) {
  float *means = t->b_dec.value;
  if (scale_rows(x, n, t->options.width, &t->scale, y ? NULL : means, error) != 0) return -1;
  if (y) return scale_rows(y, n, t->options.width_out, &t->scale_out, means, error);
  t->scale_out = t->scale;
  return 0;
}

/* ---- for whoever looks ---- */

int64_t trainer_steps(const struct trainer *t) { return t->step; }
const struct train_options *trainer_options(const struct trainer *t) { return &t->options; }

void trainer_weights(const struct trainer *t, struct train_weights *out) {
  *out = (struct train_weights){t->enc.value, t->dec.value, t->b_enc.value, t->b_dec.value, t->scale,
                                t->weight > 0 ? t->threshold / t->weight : 0,
                                t->options.kind == TRAIN_JUMPRELU ? t->thresholds.value : NULL, t->scale_out};
}

void trainer_gradients(const struct trainer *t, struct train_weights *out) {
  *out = (struct train_weights){t->enc.gradient, t->dec.gradient, t->b_enc.gradient, t->b_dec.gradient, 0, 0,
                                t->options.kind == TRAIN_JUMPRELU ? t->thresholds.gradient : NULL, 0};
}

int trainer_set_weights(struct trainer *t, const struct train_weights *from, struct error *error) {
  size_t features = (size_t)t->options.n_feat * sizeof(float), out = (size_t)train_width_out(&t->options);
  memcpy(t->enc.value, from->enc, features * (size_t)t->options.width);
  memcpy(t->dec.value, from->dec, features * out);
  memcpy(t->b_enc.value, from->b_enc, features);
  memcpy(t->b_dec.value, from->b_dec, out * sizeof(float));
  if (from->thresholds) memcpy(t->thresholds.value, from->thresholds, features);
  t->scale = from->scale;
  t->scale_out = t->options.width_out ? from->scale_out : from->scale;
  return trainer_fold_all(t, error);
}

void trainer_set_silent(struct trainer *t, const bool *silent) {
  for (int64_t f = 0; f < t->options.n_feat; f++) t->silent[f] = silent[f] ? t->options.dead_after + 1 : 0;
}
