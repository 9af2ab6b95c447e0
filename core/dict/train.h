/* train.h: training a dictionary: rows of activations in, a folder that SAELens and steerd read out (docs/training.md).
 *
 * FORMULAS, of one step over B rows x; c = scale * x - b_dec is what the encoder reads and what is to be made, n_f = |W_dec[f]|,
 * S = 1, 2, ... the step (of a transcoder, with rows y beside x, the encoder reads scale * x, and c = scale_out * y - b_dec is to be made):
 *   s   = n_f (what is read W_enc[f] + b_enc[f]), kept where     s > 0                                               RELU
 *                                                     s > 0 and among the k largest of its row            TOPK
 *                                                     s > 0 and among the k B largest of all rows         BATCHTOPK
 *                                                     s > n_f t_f                                         JUMPRELU
 *   a   = s / n_f; e = sum_f a_f W_dec[f] - c
 *   loss = mean over rows of |e|^2
 *        + l1(S) mean over rows of sum_f s_f                                                              RELU
 *        + aux min(D / kaux, 1) mean over rows of |e + sum over z of z_f W_dec[f]|^2, e held              TOPK, BATCHTOPK
 *        + l0(S) mean over rows of sum_f H_f, of (2 / target)(sum_f H_f - target)^2, or of
 *          sum_f tanh(tanh_scale s_f), by l0_loss; H_f = 1 where a feature is kept, else 0                JUMPRELU
 *        + pre_act mean over rows of sum of n_f max(0, t_f - s_f / n_f) over silent features              JUMPRELU
 * z: the kaux = d / 2 (d: of c) largest s > 0, divided by n_f, of a row among the D features that have been silent for more than dead_after
 * steps (Gao et al. 2024). Gradients are clipped to a length of 1 together; Adam with beta1 0.9, beta2 0.999, eps 1e-8.
 * rate(S) = rate * min(1, S / warm_up) * (while less than `decay` steps are left: (steps - S + 1) / decay); l1(S) = l1 min(1, (S - 1) /
 * l1_warm_up). These are SAELens' training classes and schedules (6.x), but for relu in front of z, which is the paper's.
 * t_f >= 0 is a parameter, brought back to 0 behind each step. What it does is no slope: with p = s / n_f, and R = 1 where |p - t| <
 * bandwidth / 2, else 0, d a / dt = -(t / bandwidth) R and dH / dt = -R / bandwidth (Rajamanoharan et al. 2024); ste_to_input gives p
 * what t has with the other sign (Anthropic, January 2025). l0(S) as l1(S).
 * BATCHTOPK at inference is a JumpReLU: its threshold is the mean of the smallest kept s, over the steps behind it with weights that
 * fall by 0.99 a step; in runs of less than 2000 steps by 1 - 1 / (1 + steps / 20), so that the beginning is forgotten.
 *
 * A step's bits depend on the options, the rows and the kind of processor, not on the number of threads. Not thread-safe; a step
 * uses the trainer's own threads, so that whoever serves goes on with his. */
#ifndef STEERD_CORE_DICT_TRAIN_H
#define STEERD_CORE_DICT_TRAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/error.h"

enum train_kind { TRAIN_RELU, TRAIN_TOPK, TRAIN_BATCHTOPK, TRAIN_JUMPRELU, TRAIN_KINDS };
enum train_l0_loss { TRAIN_L0_STEP, TRAIN_L0_TANH, TRAIN_L0_QUADRATIC, TRAIN_L0_LOSSES };

const char *train_kind_name(enum train_kind kind);          /* "relu", "topk", "batchtopk", "jumprelu" */
const char *train_l0_loss_name(enum train_l0_loss l0_loss); /* "step", "tanh", "quadratic" */
/* ERROR_ARGUMENT with the nearest name, or all of them. */
int train_kind_find(const char *name, enum train_kind *out, struct error *error) MUST_CHECK;
int train_l0_loss_find(const char *name, enum train_l0_loss *out, struct error *error) MUST_CHECK;
bool train_takes_k(enum train_kind kind);
int64_t train_default_k(int64_t n_feat); /* 32, an eighth of fewer than 256 */

struct train_options {
  enum train_kind kind;
  int64_t width;      /* of a row; >= 1 */
  int64_t width_out;  /* of a row that a transcoder is to make of it, >= 1; 0: no transcoder, it makes what it reads */
  int64_t n_feat;     /* >= 1 */
  int64_t k;          /* TOPK, BATCHTOPK: 1..n_feat; else 0 */
  int64_t batch;      /* rows of a step, >= 1 */
  int64_t steps;      /* >= 1: schedules end there */
  uint64_t seed;
  double rate;        /* > 0 */
  int64_t warm_up, decay; /* steps, 0..steps */
  double l1;          /* RELU: >= 0 */
  int64_t l1_warm_up; /* steps, >= 0 */
  double aux;         /* >= 0 */
  int64_t dead_after; /* steps, >= 1 */
  double init_norm;   /* of decoder rows to begin with, > 0 */
  /* JUMPRELU, else 0: */
  double threshold;   /* of every feature to begin with, >= 0 */
  double bandwidth;   /* > 0 */
  double l0;          /* >= 0 */
  int64_t l0_warm_up; /* steps, >= 0 */
  enum train_l0_loss l0_loss;
  double target_l0;   /* QUADRATIC: above 0, at most n_feat */
  double tanh_scale;  /* TANH: > 0 */
  double pre_act;     /* >= 0 */
  bool ste_to_input;
};

/* What SAELens or the papers take, by what is set already (kind, width, n_feat, k, batch, steps); docs/training.md says which. */
void train_defaults(struct train_options *options);

/* ERROR_ARGUMENT naming what is out of its range, field as in struct train_options. */
int train_check(const struct train_options *options, struct error *error) MUST_CHECK;

int64_t train_width_out(const struct train_options *options); /* of decoder rows: width, where width_out is 0 */

/* Bytes that a trainer of these options takes at most: SIZE_MAX when that is no number. */
size_t train_bytes(const struct train_options *options);

struct train_figures {
  double mse, sparsity, aux; /* parts of the loss; sparsity: of l1 or l0; aux: of aux or pre_act */
  double l0;                 /* features a row */
  double explained;          /* 1 - sum |e|^2 / sum |c - mean c|^2 over the rows of the step; NaN where they do not vary */
  double rate, length;       /* of the step; of all gradients before clipping */
  int64_t dead;              /* silent for more than dead_after steps */
};

struct trainer;

/* device: of core/math/ops.h, for processors. Features point anywhere, their encoders along their decoder rows (of a transcoder anywhere
 * too, as long as these); nothing is known of the rows yet. ERROR_ARGUMENT, ERROR_MEMORY. */
struct trainer *trainer_new(const struct train_options *options, const char *device, int threads, struct error *error) MUST_CHECK;
void trainer_free(struct trainer *trainer); /* NULL is fine */

/* From some rows x [n, width] before the first step: scale, which makes their mean length sqrt(width), and b_dec, their mean; of a
 * transcoder the same of y [n, width_out] for scale_out and b_dec, else y is NULL. ERROR_ARGUMENT where all rows are 0 or one is not
 * finite. */
int trainer_begin(struct trainer *trainer, const float *x, const float *y, int64_t n, struct error *error) MUST_CHECK;

/* One step over x [batch, width], and y [batch, width_out] of a transcoder, else NULL. ERROR_FORMAT where the loss is no number any
 * longer. */
int trainer_step(struct trainer *trainer, const float *x, const float *y, struct train_figures *out, struct error *error) MUST_CHECK;

int64_t trainer_steps(const struct trainer *trainer); /* made */
const struct train_options *trainer_options(const struct trainer *trainer);

/* Everything that the next step depends on, as plain bytes of this machine, and back into a trainer of the same options: the next
 * steps then have the bits that they would have had. ERROR_IO, ERROR_FORMAT. */
int trainer_save(const struct trainer *trainer, FILE *file, struct error *error) MUST_CHECK;
int trainer_load(struct trainer *trainer, FILE *file, struct error *error) MUST_CHECK;

/* ---- a folder ---- */

/* What the dictionary is told to be of. Texts are borrowed for the call. */
struct train_about {
  const char *model, *hook; /* "gpt2-small", "blocks.7.hook_resid_pre" */
  const char *hook_out;     /* of a transcoder, else NULL */
  const char *dataset;      /* a name; may be NULL */
  int64_t context;
  bool prepend_bos, heads;  /* heads: the point is attn.hook_z */
  bool processed;           /* the model's weights were folded and centred, as TransformerLens does by default */
  double l0, explained;     /* measured over other rows; NaN: not known */
};

/* cfg.json and sae_weights.safetensors into a folder that exists, as SAELens writes them: scale and norms folded in, decoder rows of
 * length 1, BATCHTOPK as jumprelu. Each file is there whole or not at all, cfg.json last. ERROR_IO. */
int trainer_write(const struct trainer *trainer, const char *folder, const struct train_about *about,
                  struct error *error) MUST_CHECK;

/* cfg.json alone, again. */
int trainer_describe(const struct trainer *trainer, const char *folder, const struct train_about *about, struct error *error) MUST_CHECK;

/* ---- for tests ---- */

/* The parameters as they are: enc [n_feat, width], dec [n_feat, width_out], b_enc [n_feat], b_dec [width_out]; borrowed. */
struct train_weights {
  const float *enc, *dec, *b_enc, *b_dec;
  double scale, threshold; /* threshold: of s */
  const float *thresholds; /* [n_feat], of s / n; JUMPRELU, else NULL */
  double scale_out;        /* of a transcoder; else scale */
};
void trainer_weights(const struct trainer *trainer, struct train_weights *out);
/* Before the first step: other ones. scale as given. */
int trainer_set_weights(struct trainer *trainer, const struct train_weights *weights, struct error *error) MUST_CHECK;
/* The gradients of the last step, before clipping; as the weights. */
void trainer_gradients(const struct trainer *trainer, struct train_weights *out);
/* As if these features had been silent for long. */
void trainer_set_silent(struct trainer *trainer, const bool *silent);

#endif
