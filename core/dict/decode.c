/* decode.c: the decoder side of a dictionary: lengths of its rows, steering rows, reconstructions. Reads
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

/* A row of zeros has no direction to be a length of: its n is 1, so that nothing divides by zero and its
 * activations stay positive where the encoder fires. */
int dict_measure_rows(const struct tensor *w_dec, const char *path, float *norms, struct error *error) {
  for (int64_t row = 0; row < w_dec->shape[0]; row++) {
    float length = (float)row_length(w_dec, row);
    if (!isfinite(length))
      return error_set(error, ERROR_FORMAT,
                       "'%s': row %lld of tensor 'W_dec' has the length %g, expected a finite one", path,
                       (long long)row, (double)length);
    norms[row] = length > 0 ? length : 1.0f;
  }
  return 0;
}

const float *dict_norms(const struct dict *dict) { return dict->norms; }

void dict_decoder_row(const struct dict *dict, int64_t index, float *out) {
  assert(index >= 0 && index < dict->info.n_feat);
  size_t width = (size_t)dict->info.d_out;
  tensor_row(dict->w_dec, index, 0, width, out);
  for (size_t i = 0; i < width; i++) out[i] /= dict->norms[index];
}

static void add_row(const struct tensor *w_dec, int64_t row, float scale, float *out) {
  float piece[PIECE];
  for (int64_t at = 0; at < w_dec->shape[1]; at += PIECE) {
    size_t count = size_min(PIECE, (size_t)(w_dec->shape[1] - at));
    tensor_row(w_dec, row, at, count, piece);
    for (size_t i = 0; i < count; i++) out[at + (int64_t)i] += scale * piece[i];
  }
}

void dict_decode(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows,
                 float *out) {
  size_t width = (size_t)dict->info.d_out;
  assert(first <= codes->n_rows && n_rows <= codes->n_rows - first);
  for (size_t row = 0; row < n_rows; row++, out += width) {
    memcpy(out, dict->b_dec, width * sizeof *out);
    for (size_t e = codes->start[first + row]; e < codes->start[first + row + 1]; e++) {
      int32_t feature = codes->index[e];
      assert(feature >= 0 && feature < dict->info.n_feat);
      add_row(dict->w_dec, feature, codes->value[e] / dict->norms[feature], out);
    }
  }
}

int dict_decoder_matrix(const struct dict *dict, struct matrix **out, struct error *error) {
  const struct tensor *w = dict->w_dec;
  const struct dict_info *info = &dict->info;
  struct matrix_part part = {w->data, w->dtype, ROWS_ARE_OUTPUTS, info->n_feat, w->stride[0]};
  if (w->stride[1] != 1 && w->stride[0] != 1)
    return error_set(error, ERROR_UNSUPPORTED, "tensor '%s' is a view with gaps, expected whole rows or columns", w->name);
  if (w->stride[1] != 1) { /* the transposed view of [d_out, n_feat] */
    part.layout = ROWS_ARE_INPUTS;
    part.ld = w->stride[1];
  }
  return dict->backend->ops->matrix_new(dict->backend, &part, 1, info->d_out, out, error);
}
