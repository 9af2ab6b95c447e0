/* activations.h: what requests for activations share, whoever's habit they follow: texts, sources, the shapes of answers.
 * Private to api/. */
#ifndef STEERD_API_ACTIVATIONS_H
#define STEERD_API_ACTIVATIONS_H

#include "api/call.h"

struct activations_plan {
  struct lab_activations_args args;
  const struct lab_source_info *source; /* the one that was taken; NULL: a set was */
  bool many;         /* the texts came as an array, so the answer is one */
  bool hide_special; /* special tokens get no row */
  bool snake;        /* names of the reply are in snake_case */
};

/* What a route calls its fields. */
struct activations_names {
  const char *model, *texts;
  const char *set, *sources, *sort; /* of the strongest features over a text; else NULL */
};

/* A plan with model and texts; it becomes the call's. */
struct activations_plan *activations_plan_new(struct api_call *call, const struct activations_names *names, const struct values *model,
                                              struct error *error) MUST_CHECK;

/* One source. field: what it is called in errors. */
int activations_take_source(struct api_call *call, struct activations_plan *plan, const char *source, const char *field,
                            struct error *error) MUST_CHECK;

/* The chosen sources of a set and what to rank by. */
int activations_take_set(struct api_call *call, struct activations_plan *plan, const struct activations_names *names,
                         struct error *error) MUST_CHECK;

int activations_start(struct api_call *call, const struct activations_plan *plan,
                      int (*finish)(struct api_call *call, struct error *error), struct error *error) MUST_CHECK;

/* The whole reply: one text is answered by what `write` writes of it, an array of texts by {results: [...]}. */
typedef int activations_write(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text,
                              struct error *error);
int activations_finish(struct api_call *call, activations_write *write, struct error *error) MUST_CHECK;

/* What the store knows of the features of a text: of each once, by their places. */
struct activations_labels {
  const struct store_feature_at *at; /* [n], by source and index */
  const struct store_feature_label *labels;
  size_t n;
};

/* Those of a text's strongest features, over it or at its tokens; `source`: of the latter. Nothing without a store. */
int activations_labels(struct api_call *call, const struct lab_text_activations *text, const struct lab_source_info *source,
                       struct activations_labels *out, struct error *error) MUST_CHECK;

/* The label of a feature as the member `key`; no member where nothing is known of it. */
void activations_write_label(struct json_writer *w, const char *key, struct api_call *call, const struct activations_labels *labels,
                             const struct lab_source_info *source, int64_t index);

/* "dfaValues", "dfaTargetIndex" and "dfaMaxValue" of a feature that reads what heads bring together. */
void activations_write_origins(struct json_writer *w, const struct lab_feature_values *values, size_t n);

/* The whole of one feature over a text, as /api/activation/new tells it. */
void activations_write_one(struct json_writer *w, const struct lab_text_activations *text);

/* "topFeatures" of the token at `i`. labels: NULL, or what is told beside them as "feature", of `source`. */
void activations_write_top(struct json_writer *w, struct api_call *call, const struct lab_text_activations *text, size_t i,
                           const struct activations_labels *labels, const struct lab_source_info *source);

/* {tokens, activeFeatures: {"feature": [[position, value], ...], ...}} of LAB_ALL_BY_TOKEN. */
activations_write activations_write_firing;

#endif
