/* encode.c: sparse codes of rows: pre-activations of all features, then the ones that are kept. */
#include <assert.h>
#include <stdlib.h>

#include "core/base/checked.h"
#include "core/math/ref/ref.h"

/* c = x - mean (where asked) - subtract (where there is one). */
static void centre(const struct encode_args *args, const float *x, float *c) {
  int64_t n = args->w->n_in;
  const float *subtract = span_floats(args->subtract);
  double mean = 0;
  if (args->center_mean) {
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
  }
  for (int64_t i = 0; i < n; i++) c[i] = (float)(x[i] - mean - (subtract ? subtract[i] : 0.0));
}

/* How many features of the row stand before f: larger, or equal with a lower index. */
static int64_t rank_of(const float *p, int64_t n, int64_t f) {
  int64_t before = 0;
  for (int64_t i = 0; i < n; i++) before += p[i] > p[f] || (p[i] == p[f] && i < f);
  return before;
}

static bool is_kept(const struct encode_args *args, const float *p, int64_t f) {
  if (!(p[f] > 0)) return false;
  switch (args->kind) {
    case ENCODE_RELU: return true;
    case ENCODE_JUMPRELU: return p[f] > span_floats(args->threshold)[f];
    case ENCODE_TOPK: return rank_of(p, args->w->n_out, f) < args->k;
  }
  assert(!"unknown dictionary kind");
  return false;
}

static int encode_row(const struct encode_args *args, const float *x, float *c, float *p, struct sparse *out,
                      struct error *error) {
  const float *bias = span_floats(args->bias), *fold = span_floats(args->fold);
  int64_t n_feat = args->w->n_out;
  centre(args, x, c);
  for (int64_t f = 0; f < n_feat; f++) p[f] = (float)(ref_product(args->w, f, c) + (bias ? bias[f] : 0.0));
  if (sparse_row(out, (size_t)n_feat, error) != 0) return -1;
  for (int64_t f = 0; f < n_feat; f++)
    if (is_kept(args, p, f)) sparse_push(out, (int32_t)f, fold ? p[f] * fold[f] : p[f]);
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
