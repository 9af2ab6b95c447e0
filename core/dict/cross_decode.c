/* cross_decode.c: what a feature writes to each layer, and to all of them together. Reads mapped weights only, so all of it may run
 * on any thread. A dictionary that is no cross-layer transcoder has one target, and its rows are decode.c's. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"

struct point dict_target(const struct dict *dict, int32_t target) {
  assert(target >= 0 && target < dict->info.n_targets);
  return (struct point){dict->info.out.layer + target, dict->info.out.site};
}

void dict_target_row(const struct dict *dict, int64_t index, int32_t target, float *out) {
  const struct dict_info *info = &dict->info;
  assert(index >= 0 && index < info->n_feat && target >= 0 && target < info->n_targets);
  if (info->cross)
    tensor_row(&dict->w_dec, index, target * info->d_out, (size_t)info->d_out, out);
  else
    dict_decoder_row(dict, index, out);
}

#define PIECE 256 /* elements of a row converted at a time, on the stack */

/* out += scale * a row of a matrix, `width` columns from `column` on. */
static void add_row(const struct tensor *w, int64_t index, int64_t column, int64_t width, float scale, float *out) {
  float piece[PIECE];
  for (int64_t at = 0; at < width; at += PIECE) {
    size_t count = size_min(PIECE, (size_t)(width - at));
    tensor_row(w, index, column + at, count, piece);
    for (size_t i = 0; i < count; i++) out[at + (int64_t)i] += scale * piece[i];
  }
}

void dict_target_add(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, int32_t target,
                     float *out) {
  assert(dict->info.cross && target >= 0 && target < dict->info.n_targets);
  for (size_t row = 0; row < n_rows; row++, out += dict->info.d_out)
    for (size_t e = codes->start[first + row]; e < codes->start[first + row + 1]; e++)
      add_row(&dict->w_dec, codes->index[e], target * dict->info.d_out, dict->info.d_out, codes->value[e], out);
}

void dict_skip_add(const struct dict *dict, const float *x, size_t n_rows, float *out) {
  const struct dict_info *info = &dict->info;
  for (size_t row = 0; info->skip && row < n_rows; row++, x += info->in_width, out += info->d_out)
    for (int64_t i = 0; i < info->d_in; i++) add_row(&dict->skip, i, 0, info->d_out, x[info->in_column + i], out);
}

const float *dict_output_bias(const struct dict *dict) { return dict->b_dec; }

bool dict_same_transcoder(const struct dict *a, const struct dict *b) {
  return a == b || (a->whole && b->whole && strcmp(a->whole, b->whole) == 0);
}

/* ---- all targets together ---------------------------------------------------------------------------- */

void cross_decoder_row(const struct dict *dict, int64_t index, float *out) {
  memset(out, 0, (size_t)dict->info.d_out * sizeof *out);
  for (int32_t t = 0; t < dict->info.n_targets; t++) add_row(&dict->w_dec, index, t * dict->info.d_out, dict->info.d_out, 1, out);
}

int cross_decoder_matrix(const struct dict *dict, int64_t first, int64_t count, struct matrix **out, float **made,
                         struct error *error) {
  size_t width = (size_t)dict->info.d_out, bytes = (size_t)count * width * sizeof(float);
  float *rows = *made = malloc(bytes);
  if (!rows) return error_memory(error, bytes);
  for (int64_t f = 0; f < count; f++) cross_decoder_row(dict, first + f, rows + (size_t)f * width);
  struct matrix_part part = {.data = rows, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = count,
                             .ld = dict->info.d_out};
  return dict->backend->ops->matrix_new(dict->backend, &part, 1, dict->info.d_out, out, error);
}
