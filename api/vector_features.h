/* vector_features.h: a kept vector where a feature is asked for: it is named as one (model, source, index), so it answers as one. Private
 * to api/. */
#ifndef STEERD_API_VECTOR_FEATURES_H
#define STEERD_API_VECTOR_FEATURES_H

#include "api/activations.h"
#include "core/vectors.h"

/* A kept vector of a known model: 1, 0 when there is none, -1. */
int vector_find(struct api_call *call, const struct lab_model_info *model, const char *source, int64_t index, struct store_vector *out,
                struct error *error) MUST_CHECK;

/* ERROR_NOT_FOUND for one that there is not; `field` is where the index stood. */
int vector_refuse(const struct lab_model_info *model, const char *source, const char *index, const char *field, struct error *error);

/* The request's path names one. GET /feature/...: its row, with what it promotes where the model is loaded. */
int vector_feature_get(struct api_call *call, struct error *error) MUST_CHECK;

/* Its row as the store alone has it. */
void vector_feature_write(struct json_writer *w, const struct lab_model_info *model, const struct store_vector *vector);

/* POST /api/activation/new: its dot products over texts. `source` and `field`: of the feature that was named. */
int vector_activations_start(struct api_call *call, const struct activations_plan *plan, const char *source, int64_t index,
                             const char *field, struct error *error) MUST_CHECK;

#endif
