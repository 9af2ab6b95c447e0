/* dict.h: sparse dictionaries (SAEs, transcoders) over points of a model.
 *
 * FORMULAS (docs/dictionaries.md; x is one row of the input point, W_enc [d_in, F], W_dec [F, d_out]):
 *   c   = x - mean(x) if the dictionary was trained on centred weights (decision 15), else x
 *   u   = c | c * s | c * sqrt(d_in) / |c| | (c - mean(c)) / (std(c) + 1e-5), std over d_in - 1          (DICT_NORM_*)
 *   p   = (u - b_dec [only if apply_b_dec_to_input]) W_enc + b_enc                       pre-activation, raw
 *   a   = relu(p)                                                                       RELU
 *       | p where p > max(threshold, 0) else 0                                          JUMPRELU, and BatchTopK at inference
 *       | the k largest p, of these relu                                                TOPK
 *       | relu(e^r_mag (p - b_enc) + b_mag) where p > 0 else 0, b_enc being b_gate      GATED
 *       | the largest p of each of k groups of neighbours, of these relu                GROUPMAX       raw activation
 *   D_f = W_dec[f] * scaling_f [where the file has one] / s'  (s' = s for an SAE)                        decoder row
 *   A   = a * n,  n_f = |D_f|  (n = 1 when folding is off)                           what is served and stored
 *   x^  = sum_f A_f (D_f / n_f) + b_dec / s', then this row's DICT_NORM_LENGTH or _STANDARD undone (the latter
 *         by std alone),
 *         then + x S for a skip transcoder                                                       reconstruction
 * CROSS-LAYER transcoders: a dictionary is one layer L of one. It reads a point of layer L, and feature f writes a row for
 * each layer M from L on, W_dec[f, M - L], to the same site of that layer. What stands for the output of layer M is the sum
 * of what all layers up to M write there, b_dec of layer M and, where there is a skip, x S of layer M: dict_decode and
 * dict_errors have no answer for one layer and are not for these; dict_target_* are. There is no one length to fold by:
 * they are served raw (n = 1).
 *
 * NEURONS of a layer's MLP are a dictionary that nobody trained: the row of mlp.hook_post is A, raw, one feature a neuron, and D_f
 * is its row of W_out, written to the MLP's output (in front of a norm behind it). No encoder, no norm, n = 1. Every activation
 * that is not 0 is in the codes, negative ones too; a neuron FIRES where it is above 0. As x^ + b_out is the MLP's output there is
 * nothing to reconstruct or to splice: dict_decode, dict_errors, dict_encoder_row and dict_splice_* are not for these, and an edit
 * of a neuron is one of its column at mlp.hook_post.
 *
 * An SAE's x^ stands for c; a transcoder's for the row of its output point.
 * Weights are never rewritten: n is kept beside them (decision 14). A steering row is D_f / n_f, so that a
 * strength is the L2 length of what is added at the output point. TopK selects on raw p, or on p * n where the file says so.
 * A row of zeros has n = 1.
 *
 * A dict is immutable after opening. encode runs on the backend from the engine's worker; the row functions
 * read the mapped file and may be called from any thread. */
#ifndef STEERD_CORE_DICT_DICT_H
#define STEERD_CORE_DICT_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/error.h"
#include "core/dict/positions.h"
#include "core/math/ops.h"
#include "core/model/arch.h"
#include "core/model/tokenizer.h"

enum dict_kind { DICT_RELU, DICT_JUMPRELU, DICT_TOPK, DICT_GATED, DICT_GROUPMAX, DICT_KIND_COUNT, /* those of files, and then */
                 DICT_NEURONS = DICT_KIND_COUNT };
enum dict_norm { DICT_NORM_NONE, DICT_NORM_SCALE, DICT_NORM_LENGTH, DICT_NORM_STANDARD };

/* ---- memory of encoders ----------------------------------------------------------------------------- */

/* How much memory the prepared encoders of dictionaries take together. Above the limit those that were used longest ago are
 * dropped; one that is needed again is prepared again, from its mapped file, by dict_prepare or else by the worker that needs
 * it. The one in use and the one prepared last stay. Any thread. */
struct dict_budget;
struct dict_budget *dict_budget_new(size_t limit, struct error *error) MUST_CHECK; /* bytes; 0: none */
void dict_budget_free(struct dict_budget *budget); /* NULL is fine; no dictionary is open in it */

struct dict_budget_stats {
  size_t limit, bytes;       /* 0: none; of those prepared now */
  int64_t prepared, dropped; /* how often, since the start */
};
void dict_budget_stats(struct dict_budget *budget, struct dict_budget_stats *out);

/* Drops those used longest ago while there is too much, as the use of any of them does. Worker only, between steps. */
void dict_budget_trim(struct dict_budget *budget);

/* How an encoder is kept. */
struct dict_memory {
  struct dict_budget *budget; /* borrowed; NULL: what is prepared stays prepared. One that finds no room is prepared at its
                                 first use */
  enum dtype keep;            /* DTYPE_F32, DTYPE_F16, DTYPE_BF16; DTYPE_OTHER: as the file has it */
  bool aside;                 /* prepared by the calling thread alone: while the backend serves others */
};

/* What the dictionary must fit, and how it is prepared. */
struct dict_host {
  const char *model_id;
  const struct arch *arch;          /* borrowed for the call */
  const struct dict_memory *memory; /* NULL: prepared at once, by the backend's threads, as the file has it; to stay */
  const struct tokenizer *tokenizer; /* borrowed for the call; NULL: its BOS is taken to be there, and no token of it to be special */
};

struct dict_info {
  enum dict_kind kind;
  bool transcoder;      /* reads one point, writes another: nothing of its input is in its target */
  bool skip;            /* of these, one with a linear path beside the features */
  bool cross;           /* of these, a layer of a cross-layer one */
  int32_t n_targets;    /* how many layers it writes: 1 but for `cross` */
  struct point in, out; /* equal for an SAE; out: the first of the targets, of the layer of `in` */
  int64_t d_in, d_out, n_feat;
  int64_t in_width, out_width;   /* of the points' rows */
  int64_t in_column, out_column; /* where in a row the dictionary begins: not 0 for one head of attn.hook_z */
  int32_t k;            /* TOPK, GROUPMAX, else 0 */
  bool apply_b_dec_to_input;
  bool center_mean;     /* trained on centred weights */
  bool folded;          /* activations are in folded units */
  bool selects_folded;  /* TOPK takes the k largest p * n */
  enum dict_norm norm;
  float scale;          /* s of DICT_NORM_SCALE, else 1 */
  float out_scale;      /* s' */
  bool bos_counts;      /* the BOS position belongs to statistics and answers */
  bool prepend_bos;     /* trained on texts that begin with BOS */
  int64_t context;      /* tokens it was trained on at a time; 0 = not said */
  struct positions positions; /* of a context that begins as prepend_bos says: those that count; its ids live as the dictionary */
  double l0;            /* features a token its makers measured; 0 = not said */
  enum dtype dtype;     /* of the weights in the file */
  const char *format;   /* "saelens", "workshop", ... */
  size_t bytes;         /* mapped, and kept beside it whether the encoder is prepared or not */
};

struct dict;

/* path: what somebody published, recognised by its content (docs/dictionaries.md lists the formats), or FILE.ini, whose
 * section "source ID" describes weights that come without a description (dict_ini.h has the keys). id is the source id,
 * e.g. "7-res-jb"; of the folder of a cross-layer transcoder it says the layer. Elsewhere layer or set need not agree with the
 * point, but a bare integer is refused (it means neurons: dict_open_neurons).
 * Errors (ERROR_FORMAT, ERROR_NOT_FOUND, ERROR_UNSUPPORTED) name file and tensor or key, the shape found and
 * the shape expected; an architecture or normalisation that is not served is refused by name, never run as
 * something else. Backend memory is allocated for the encoder, the biases and n. */
struct dict *dict_open(const char *path, const char *id, const struct dict_host *host, struct backend *backend,
                       struct error *error) MUST_CHECK;
void dict_close(struct dict *dict); /* NULL is fine */

/* The neurons of a layer's MLP (DICT_NEURONS), 0 <= layer < n_layer. The model outlives it. ERROR_UNSUPPORTED where there is no MLP. */
struct model;
struct dict *dict_open_neurons(const struct model *model, int32_t layer, struct error *error) MUST_CHECK;

/* What dict_open would make of a path, as lines of text: the format, each field used, the tensors and what each is
 * taken for, and every transformation. No model is needed: shapes are compared with each other only. */
int dict_describe(const char *path, const char *id, struct buffer *out, struct error *error) MUST_CHECK;

/* Whether a path looks like a dictionary of some kind (or an ini): what dict_open or dict_describe might take. Opens
 * small description files only. */
bool dict_recognises(const char *path);

const struct dict_info *dict_info(const struct dict *dict);
const char *dict_kind_name(enum dict_kind kind); /* "relu", "jumprelu", "topk", "gated", "groupmax", "neurons" */

/* "relu", "topk transcoder", "jumprelu skip transcoder"; static text. */
const char *dict_title(const struct dict_info *info);

/* 16 hexadecimal digits that differ where anything differs that it computes with: all of its vectors, samples of its matrices; and
 * where it is meant to be read elsewhere (positions_print). How the encoder is kept is not part of it. */
void dict_fingerprint(const struct dict *dict, char out[17]);

/* Prepares the encoder if it was dropped, by the calling thread alone: any thread, so that the worker need not. It may be dropped
 * again before it is used. */
int dict_prepare(const struct dict *dict, struct error *error) MUST_CHECK;

/* Whether it can be encoded with as it is: the encoder is prepared, or there is none to prepare. Any thread. */
bool dict_prepared(const struct dict *dict);

/* Bytes of the encoder that is prepared now, 0 when it is not; any thread. dict_info's bytes are without them. */
size_t dict_encoder_bytes(const struct dict *dict);

/* n_f of every feature, f32 [n_feat]; borrowed. 1 everywhere when folding is off. */
const float *dict_norms(const struct dict *dict);

/* The steering row D_f / n_f, f32 [d_out], in the columns [out_column, out_column + d_out) of the output point.
 * 0 <= index < n_feat is asserted: check before. A zero row stays zero. */
void dict_decoder_row(const struct dict *dict, int64_t index, float *out);

/* The point of target t, 0 <= t < n_targets, and the row D_f / n_f that feature `index` writes there. dict_decoder_row is the
 * sum of them: what the feature adds to the residual stream in the end, nothing between taken into account. */
struct point dict_target(const struct dict *dict, int32_t target);
void dict_target_row(const struct dict *dict, int64_t index, int32_t target, float *out);

/* Adds sum_f A_f D_f / n_f of rows [first, first + n_rows) of `codes` at a target to out, [n_rows, d_out]. */
void dict_target_add(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, int32_t target,
                     float *out);

/* Adds x S of rows x [n_rows, in_width] to out, [n_rows, d_out], where there is a skip: to the output of the own layer. */
void dict_skip_add(const struct dict *dict, const float *x, size_t n_rows, float *out);

/* S on the backend, of a dictionary that has one: d_in inputs, d_out outputs. Worker only; *out stays until dict_skip_release (any thread), which belongs
 * to each hold. ERROR_UNSUPPORTED where it lies in its file as no backend reads it. */
int dict_skip_hold(const struct dict *dict, const struct matrix **out, struct error *error) MUST_CHECK;
void dict_skip_release(const struct dict *dict);

/* b_dec, f32 [d_out]: of a cross-layer transcoder that of the output of its own layer. Borrowed. */
const float *dict_output_bias(const struct dict *dict);

/* Whether two dictionaries are layers of the same cross-layer transcoder (or one and the same layer). */
bool dict_same_transcoder(const struct dict *a, const struct dict *b);

/* Rows [first, first + count) of W_dec, as they lie in the file, prepared as a matrix of the dictionary's backend (whose
 * matrix_free frees it). Worker thread, or while nothing runs. Row f of it times dict_decoder_factor is the steering row.
 * Of a cross-layer one their sums, which *made holds (NULL otherwise): to be freed behind the matrix, also after an error. */
int dict_decoder_matrix(const struct dict *dict, int64_t first, int64_t count, struct matrix **out, float **made,
                        struct error *error) MUST_CHECK;
float dict_decoder_factor(const struct dict *dict, int64_t index);

/* Column f of W_enc times n_f, f32 [d_in]: what a feature reads, in folded units; norms, centring and biases are no part of it. */
void dict_encoder_column(const struct dict *dict, int64_t index, float *out);

/* Whether one feature can be had without the others (RELU, JUMPRELU, GATED, NEURONS): dict_feature_values. */
bool dict_features_independent(const struct dict *dict);

/* Whether a feature is act(h . enc + bias) * fold of the raw row h, which is what an EDIT_ROW_FEATURE_* item
 * computes: RELU and JUMPRELU whose input is not brought to a norm of its own row. */
bool dict_has_encoder_row(const struct dict *dict);

/* What such an item needs: raw encoder column with b_dec, centring and scale folded in, enc f32 [d_in]. Asserts
 * dict_has_encoder_row. */
struct dict_encoder {
  float bias, threshold, fold;
};
struct dict_encoder dict_encoder_row(const struct dict *dict, int64_t index, float *enc);

/* A_f of one feature on n_rows host rows x [n_rows, in_width], without a full encode; asserts
 * dict_features_independent. The same bits as dict_encode on the CPU backends with fused multiply-add (cpu-avx2,
 * cpu-avx512) unless the dictionary is centred or normalises by row; within decision 18 of it elsewhere. */
void dict_feature_values(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out);

/* All features of rows x [n_rows, in_width] in backend memory; appends n_rows rows to out (folded units). Worker thread
 * only. */
int dict_encode(const struct dict *dict, struct rows x, int64_t n_rows, struct sparse *out,
                struct error *error) MUST_CHECK;

/* Splices on the backend (OP_SPLICE), worker thread only. dict_splices: whether there can be any: the backend knows them, the
 * matrices of the dictionary fit its budget, of a cross-layer transcoder those of all layers together. It never changes its answer. */
bool dict_splices(const struct dict *dict);
/* Bytes that the matrices of a dictionary take there, and the most that all may take; 0: any number. */
size_t dict_splice_bytes(const struct dict *dict);
size_t dict_splice_limit(const struct dict *dict);
/* Floats of a row that wait while what is between the points it reads and writes is computed; 0 where it reads where it writes. */
int64_t dict_splice_aside(const struct dict *dict);
/* What an edit of activations needs on the backend, wherever it is done: the encoder and, where it is spliced there, the other matrices.
 * dict_splice_prepare is dict_prepare of all of them: any thread. */
bool dict_splice_prepared(const struct dict *dict);
int dict_splice_prepare(const struct dict *dict, struct error *error) MUST_CHECK;
/* Brings its matrices to the backend. *out stays until dict_splice_release, which belongs to each hold; *serial never is that of
 * other weights. */
int dict_splice_hold(const struct dict *dict, const struct splice **out, uint64_t *serial, struct error *error) MUST_CHECK;
void dict_splice_release(const struct dict *dict);

/* x^ for n_rows sparse rows from row `first` of `codes`, f32 [n_rows, d_out] host memory; b_dec included.
 * x: the host rows that were encoded, [n_rows, in_width]; may be NULL where dict_decode_needs_input is false. Where
 * center_mean is set this is the reconstruction of c, the centred row: a splice into the raw stream adds
 * x^ - c to x. */
void dict_decode(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, const float *x,
                 float *out);
/* What each A_f D_f / n_f is multiplied with in x^ of the row x [in_width]: 1, but for DICT_NORM_LENGTH and _STANDARD of an SAE. */
double dict_decode_scale(const struct dict *dict, const float *x);
bool dict_decode_needs_input(const struct dict *dict); /* normalised by row, or a skip transcoder */

/* The error term, f32 [n_rows, d_out]: what the dictionary leaves out of the rows y [n_rows, out_width] of its output
 * point, centred where it is. x as for dict_decode; y = x for an SAE. What a splice without the error term leaves in the
 * stream is y - errors, whatever the dictionary's centring and normalisation. */
void dict_errors(const struct dict *dict, const struct sparse *codes, size_t first, size_t n_rows, const float *x,
                 const float *y, float *out);

#endif
