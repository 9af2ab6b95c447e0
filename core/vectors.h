/* vectors.h: a page of the front door: directions of the residual stream that are kept in the store, one for each of several layers
 * under one label, and files of them.
 *
 * The rules of archive.h hold: plain structs of the store go through as they are, and without a store these verbs answer with the
 * remedy. A few milliseconds each, any thread. */
#ifndef STEERD_CORE_VECTORS_H
#define STEERD_CORE_VECTORS_H

#include "core/archive.h"
#include "core/base/buffer.h"

/* Fills vector->source ("6-neuronpedia-resid-pre") and vector->point ("blocks.6.hook_resid_pre"), in the arena. */
int lab_vector_place(int64_t layer, bool pre, struct arena *arena, struct store_vector *vector, struct error *error) MUST_CHECK;

/* Whether a source id is one that kept vectors stand under. */
bool lab_holds_vectors(const char *source_id);

/* A kept vector's source as a feature's is told: its place, and nothing of a dictionary. Borrows the model's and the vector's texts. */
struct lab_source_info lab_vector_source(const struct lab_model_info *model, const struct store_vector *vector);

/* The length of a vector. */
double lab_vector_norm(const float *values, size_t n);

/* A vector [model->d_model] of a loaded model's stream against its unembedding, as a job: which logits it raises most, which it lowers.
 * The values are copied. The result has the groups STORE_LOGITS and STORE_MOMENTS, and is owned by the job. */
int lab_vector_logits(struct lab *lab, const struct lab_model_info *model, const float *values, struct lab_waker waker,
                      struct lab_job **out, struct error *error) MUST_CHECK;
const struct store_feature *lab_vector_logits_result(const struct lab_job *job);

struct lab_vector_file {
  const char *format;           /* "gguf", "safetensors" or "npz" */
  const char *hint;             /* the kind of model that the file says it is for; NULL: it does not say */
  struct store_vector *vectors; /* [n], in the arena, with what they were given when they were kept */
  size_t n;
};

/* Reads a file's bytes (core/model/control_vector.h says which) for a model and keeps its directions under `label`, all or none.
 * ERROR_FORMAT, ERROR_ARGUMENT, ERROR_UNSUPPORTED, ERROR_LIMIT: the file; ERROR_CONFLICT: the label is taken. */
int lab_vectors_keep_file(const struct lab *lab, const struct lab_model_info *model, const void *data, size_t size, const char *label,
                          double strength, struct arena *arena, struct lab_vector_file *out, struct error *error) MUST_CHECK;

/* All vectors of a model with that label; ERROR_NOT_FOUND names the label where there is none. */
int lab_vectors_labelled(const struct lab *lab, const struct lab_model_info *model, const char *label, struct arena *arena,
                         struct store_vector **out, size_t *n, struct error *error) MUST_CHECK;

/* Appends them as a GGUF control vector. ERROR_NOT_FOUND; ERROR_ARGUMENT where such a file cannot say it. */
int lab_vectors_write_file(const struct lab *lab, const struct lab_model_info *model, const char *label, struct arena *arena,
                           struct buffer *to, struct error *error) MUST_CHECK;

#endif
