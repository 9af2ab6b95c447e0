/* inference.h: what the routes of Neuronpedia's inference server share: rows of fields, the shape of one feature's values. Private to
 * api/inference*.c. */
#ifndef STEERD_API_INFERENCE_H
#define STEERD_API_INFERENCE_H

#include "api/call.h"

#define INFERENCE_MODEL_ROW \
  {"model", "modelId", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."}
#define INFERENCE_PROMPT_ROW \
  {"prompt", "text", FIELD_TEXT, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "The text."}
#define INFERENCE_PROMPTS_ROW                                                        \
  {"prompts", "texts", FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT,        \
   .text = "The texts; each is answered by one of `results`, in their order."}

enum { INFERENCE_RESULTS_MOST = 1000 };

/* The row `layers`: each once, lowest first; none given: all. last: the last one in any case. NULL with an error. (inference_capture.c) */
int64_t *inference_layers(struct api_call *call, const struct lab_model_info *model, bool last, size_t *n, struct error *error) MUST_CHECK;

/* A vector in place of a feature, at the point `hook`: the dot product with its row at every token (inference_capture.c). */
int inference_start_vector(struct api_call *call, const char *texts, bool many, struct error *error) MUST_CHECK;

/* {"activation": {values, maxValue, maxValueIndex, ...}, tokens, tokensIsSpecial}: what /v1/activation/single tells of a text. */
void inference_write_single(struct json_writer *w, const struct lab_feature_values *values, const char *const *tokens,
                            const bool *special, size_t n);

#endif
