/* vector_logits.c: the verb "vector logits": what a direction of the residual stream promotes, in one slice of the engine's background. */
#include <stdlib.h>
#include <string.h>

#include "core/lab/tables.h"
#include "core/vectors.h"

struct vector_job {
  struct lab_job job;
  struct arena arena;
  const struct model *model;
  float *values; /* [d_model] */
  struct feature_logits logits;
  struct store_feature result;
};

static void destroy(struct lab_job *job) {
  struct vector_job *v = (struct vector_job *)job;
  arena_clear(&v->arena);
  job_clear(job);
  free(v);
}

static int slice(void *context, struct plan *plan, struct error *error) {
  struct vector_job *v = context;
  return tables_row_logits(plan, tokenizer_size(v->model->tokenizer), v->values, &v->logits, error);
}

static void done(void *context, const struct error *error) {
  struct vector_job *v = context;
  struct error own = ERROR_INIT;
  if (!error && table_store_logits(v->model, &v->logits, &v->arena, &v->result, &own) != 0) error = &own;
  job_done(&v->job, error);
}

int lab_vector_logits(struct lab *lab, const struct lab_model_info *model, const float *values, struct lab_waker waker,
                      struct lab_job **out, struct error *error) {
  static const struct engine_work work = {.slice = slice, .done = done, .asked = true};
  struct vector_job *v = calloc(1, sizeof *v);
  if (!v) return error_memory(error, sizeof *v);
  job_init(&v->job, lab, waker, destroy);
  arena_init(&v->arena, 0);
  v->model = lab_model_of(lab, model)->model;
  v->values = arena_array(&v->arena, (size_t)model->d_model, sizeof *v->values, error);
  if (!v->values) return destroy(&v->job), -1;
  memcpy(v->values, values, (size_t)model->d_model * sizeof *v->values);
  if (job_submit_work(&v->job, v->model, &work, error) != 0) return -1;
  *out = &v->job;
  return 0;
}

const struct store_feature *lab_vector_logits_result(const struct lab_job *job) { return &((const struct vector_job *)job)->result; }
