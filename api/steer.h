/* steer.h: what steering requests share, whoever's habit they follow: features, method, the shape of log-probabilities. */
#ifndef STEERD_API_STEER_H
#define STEERD_API_STEER_H

#include "api/call.h"

/* Rows of one feature; `name` is what its source is called. */
#define STEER_FEATURE_ROWS(name_, alias_)                                                                                          \
  {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "If given, it must be the model of the request."},                  \
  {name_, alias_, FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"."},                                      \
  {"index", NULL, FIELD_INDEX, .required = true, .max = 1e12, .text = "The feature's number in its source."},                        \
  {"strength", NULL, FIELD_NUMBER, .required = true, .min = -1e6, .max = 1e6,                                                        \
   .text = "Times strength_multiplier, the length of what is added (or the factor or cap of the method)."}
extern const struct field steer_feature_rows[]; /* with "layer" */

#define STEER_METHOD_ROW(name_, alias_)                                      \
  {name_, alias_, FIELD_CHOICE, .fallback = "SIMPLE_ADDITIVE",               \
   .choices = "SIMPLE_ADDITIVE ORTHOGONAL_DECOMP PROJECTION_CAP",            \
   .text = "How features and vectors change the activations."}

/* How a text is drawn and how strongly it is steered. */
#define STEER_SAMPLING_ROWS                                                                                         \
  {"temperature", NULL, FIELD_NUMBER, .fallback = "0.5", .max = 2, .text = "0 always takes the likeliest token."},  \
  {"n_tokens", "nCompletionTokens", FIELD_INT, .fallback = "32", .min = 1, .cap = CAP_NEW_TOKENS,                   \
   .text = "Most tokens to generate."},                                                                             \
  {"freq_penalty", "frequency_penalty", FIELD_NUMBER, .fallback = "0", .min = -2, .max = 2,                         \
   .text = "Taken from a token's logit once for each time it was generated before."},                               \
  {"seed", NULL, FIELD_NUMBER, .fallback = "42", .min = -1e8, .max = 1e8,                                           \
   .text = "Same request, same seed, same text; a fraction is cut off."},                                           \
  {"strength_multiplier", NULL, FIELD_NUMBER, .fallback = "1", .max = 10, .text = "Multiplies every strength."}

enum lab_steer_method steer_method(const char *word);

/* The features of `values`, in the call's arena; each may name its model, which must be the request's. prefix: in front of
 * fields in errors, "" or "steering."; source: the name of its row. */
int steer_features(struct api_call *call, const struct values *values, const struct lab_model_info *model, const char *prefix,
                   const char *source, const struct lab_steer_feature **out, size_t *n, struct error *error) MUST_CHECK;

#endif
