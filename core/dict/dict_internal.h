/* dict_internal.h: inside of a dictionary. Private to core/dict. */
#ifndef STEERD_CORE_DICT_DICT_INTERNAL_H
#define STEERD_CORE_DICT_DICT_INTERNAL_H

#include "core/dict/dict.h"
#include "core/model/tensors.h"

struct dict {
  struct dict_info info;
  struct tensors *tensors;            /* owns the mapping of the two below */
  const struct tensor *w_enc, *w_dec; /* [d_in, n_feat], [n_feat, d_out] as in the file */

  float *host;      /* one block; the vectors below point into it */
  float *b_enc;     /* [n_feat] */
  float *b_dec;     /* [d_out] */
  float *norms;     /* [n_feat] n; 1 where folding is off */
  float *threshold; /* [n_feat] max(threshold, 0); NULL but for JUMPRELU */

  struct backend *backend; /* borrowed; holds what encoding needs */
  bool aside;              /* leaves the backend's threads alone while it is opened */
  struct matrix *encoder;
  struct memory *memory;
  struct span bias, fold, cut, subtract; /* absent where the formula has none */
};

/* One weight as f32. */
static inline float tensor_f32(const struct tensor *tensor, int64_t row, int64_t column) {
  return dtype_f32_at(tensor->data, tensor->dtype,
                      (size_t)(row * tensor->stride[0] + column * tensor->stride[1]));
}

/* Columns [begin, begin + count) of a row as f32. */
static inline void tensor_row(const struct tensor *tensor, int64_t row, int64_t begin, size_t count,
                              float *out) {
  size_t first = (size_t)(row * tensor->stride[0] + begin * tensor->stride[1]);
  dtype_to_f32(tensor->data + first * dtype_size(tensor->dtype), tensor->dtype, (size_t)tensor->stride[1],
               count, out);
}

/* decode.c: n_f of every feature into norms, or ERROR_FORMAT for a row that is not finite. */
int dict_measure_rows(const struct tensor *w_dec, const char *path, float *norms,
                      struct error *error) MUST_CHECK;

#endif
