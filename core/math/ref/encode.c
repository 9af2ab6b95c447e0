/* encode.c: sparse codes of rows: pre-activations of all features, then the ones that are kept. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/base/checked.h"
#include "core/math/ref/ref.h"

/* What rows of each norm are multiplied by, once their mean is gone where it is to go. */
static double row_scale(const struct encode_args *args, const float *x, double mean) {
  int64_t n = args->w->n_in;
  double square = 0;
  if (args->norm == ENCODE_NORM_NONE) return 1;
  if (args->norm == ENCODE_NORM_SCALE) return args->scale;
  for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
  if (args->norm == ENCODE_NORM_STANDARD) return 1 / (sqrt(square / (double)(n - 1)) + ENCODE_STANDARD_EPS);
  return square > 0 ? sqrt((double)n / square) : 1;
}

/* c = (x - mean (where asked)) scaled - subtract (where there is one). */
static void centre(const struct encode_args *args, const float *x, float *c) {
  int64_t n = args->w->n_in;
  const float *subtract = span_floats(args->subtract);
  double mean = 0;
  if (args->center_mean || args->norm == ENCODE_NORM_STANDARD) {
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
  }
  double scale = row_scale(args, x, mean);
  for (int64_t i = 0; i < n; i++) c[i] = (float)((x[i] - mean) * scale - (subtract ? subtract[i] : 0.0));
}

/* How many of the features [begin, end) of the row stand before f: larger, or equal with a lower index. */
static int64_t rank_of(const float *p, const float *fold, int64_t begin, int64_t end, int64_t f) {
  int64_t before = 0;
  float own = fold ? p[f] * fold[f] : p[f];
  for (int64_t i = begin; i < end; i++) {
    float other = fold ? p[i] * fold[i] : p[i];
    before += other > own || (other == own && i < f);
  }
  return before;
}

static bool is_kept(const struct encode_args *args, const float *p, int64_t f) {
  int64_t n = args->w->n_out, group;
  if (!(p[f] > 0)) return false;
  switch (args->kind) {
    case ENCODE_RELU:
    case ENCODE_GATED: return true;
    case ENCODE_JUMPRELU: return p[f] > span_floats(args->threshold)[f];
    case ENCODE_TOPK: return rank_of(p, args->fold_selects ? span_floats(args->fold) : NULL, 0, n, f) < args->k;
    case ENCODE_GROUPMAX: group = n / args->k; return rank_of(p, NULL, f / group * group, f / group * group + group, f) == 0;
  }
  assert(!"unknown dictionary kind");
  return false;
}

static float magnitude(const struct encode_args *args, float p, float bias, int64_t f) {
  if (args->kind != ENCODE_GATED) return p;
  return fmaf(p - bias, span_floats(args->gain)[f], span_floats(args->shift)[f]);
}

static int encode_row(const struct encode_args *args, const float *x, float *c, float *p, struct sparse *out,
                      struct error *error) {
  const float *bias = span_floats(args->bias), *fold = span_floats(args->fold);
  int64_t n_feat = args->w->n_out;
  centre(args, x, c);
  for (int64_t f = 0; f < n_feat; f++) p[f] = (float)(ref_product(args->w, f, c) + (bias ? bias[f] : 0.0));
  if (sparse_row(out, (size_t)n_feat, error) != 0) return -1;
  for (int64_t f = 0; f < n_feat; f++) {
    float value = is_kept(args, p, f) ? magnitude(args, p[f], bias ? bias[f] : 0.0f, f) : 0.0f;
    if (value > 0) sparse_push(out, (int32_t)f, fold ? value * fold[f] : value);
  }
  return 0;
}

int ref_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error) {
  (void)backend;
  size_t floats = (size_t)args->w->n_in + (size_t)args->w->n_out;
  float *scratch = malloc(size_max(floats, 1) * sizeof *scratch);
  if (!scratch) return error_memory(error, floats * sizeof *scratch);
  int result = 0;
  for (int64_t row = 0; row < args->n_rows && result == 0; row++)
    result = encode_row(args, rows_at(args->x, row), scratch, scratch + args->w->n_in, out, error);
  free(scratch);
  return result;
}
