/* encode.c: the encoder side of a dictionary: all features of many rows on the backend, one feature on the
 * host, and one feature as a vector for edits. Knows no file format. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"
#include "core/math/chain.h"

#define ROWS 256  /* host rows that share one walk down a column of W_enc, whose every element is in a page of its own */
#define PIECE 256 /* inputs at a time */
#define BLOCK 16  /* rows that are shifted at a time, on the stack */

struct encode_args dict_encode_args(const struct dict *dict, const struct matrix *encoder) {
  static const enum encode_kind kinds[] = {[DICT_RELU] = ENCODE_RELU, [DICT_JUMPRELU] = ENCODE_JUMPRELU,
                                           [DICT_TOPK] = ENCODE_TOPK, [DICT_GATED] = ENCODE_GATED,
                                           [DICT_GROUPMAX] = ENCODE_GROUPMAX};
  static const enum encode_norm norms[] = {[DICT_NORM_NONE] = ENCODE_NORM_NONE, [DICT_NORM_SCALE] = ENCODE_NORM_SCALE,
                                           [DICT_NORM_LENGTH] = ENCODE_NORM_LENGTH,
                                           [DICT_NORM_STANDARD] = ENCODE_NORM_STANDARD};
  return (struct encode_args){
      .kind = kinds[dict->info.kind],
      .w = encoder,
      .center_mean = dict->info.center_mean,
      .subtract = dict->subtract,
      .bias = dict->bias,
      .threshold = dict->cut,
      .fold = dict->fold,
      .k = dict->info.k,
      .norm = norms[dict->info.norm],
      .scale = dict->info.scale,
      .fold_selects = dict->info.selects_folded,
      .gain = dict->gain_at,
      .shift = dict->shift_at,
  };
}

int dict_encode(const struct dict *dict, struct rows x, int64_t n_rows, struct sparse *out,
                struct error *error) {
  const struct matrix *encoder;
  if (dict->info.kind == DICT_NEURONS) return neurons_encode(dict, x, n_rows, out, error);
  if (resident_use(dict->resident, &encoder, error) != 0) return -1;
  struct encode_args args = dict_encode_args(dict, encoder);
  args.x = (struct rows){span_at(x.at, (size_t)dict->info.in_column * sizeof(float)), x.ld};
  args.n_rows = n_rows;
  return dict->backend->ops->encode(dict->backend, &args, out, error);
}

bool dict_features_independent(const struct dict *dict) {
  return dict->info.kind != DICT_TOPK && dict->info.kind != DICT_GROUPMAX;
}

void dict_encoder_column(const struct dict *dict, int64_t index, float *out) {
  assert(index >= 0 && index < dict->info.n_feat);
  if (dict->info.kind == DICT_NEURONS) {
    neurons_encoder_column(dict, index, out);
    return;
  }
  for (int64_t i = 0; i < dict->info.d_in; i++) out[i] = encoder_weight(dict, i, index) * dict->norms[index];
}

bool dict_has_encoder_row(const struct dict *dict) {
  const struct dict_info *info = &dict->info;
  return (info->kind == DICT_RELU || info->kind == DICT_JUMPRELU) &&
         (info->norm == DICT_NORM_NONE || info->norm == DICT_NORM_SCALE);
}

/* With w the column of W_enc, b = b_dec (or 0), s = scale (or 1) and d = d_in:
 *   (s (x - mean(x)) - b) . w  =  s x . w - s sum(x) mean(w) - b . w  =  x . s (w - mean(w)) - b . w */
struct dict_encoder dict_encoder_row(const struct dict *dict, int64_t index, float *enc) {
  assert(index >= 0 && index < dict->info.n_feat && dict_has_encoder_row(dict));
  int64_t d_in = dict->info.d_in;
  double mean = 0, bias = dict->b_enc[index];
  for (int64_t i = 0; i < d_in; i++) {
    enc[i] = encoder_weight(dict, i, index);
    mean += enc[i];
    if (dict->info.apply_b_dec_to_input) bias -= (double)dict->b_dec[i] * enc[i];
  }
  mean = dict->info.center_mean ? mean / (double)d_in : 0;
  for (int64_t i = 0; i < d_in; i++) enc[i] = (float)((enc[i] - mean) * dict->info.scale);
  float threshold = dict->threshold ? dict->threshold[index] : 0.0f;
  return (struct dict_encoder){(float)bias, threshold, dict->norms[index]};
}

/* ---- rows on the host -------------------------------------------------------------------------------- */

struct row_frame row_frame(const struct dict *dict, const float *x) {
  const struct dict_info *info = &dict->info;
  int64_t n = info->d_in;
  bool centred = info->center_mean || info->norm == DICT_NORM_STANDARD;
  double mean = 0, square = 0;
  for (int64_t i = 0; centred && i < n; i++) mean += x[i];
  mean /= (double)n;
  if (info->norm == DICT_NORM_NONE || info->norm == DICT_NORM_SCALE)
    return (struct row_frame){mean, info->scale, 1 / (double)info->scale};
  for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
  double deviation = sqrt(square / (double)(n - 1)), scale = square > 0 ? sqrt((double)n / square) : 1;
  if (info->norm == DICT_NORM_STANDARD)
    return (struct row_frame){mean, 1 / (deviation + ENCODE_STANDARD_EPS), deviation};
  return (struct row_frame){mean, scale, 1 / scale};
}

static float activate(const struct dict *dict, int64_t index, float product) {
  float p = product + dict->b_enc[index], threshold = dict->threshold ? dict->threshold[index] : 0.0f;
  if (!(p > threshold)) return 0;
  if (dict->info.kind == DICT_GATED) p = fmaf(p - dict->b_enc[index], dict->gain[index], dict->shift[index]);
  return p > 0 ? p * dict->norms[index] : 0;
}

/* Some rows, PIECE inputs of each. */
struct piece {
  int64_t begin, n;
  const float *x; /* the first row's, in a buffer of width ld */
  int64_t ld;
};

/* What encoding multiplies. Whole pieces have a constant length, which lets the compiler use vectors. */
static inline void shift_row(const float *x, int64_t n, float mean, float scale, const float *subtract, float *restrict to) {
  for (int64_t i = 0; i < n; i++) to[i] = (x[i] - mean) * scale - subtract[i];
}

/* u - b_dec, for rows that are not multiplied as they are. */
static void shift_rows(const struct dict *dict, const struct row_frame *frames, const struct piece *from, size_t n_rows, float *to) {
  static const float nothing[PIECE];
  const float *subtract = dict->info.apply_b_dec_to_input ? dict->b_dec + from->begin : nothing;
  for (size_t r = 0; r < n_rows; r++, to += PIECE) {
    const float *x = from->x + (int64_t)r * from->ld;
    float mean = (float)frames[r].mean, scale = (float)frames[r].scale;
    if (from->n == PIECE)
      shift_row(x, PIECE, mean, scale, subtract, to);
    else
      shift_row(x, from->n, mean, scale, subtract, to);
  }
}

/* Adds the products of a piece to the sums of all rows. */
static void add_products(const struct dict *dict, const float *w, const struct piece *piece, size_t n_rows,
                         const struct row_frame *frames, float *sums) {
  float shifted[BLOCK * PIECE];
  if (!frames) {
    chain_add(piece->n, w, piece->x, piece->ld, (int64_t)n_rows, sums);
    return;
  }
  for (size_t at = 0; at < n_rows; at += BLOCK) {
    struct piece block = {piece->begin, piece->n, piece->x + (int64_t)at * piece->ld, piece->ld};
    size_t rows = size_min(BLOCK, n_rows - at);
    shift_rows(dict, frames + at, &block, rows, shifted);
    chain_add(piece->n, w, shifted, PIECE, (int64_t)rows, sums + at);
  }
}

/* The arithmetic of the fast CPU backends, step by step (one chain of f32 multiply-adds over the inputs in order, then
 * the bias), so that a feature has the same value here as among all features. */
static void feature_rows(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out) {
  const struct dict_info *info = &dict->info;
  struct row_frame frames[ROWS];
  float w[PIECE];
  bool plain = !info->center_mean && info->norm == DICT_NORM_NONE && !info->apply_b_dec_to_input;
  for (size_t r = 0; !plain && r < n_rows; r++) frames[r] = row_frame(dict, x + r * (size_t)info->in_width);
  memset(out, 0, n_rows * sizeof *out);
  for (int64_t begin = 0; begin < info->d_in; begin += PIECE) {
    struct piece piece = {begin, info->d_in - begin < PIECE ? info->d_in - begin : PIECE, x + begin, info->in_width};
    for (int64_t i = 0; i < piece.n; i++) w[i] = encoder_weight(dict, begin + i, index);
    add_products(dict, w, &piece, n_rows, plain ? NULL : frames, out);
  }
  for (size_t r = 0; r < n_rows; r++) out[r] = activate(dict, index, out[r]);
}

void dict_feature_values(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out) {
  assert(index >= 0 && index < dict->info.n_feat && dict_features_independent(dict));
  if (dict->info.kind == DICT_NEURONS) {
    neurons_values(dict, index, x, n_rows, out);
    return;
  }
  x += dict->info.in_column;
  for (size_t at = 0; at < n_rows; at += ROWS)
    feature_rows(dict, index, x + at * (size_t)dict->info.in_width, size_min(ROWS, n_rows - at), out + at);
}
