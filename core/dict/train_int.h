/* train_int.h: a trainer from inside. Private to core/dict/train*.c. */
#ifndef STEERD_CORE_DICT_TRAIN_INT_H
#define STEERD_CORE_DICT_TRAIN_INT_H

#include "core/base/pool.h"
#include "core/dict/train.h"
#include "core/math/learn.h"
#include "core/math/ops.h"

#define TRAIN_UNIT 16 /* features that one thread takes at a time: those of a line of the matrix */

#define ADAM_BETA1 0.9
#define ADAM_BETA2 0.999
#define ADAM_EPS 1e-8
#define CLIP_LENGTH 1.0

/* A parameter: values, Adam's moments, gradient. */
struct train_parameter {
  float *value, *first, *second, *gradient;
};

/* Sparse codes by features: entries [start[f], start[f + 1]) of feature f, rows ascending. */
struct train_columns {
  size_t *start; /* [n_feat + 1] */
  int32_t *row;
  float *value;
  size_t capacity;
};

/* Features that have been silent for long, and what they make of the rows' errors. */
struct train_aux {
  int64_t n_dead;
  int32_t *dead;      /* [n_feat]: which */
  float *rows;        /* [room, width]: their encoders, gathered */
  int64_t room;
  struct sparse codes; /* features counted among the dead */
  struct train_columns columns;
  float *error;       /* [batch, width_out] */
  float scale;        /* of the gradient */
};

/* What thresholds of JUMPRELU learn from, beside the codes. */
struct train_jump {
  struct sparse near;           /* entries within half a bandwidth of the threshold; their s, or 0 where that is not kept */
  struct train_columns columns; /* of these */
  float *row_slope;             /* [batch]: what the loss makes of one more feature in the row */
  float *each;                  /* beside trainer.columns: what tanh makes of an entry's activation */
  size_t room;                  /* of each */
  double *loss;                 /* [n_feat]: sum of tanh */
};

struct trainer {
  struct train_options options;
  struct backend *backend;
  const struct learn *learn;
  struct pool *pool;
  int64_t step;            /* steps made */
  double scale, scale_out; /* of the rows; 0: not begun. scale_out: of those to be made, the same but for a transcoder */
  double threshold, weight; /* sums over steps of keeps^age times the smallest kept value, and times 1 */
  struct train_parameter enc, dec, b_enc, b_dec; /* [n_feat, width], [n_feat, width_out], [n_feat], [width_out] */
  struct train_parameter thresholds; /* [n_feat]: t of JUMPRELU */
  int64_t *silent;         /* [n_feat]: steps since it fired */
  float *norms;            /* [n_feat]: lengths of decoder rows */
  struct matrix *matrix;   /* enc times norms */
  struct memory *rows, *bias, *least; /* of the backend: what is read [batch, width], b_enc times norms, a threshold for all [n_feat] */
  float *bias_rows;        /* what `bias` is written from */
  /* One step. */
  float *input;            /* what is read, [batch, width] */
  float *target, *error;   /* c and e, [batch, width_out]; target is input but for a transcoder */
  double *row_error, *row_square; /* [batch]: |e|^2, |c|^2 */
  struct sparse codes;
  struct train_columns columns;
  struct train_aux aux;
  struct train_jump jump;
  double *squares;         /* [n_feat]: of all gradients of a feature */
  float *partial;          /* [units, width]: of b_dec */
  float *column_sums;      /* [2, width_out]: of c and of e */
  float cut;               /* BATCHTOPK: what the smallest kept value was */
};

/* ---- train_codes.c ---- */

/* Folded codes of the rows, the kept ones: trainer.codes. */
int train_encode(struct trainer *trainer, struct error *error) MUST_CHECK;
/* All above 0, with trainer.bias. */
int train_encode_above(struct trainer *trainer, struct error *error) MUST_CHECK;
/* Divides codes by the norms of their features: entry i of feature index[i], of those in `of` where not NULL. */
void train_unfold(const struct trainer *trainer, struct sparse *codes, const int32_t *of);
int train_columns_make(struct train_columns *columns, const struct sparse *codes, int64_t n_feat, struct error *error) MUST_CHECK;
void train_columns_free(struct train_columns *columns);

/* ---- train_aux.c ---- */

/* Whom silence has made dead before this step; what they do of the errors, when there are any. *loss: its part. */
int train_aux(struct trainer *trainer, double *loss, struct error *error) MUST_CHECK;
/* The entries of one of them, its place among the dead given; n 0 where there are none. */
struct learn_entries train_aux_entries(const struct trainer *trainer, int64_t place);

/* ---- train_jump.c: JUMPRELU ---- */

/* trainer.codes and trainer.jump.near of the rows. */
int train_jump_encode(struct trainer *trainer, struct error *error) MUST_CHECK;
/* Behind the columns of the codes: what the loss makes of counts of features; those of `near` by features. *loss: STEP, QUADRATIC. */
int train_jump_slopes(struct trainer *trainer, double *loss, struct error *error) MUST_CHECK;
/* What tanh makes of a feature's entries, into jump.each; its entries' gradients are given it before this feature's end. */
void train_jump_each(struct trainer *trainer, int64_t f);
bool train_jump_learns(const struct trainer *trainer, int64_t f); /* it has an entry that is near */
/* The gradients of a feature's threshold, and what else it has, onto those that are there. place: among the dead, or -1. */
void train_jump_feature(struct trainer *trainer, int64_t f, int64_t place);
double train_jump_loss(const struct trainer *trainer); /* TANH */
void train_jump_free(struct train_jump *jump);
double train_l0_of(const struct trainer *trainer); /* the coefficient of this step */

/* ---- train_step.c ---- */

double train_ramp(int64_t step, int64_t over); /* from 0 to 1 */

/* ---- train.c ---- */

void trainer_fold(struct trainer *trainer, int64_t first, int64_t count); /* norms and matrix of some features */
int trainer_fold_biases(struct trainer *trainer, struct error *error) MUST_CHECK;
int trainer_fold_all(struct trainer *trainer, struct error *error) MUST_CHECK;
void *train_floats(int64_t rows, int64_t width); /* zeros, aligned; free()d */

#endif
