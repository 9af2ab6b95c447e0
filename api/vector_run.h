/* vector_run.h: a vector in place of a feature: the dot product with its point's row at every token of some texts. Private to api/. */
#ifndef STEERD_API_VECTOR_RUN_H
#define STEERD_API_VECTOR_RUN_H

#include "api/call.h"
#include "core/laboratory.h"

/* Writes the answer for one text. values: of all of its tokens, BOS where it was run; its source and index are not filled. */
typedef int vector_run_write(struct api_call *call, struct json_writer *w, const struct lab_run_text *text,
                             const struct lab_feature_values *values, struct error *error);

struct vector_run {
  const struct lab_model_info *model;
  const struct lab_text *texts; /* [n_texts] */
  size_t n_texts;
  const char *field;            /* of the texts */
  bool many;                    /* they came as an array: errors name one of them */
  enum lab_bos bos;
  const char *hook;             /* the vector's point */
  const float *values;          /* [n] */
  size_t n;
  const char *vector_field, *hook_field; /* what the two are called in errors */
  vector_run_write *write;
  bool rows;                    /* the answer is an array of what `write` writes; else, of many, {results: [...]} */
  const void *own;              /* what `write` needs */
};

/* Starts the run; it becomes the call's, and lies in its arena, as all that it points to does. */
int vector_run_start(struct api_call *call, struct vector_run *run, struct error *error) MUST_CHECK;

#endif
