/* decode.c: the decoder side of a dictionary: lengths of its rows, steering rows, reconstructions, errors. Reads
 * mapped weights only, so all of it may run on any thread. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"

#define PIECE 256 /* elements of a row converted at a time, on the stack */

static double row_length(const struct tensor *w_dec, int64_t row) {
  float piece[PIECE];
  double sum = 0;
  for (int64_t at = 0; at < w_dec->shape[1]; at += PIECE) {
    size_t count = size_min(PIECE, (size_t)(w_dec->shape[1] - at));
    tensor_row(w_dec, row, at, count, piece);
    for (size_t i = 0; i < count; i++) sum += (double)piece[i] * piece[i];
  }
  return sqrt(sum);
}

int dict_measure_rows(const struct tensor *w_dec, const char *path, const char *name, float *norms,
                      struct error *error) {
  for (int64_t row = 0; row < w_dec->shape[0]; row++) {
    float length = (float)row_length(w_dec, row);
    if (!isfinite(length))
      return error_set(error, ERROR_FORMAT,
                       "'%s': row %lld of tensor '%s' has the length %g, expected a finite one", path,
                       (long long)row, name, (double)length);
    norms[row] = length;
  }
  return 0;
}

const float *dict_norms(const struct dict *dict) { return dict->norms; }

/* ---- steering rows ----------------------------------------------------------------------------------- */

float dict_decoder_factor(const struct dict *dict, int64_t index) {
  assert(index >= 0 && index < dict->info.n_feat);
  return (dict->factor ? dict->factor[index] : 1.0f) / dict->norms[index];
}

void dict_decoder_row(const struct dict *dict, int64_t index, float *out) {
  assert(index >= 0 && index < dict->info.n_feat);
  size_t width = (size_t)dict->info.d_out;
  if (dict->info.cross) {
    cross_decoder_row(dict, index, out);
    return;
  }
  tensor_row(&dict->w_dec, index, 0, width, out);
  for (size_t i = 0; dict->factor && i < width; i++) out[i] *= dict->factor[index];
  for (size_t i = 0; i < width; i++) out[i] /= dict->norms[index];
}

int dict_decoder_part(const struct dict *dict, int64_t first, int64_t count, struct matrix_part *out, struct error *error) {
  const struct tensor *w = &dict->w_dec;
  *out = (struct matrix_part){.data = w->data + (size_t)(first * w->stride[0]) * dtype_size(w->dtype), .dtype = w->dtype,
                             .layout = ROWS_ARE_OUTPUTS, .n_out = count, .ld = w->stride[0]};
  if (w->stride[1] != 1 && w->stride[0] != 1)
    return error_set(error, ERROR_UNSUPPORTED, "tensor '%s' is a view with gaps, expected whole rows or columns", w->name);
  if (w->stride[1] != 1) { /* the transposed view of [d_out, n_feat] */
    out->layout = ROWS_ARE_INPUTS;
    out->ld = w->stride[1];
  }
  return 0;
}

int dict_decoder_matrix(const struct dict *dict, int64_t first, int64_t count, struct matrix **out, float **made,
                        struct error *error) {
  const struct dict_info *info = &dict->info;
  struct matrix_part part;
  assert(first >= 0 && count > 0 && count <= info->n_feat - first);
  *made = NULL;
  if (info->cross) return cross_decoder_matrix(dict, first, count, out, made, error);
  if (dict_decoder_part(dict, first, count, &part, error) != 0) return -1;
  return dict->backend->ops->matrix_new(dict->backend, &part, 1, info->d_out, out, error);
}

/* ---- reconstructions --------------------------------------------------------------------------------- */

/* Whole pieces have a constant length, which lets the compiler use vectors. */
static void add_piece(const float piece[PIECE], float scale, float *restrict out) {
  for (size_t i = 0; i < PIECE; i++) out[i] += scale * piece[i];
}

static void add_row(const struct tensor *matrix, int64_t row, float scale, float *out) {
  float piece[PIECE];
  for (int64_t at = 0; at < matrix->shape[1]; at += PIECE) {
    size_t count = size_min(PIECE, (size_t)(matrix->shape[1] - at));
    tensor_row(matrix, row, at, count, piece);
    if (count == PIECE)
      add_piece(piece, scale, out + at);
    else
      for (size_t i = 0; i < count; i++) out[at + (int64_t)i] += scale * piece[i];
  }
}

/* Rows lie anywhere in a file of many megabytes: the one after next is fetched while this one is added. */
static void fetch_row(const struct tensor *matrix, int64_t row) {
  size_t size = dtype_size(matrix->dtype), bytes = (size_t)matrix->shape[1] * size;
  if (matrix->stride[1] != 1) return;
  const unsigned char *at = matrix->data + (size_t)(row * matrix->stride[0]) * size;
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
}

static void add_features(const struct dict *dict, const struct sparse *codes, size_t row, float *out) {
  size_t end = codes->start[row + 1];
  for (size_t e = codes->start[row]; e < end; e++) {
    int32_t feature = codes->index[e];
    if (e + 2 < end) fetch_row(&dict->w_dec, codes->index[e + 2]);
    assert(feature >= 0 && feature < dict->info.n_feat);
    add_row(&dict->w_dec, feature, codes->value[e] * dict_decoder_factor(dict, feature), out);
  }
}

/* Back from u to c: where c is the centred row, the mean that was taken away is no part of it. */
static void undo_norm(const struct dict *dict, const float *x, float *out) {
  struct row_frame frame = row_frame(dict, x);
  double mean = dict->info.center_mean ? 0 : frame.mean;
  for (int64_t i = 0; i < dict->info.d_out; i++) out[i] = (float)(out[i] * frame.back + mean);
}

static bool normalises_by_row(const struct dict_info *info) {
  return info->norm == DICT_NORM_LENGTH || info->norm == DICT_NORM_STANDARD;
}

double dict_decode_scale(const struct dict *dict, const float *x) {
  return normalises_by_row(&dict->info) && !dict->info.transcoder ? row_frame(dict, x + dict->info.in_column).back : 1;
}

bool dict_decode_needs_input(const struct dict *dict) {
  return dict->info.skip || (normalises_by_row(&dict->info) && !dict->info.transcoder);
}

void dict_decode(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, const float *x,
                 float *out) {
  const struct dict_info *info = &dict->info;
  size_t width = (size_t)info->d_out;
  assert(first <= codes->n_rows && n_rows <= codes->n_rows - first && !info->cross && info->kind != DICT_NEURONS);
  assert(x || !dict_decode_needs_input(dict));
  for (size_t row = 0; row < n_rows; row++, out += width) {
    const float *own = x ? x + row * (size_t)info->in_width + info->in_column : NULL;
    memcpy(out, dict->b_dec, width * sizeof *out);
    for (size_t i = 0; info->out_scale != 1 && i < width; i++) out[i] /= info->out_scale;
    add_features(dict, codes, first + row, out);
    if (normalises_by_row(info) && !info->transcoder) undo_norm(dict, own, out);
    for (int64_t i = 0; info->skip && i < info->d_in; i++) add_row(&dict->skip, i, own[i], out);
  }
}

void dict_errors(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, const float *x,
                 const float *y, float *out) {
  const struct dict_info *info = &dict->info;
  size_t width = (size_t)info->d_out;
  dict_decode(dict, codes, first, n_rows, x, out);
  for (size_t row = 0; row < n_rows; row++, out += width) {
    const float *target = y + row * (size_t)info->out_width + info->out_column;
    double mean = 0;
    for (size_t i = 0; info->center_mean && i < width; i++) mean += target[i];
    mean /= (double)width;
    for (size_t i = 0; i < width; i++) out[i] = (float)(target[i] - mean - out[i]);
  }
}
