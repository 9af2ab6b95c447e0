/* dict_internal.h: inside of a dictionary. Private to core/dict. */
#ifndef STEERD_CORE_DICT_DICT_INTERNAL_H
#define STEERD_CORE_DICT_DICT_INTERNAL_H

#include "core/dict/dict.h"
#include "core/dict/dict_config.h"
#include "core/model/tensors.h"

struct dict {
  struct dict_info info;
  struct tensors *tensors;    /* owns the mapping of the three below */
  struct tensors *decoder;    /* of a cross-layer transcoder in two files: that of w_dec; else NULL */
  char *whole;                /* of a cross-layer transcoder: the real path of its folder; else NULL */
  struct tensor w_enc, w_dec; /* [d_in, n_feat], [n_feat, n_targets * d_out]: views of the files' */
  struct tensor skip;         /* [d_in, d_out]; n_dims 0: none */

  int32_t *excluded; /* of info.positions; NULL: none */

  float *made;      /* of neurons of a processed model: w_dec, which no file has so; else NULL */

  float *host;      /* one block; the vectors below point into it */
  float *b_enc;     /* [n_feat] */
  float *b_dec;     /* [d_out] */
  float *norms;     /* [n_feat] n; 1 where folding is off */
  float *threshold; /* [n_feat] max(threshold, 0); NULL but for JUMPRELU */
  float *gain, *shift; /* [n_feat]; NULL but for GATED */
  float *factor;    /* [n_feat] D_f = W_dec[f] * factor; NULL: 1 everywhere */

  struct backend *backend; /* borrowed; holds what encoding needs */
  struct resident *resident; /* the encoder, which may come and go; NULL of neurons, which have none */
  enum dtype keep;           /* of the encoder: every way to a feature's value sees its weights rounded so */
  struct spliced *spliced;   /* worker only */
  struct memory *memory;
  struct span bias, fold, cut, subtract, gain_at, shift_at; /* absent where the formula has none */
};

/* One weight as f32. */
static inline float tensor_f32(const struct tensor *tensor, int64_t row, int64_t column) {
  return dtype_f32_at(tensor->data, tensor->dtype,
                      (size_t)(row * tensor->stride[0] + column * tensor->stride[1]));
}

/* An encoder weight, as encoding sees it. */
static inline float encoder_weight(const struct dict *dict, int64_t in, int64_t index) {
  return dtype_round(tensor_f32(&dict->w_enc, in, index), dict->keep);
}

/* Columns [begin, begin + count) of a row as f32. */
static inline void tensor_row(const struct tensor *tensor, int64_t row, int64_t begin, size_t count,
                              float *out) {
  size_t first = (size_t)(row * tensor->stride[0] + begin * tensor->stride[1]);
  dtype_to_f32(tensor->data + first * dtype_size(tensor->dtype), tensor->dtype, (size_t)tensor->stride[1],
               count, out);
}

/* What brings one row x of the input to its norm, u = (x - mean) * scale, and what it is brought back with. The two differ
 * by the 1e-5 that keeps a standard deviation off 0: dictionaries are trained without it on the way back. */
struct row_frame {
  double mean, scale, back;
};
struct row_frame row_frame(const struct dict *dict, const float *x);

/* resident.c: the encoder, which comes and goes with its budget. The part is copied, its data borrowed; memory may be NULL. */
struct resident *resident_new(const struct dict_memory *memory, struct backend *backend, const struct matrix_part *part,
                              int64_t n_in, struct error *error) MUST_CHECK;
void resident_free(struct resident *resident); /* NULL is fine */

/* Any thread: prepares it by itself if it is not. */
int resident_prepare(struct resident *resident, struct error *error) MUST_CHECK;
bool resident_prepared(const struct resident *resident); /* any thread */

/* Worker only: prepares it if it is not; *out stays until the next call for any dictionary of the budget. */
int resident_use(struct resident *resident, const struct matrix **out, struct error *error) MUST_CHECK;
size_t resident_bytes(const struct resident *resident);

/* Another matrix in the same budget, not prepared. */
struct resident *resident_beside(const struct resident *like, const struct matrix_part *part, int64_t n_in,
                                 struct error *error) MUST_CHECK;
/* Worker only: prepares it if it is not; *out stays until it is released as often as it was held. *serial: of these weights; never
 * that of others. */
int resident_hold(struct resident *resident, const struct matrix **out, uint64_t *serial, struct error *error) MUST_CHECK;
void resident_release(struct resident *resident);
size_t resident_size(const struct resident *resident);  /* bytes it takes when it is prepared, or nearly so */
size_t resident_limit(const struct resident *resident); /* of its budget; 0: none */

/* encode.c: how rows are encoded; x and n_rows are missing. */
struct encode_args dict_encode_args(const struct dict *dict, const struct matrix *encoder);

/* neurons.c: the three of encode.c, for neurons. */
int neurons_encode(const struct dict *dict, struct rows x, int64_t n_rows, struct sparse *out, struct error *error) MUST_CHECK;
void neurons_values(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out);
void neurons_encoder_column(const struct dict *dict, int64_t index, float *out);

/* decode.c: rows [first, first + count) of W_dec as they lie in the file; not of cross-layer transcoders. */
int dict_decoder_part(const struct dict *dict, int64_t first, int64_t count, struct matrix_part *out,
                      struct error *error) MUST_CHECK;

/* splice.c: what splices need beside the encoder. */
#define SPLICED_PARTS 3
struct spliced {
  struct resident *decoder; /* NULL: it is not spliced on the backend */
  struct resident *skip;    /* NULL: nor that, or it has none */
  struct memory *memory;
  struct splice splice;
  uint64_t parts[SPLICED_PARTS], serial; /* of the encoder, the decoder and the skip, and of all together */
};
/* Where it can be spliced: its vectors, counted in info.bytes; its matrices are not prepared yet (most dictionaries are never spliced). */
int spliced_open(struct dict *dict, struct error *error) MUST_CHECK;
void spliced_clear(struct spliced *spliced, struct backend *backend);

/* decode.c: |W_dec[f]| of every feature into norms, or ERROR_FORMAT for a row that is not finite. */
int dict_measure_rows(const struct tensor *w_dec, const char *path, const char *name, float *norms,
                      struct error *error) MUST_CHECK;

/* dict.c: the description as dict_info shows it. Sizes are the host's where it says them, else the description's; 0 is left to
 * the tensors. */
int dict_config_info(const struct dict_config *config, const struct dict_host *host, struct dict_info *info,
                     struct error *error) MUST_CHECK;

/* dict_tensors.c: the tensors of the file that the description names, checked against it, the host's widths and each
 * other; n_feat, d_in and d_out where nobody said them yet (info). Other tensors than those are refused. decoder NULL: W_dec is in
 * the same file. W_dec of a cross-layer transcoder comes as [n_feat, n_targets * d_out]. */
struct dict_found {
  struct tensor of[ROLE_COUNT]; /* n_dims 0 and data NULL: not there */
};
int dict_find_tensors(const struct tensors *tensors, const struct tensors *decoder, const struct dict_config *config,
                      struct dict_info *info, struct dict_found *out, struct error *error) MUST_CHECK;

/* cross_decode.c: rows of W_dec summed over the targets, and these as a matrix. */
void cross_decoder_row(const struct dict *dict, int64_t index, float *out);
int cross_decoder_matrix(const struct dict *dict, int64_t first, int64_t count, struct matrix **out, float **made,
                         struct error *error) MUST_CHECK;

/* A vector as f32, all of it finite; one number stands for all where the tensor is a scalar or of length 1. */
int dict_read_vector(const struct tensor *tensor, const char *path, int64_t length, float *out,
                     struct error *error) MUST_CHECK;

#endif
