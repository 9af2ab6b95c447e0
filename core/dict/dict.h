/* dict.h: sparse dictionaries: SAEs (and, later, transcoders) over a point of a model.
 *
 * FORMULAS (docs/formats of SAELens; x is one row of the point, W_enc [d_in, F], W_dec [F, d_out]):
 *   c   = x - mean(x) if the dictionary was trained on centred weights (decision 15), else x
 *   p   = (c - b_dec [only if apply_b_dec_to_input]) W_enc + b_enc                       pre-activation, raw
 *   a   = relu(p) | p where p > max(threshold, 0) else 0 | the k largest p, of these relu      raw activation
 *   A   = a * n,  n_f = |W_dec[f]|  (n = 1 when folding is off)                      what is served and stored
 *   x^  = sum_f A_f (W_dec[f] / n_f) + b_dec                                                   reconstruction
 * Weights are never rewritten: n is kept beside them (decision 14). A steering row is W_dec[f] / n_f, so that a
 * strength is the L2 length of what is added. TopK selects on raw p (a SAELens file that asks for selection on
 * p * n is served where all n are 1 to 2^-8, as SAELens saves it for inference, else refused). A row of zeros
 * has n = 1.
 *
 * A dict is immutable after opening. encode runs on the backend from the engine's worker; the row functions
 * read the mapped file and may be called from any thread. */
#ifndef STEERD_CORE_DICT_DICT_H
#define STEERD_CORE_DICT_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/math/ops.h"

enum dict_kind { DICT_RELU, DICT_JUMPRELU, DICT_TOPK };

/* What the dictionary must fit: shape of the model it is opened for; and how it is prepared. */
struct dict_host {
  const char *model_id;
  int n_layer;
  int64_t d_model, d_mlp, d_attn; /* d_attn = n_head * d_head: width of attn.hook_z */
  bool aside;                     /* prepared by the calling thread alone: while the backend serves others */
};

struct dict_info {
  enum dict_kind kind;
  struct point in, out; /* equal for an SAE */
  int64_t d_in, d_out, n_feat;
  int32_t k;            /* TOPK, else 0 */
  bool apply_b_dec_to_input;
  bool center_mean;     /* trained on centred weights */
  bool folded;          /* activations are in folded units */
  bool bos_counts;      /* the BOS position belongs to statistics and answers */
  bool prepend_bos;     /* trained on texts that begin with BOS */
  int64_t context;      /* tokens it was trained on at a time; 0 = not said */
  enum dtype dtype;     /* of the weights in the file */
  const char *format;   /* "saelens", "workshop" */
  size_t bytes;         /* mapped + prepared */
};

struct dict;

/* path: a SAELens folder (cfg.json + sae_weights.safetensors), or FILE.ini, whose section "source ID" describes
 * it: weights (.pth or .safetensors with W_enc, b_enc, W_dec, b_dec, threshold), kind, point, k,
 * apply_b_dec_to_input, center, fold, bos_counts, prepend_bos; relative paths in an ini start at the folder in
 * STEERD_DATA (default ../shared/data). id is the source id, e.g. "7-res-jb"; layer or set need not agree with the
 * point, but a bare integer is refused (it means neurons).
 * Errors (ERROR_FORMAT, ERROR_NOT_FOUND, ERROR_UNSUPPORTED) name file and tensor or key, the shape found and
 * the shape expected; an architecture or normalisation that is not served is refused by name, never run as
 * something else. Backend memory is allocated for the encoder, the biases and n. */
struct dict *dict_open(const char *path, const char *id, const struct dict_host *host, struct backend *backend,
                       struct error *error) MUST_CHECK;
void dict_close(struct dict *dict); /* NULL is fine */

const struct dict_info *dict_info(const struct dict *dict);
const char *dict_kind_name(enum dict_kind kind); /* "relu", "jumprelu", "topk" */

/* n_f of every feature, f32 [n_feat]; borrowed. 1 everywhere when folding is off. */
const float *dict_norms(const struct dict *dict);

/* The steering row W_dec[index] / n_f, f32 [d_out]. 0 <= index < n_feat is asserted: check before. A zero row
 * stays zero. */
void dict_decoder_row(const struct dict *dict, int64_t index, float *out);

/* W_dec [n_feat, d_out], as it lies in the file, prepared as a matrix of the dictionary's backend (whose matrix_free
 * frees it). Worker thread, or while nothing runs. */
int dict_decoder_matrix(const struct dict *dict, struct matrix **out, struct error *error) MUST_CHECK;

/* What an EDIT_ROW_FEATURE_* item needs: raw encoder column with b_dec and centring folded in, so that
 * act(h . enc + bias) * fold is A_f of the raw row h, enc f32 [d_in]. Not for TOPK, whose
 * features depend on each other (asserted). */
struct dict_encoder {
  float bias, threshold, fold;
};
struct dict_encoder dict_encoder_row(const struct dict *dict, int64_t index, float *enc);

/* A_f of one feature on n_rows host rows x [n_rows, d_in]; for RELU and JUMPRELU (asserted), without a full
 * encode. The same bits as dict_encode on the CPU backends with fused multiply-add (cpu-avx2, cpu-avx512) unless the
 * dictionary is centred; within decision 18 of it elsewhere. */
void dict_feature_values(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out);

/* All features of rows x in backend memory; appends n_rows rows to out (folded units). Worker thread only. */
int dict_encode(const struct dict *dict, struct rows x, int64_t n_rows, struct sparse *out,
                struct error *error) MUST_CHECK;

/* x^ for n_rows sparse rows from row `first` of `codes`, f32 [n_rows, d_out] host memory; b_dec included. Where
 * center_mean is set this is the reconstruction of c, the centred row: a splice into the raw stream adds
 * x^ - c to x. */
void dict_decode(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, float *out);

#endif
