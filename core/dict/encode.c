/* encode.c: the encoder side of a dictionary: all features of many rows on the backend, one feature on the
 * host, and one feature as a vector for edits. Knows no file format. */
#include <assert.h>
#include <math.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"

#define BLOCK 32 /* host rows that share one walk down a column of W_enc */

int dict_encode(const struct dict *dict, struct rows x, int64_t n_rows, struct sparse *out,
                struct error *error) {
  static const enum encode_kind kinds[] = {
      [DICT_RELU] = ENCODE_RELU, [DICT_JUMPRELU] = ENCODE_JUMPRELU, [DICT_TOPK] = ENCODE_TOPK};
  const struct encode_args args = {
      .kind = kinds[dict->info.kind],
      .w = dict->encoder,
      .x = x,
      .n_rows = n_rows,
      .center_mean = dict->info.center_mean,
      .subtract = dict->subtract,
      .bias = dict->bias,
      .threshold = dict->cut,
      .fold = dict->fold,
      .k = dict->info.k,
  };
  return dict->backend->ops->encode(dict->backend, &args, out, error);
}

/* With w the column of W_enc, s = b_dec (or 0) and d = d_in:
 *   (x - mean(x) - s) . w  =  x . w - sum(x) mean(w) - s . w  =  x . (w - mean(w)) - s . w */
struct dict_encoder dict_encoder_row(const struct dict *dict, int64_t index, float *enc) {
  assert(index >= 0 && index < dict->info.n_feat && dict->info.kind != DICT_TOPK);
  int64_t d_in = dict->info.d_in;
  double mean = 0, bias = dict->b_enc[index];
  for (int64_t i = 0; i < d_in; i++) {
    enc[i] = tensor_f32(dict->w_enc, i, index);
    mean += enc[i];
    if (dict->info.apply_b_dec_to_input) bias -= (double)dict->b_dec[i] * enc[i];
  }
  mean /= (double)d_in;
  if (dict->info.center_mean)
    for (int64_t i = 0; i < d_in; i++) enc[i] = (float)(enc[i] - mean);
  float threshold = dict->threshold ? dict->threshold[index] : 0.0f;
  return (struct dict_encoder){(float)bias, threshold, dict->norms[index]};
}

static double row_mean(const float *x, int64_t d_in) {
  double sum = 0;
  for (int64_t i = 0; i < d_in; i++) sum += x[i];
  return sum / (double)d_in;
}

/* The arithmetic of the fast CPU backends, step by step (one chain of f32 multiply-adds over the inputs in order, then
 * the bias), so that a feature has the same value here as among all features. */
static void feature_block(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out) {
  int64_t d_in = dict->info.d_in;
  float p[BLOCK] = {0}, mean[BLOCK] = {0};
  for (size_t r = 0; dict->info.center_mean && r < n_rows; r++)
    mean[r] = (float)row_mean(x + (int64_t)r * d_in, d_in);
  for (int64_t i = 0; i < d_in; i++) {
    float w = tensor_f32(dict->w_enc, i, index), s = dict->info.apply_b_dec_to_input ? dict->b_dec[i] : 0.0f;
    for (size_t r = 0; r < n_rows; r++) p[r] = fmaf((x[(int64_t)r * d_in + i] - mean[r]) - s, w, p[r]);
  }
  float threshold = dict->threshold ? dict->threshold[index] : 0.0f;
  for (size_t r = 0; r < n_rows; r++) {
    float raw = p[r] + dict->b_enc[index];
    out[r] = raw > threshold ? raw * dict->norms[index] : 0.0f;
  }
}

void dict_feature_values(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out) {
  assert(index >= 0 && index < dict->info.n_feat && dict->info.kind != DICT_TOPK);
  for (size_t at = 0; at < n_rows; at += BLOCK)
    feature_block(dict, index, x + at * (size_t)dict->info.d_in, size_min(BLOCK, n_rows - at), out + at);
}
