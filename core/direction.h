/* direction.h: a page of the front door: the direction in the residual stream, or at any other point, that leads from some texts to
 * others ("contrast pairs"), with how well it tells them apart.
 *
 * The rules of laboratory.h hold: a job that wakes its asker, errors that name the request's fields. */
#ifndef STEERD_CORE_DIRECTION_H
#define STEERD_CORE_DIRECTION_H

#include "core/analysis/contrast.h"
#include "core/laboratory.h"
#include "core/vectors.h"

enum lab_direction_method {
  LAB_DIRECTION_MEAN,     /* mean of the positive rows minus mean of the negative ones */
  LAB_DIRECTION_PRINCIPAL /* first principal direction of the differences of pairs, text i of both (contrast.h) */
};
enum lab_direction_row {
  LAB_ROW_LAST, /* of the text's last token */
  LAB_ROW_MEAN  /* the mean over its tokens, special ones (BOS) left out */
};

struct lab_direction_args {
  const struct lab_model_info *model;
  const struct lab_input *positive, *negative; /* one text each at least; of LAB_DIRECTION_PRINCIPAL as many of both */
  size_t n_positive, n_negative;
  enum lab_bos bos;
  const char *const *points; /* names or globs; a row has one width in all texts: neither scores nor patterns */
  size_t n_points;
  enum lab_direction_method method;
  enum lab_direction_row row;
  bool keep;                 /* they will be kept (lab_direction_keep): points are hook_resid_pre and hook_resid_post only */
};

/* Fields: "positive[i]", "negative[i]", "negative", "points[i]", "points". ERROR_LIMIT where the rows would need too much memory. */
int lab_direction(struct lab *lab, const struct lab_direction_args *args, struct lab_waker waker, struct lab_job **out,
                  struct error *error) MUST_CHECK;

struct lab_direction_at {
  const char *point;    /* its TransformerLens name */
  const float *values;  /* f32 [width] */
  int64_t width;
  struct contrast told;
};
struct lab_direction_result {
  const struct lab_direction_at *at; /* in the order of the pass */
  size_t n;
  size_t n_positive, n_negative;
};
/* Of a LAB_JOB_DONE job; owned by it. */
const struct lab_direction_result *lab_direction_result(const struct lab_job *job);

/* Keeps all directions of a result as vectors under `label`, all or none; their strength is 1. Errors as lab_vectors_keep_file, and
 * ERROR_ARGUMENT where one has no length. *out is [result->n], in the arena. */
int lab_direction_keep(const struct lab *lab, const struct lab_model_info *model, const struct lab_direction_result *result, const char *label,
                       struct arena *arena, struct store_vector **out, struct error *error) MUST_CHECK;

#endif
