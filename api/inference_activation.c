/* inference_activation.c: features over texts in the shapes of Neuronpedia's inference server: POST /v1/activation/single, all,
 * topk-by-token and source, each for one text or for several. What is computed is what /activations computes; what differs is how
 * BOS is shown, that features which do not fire fill a list up to the number asked for, and the names. */
#include <stdio.h>

#include "api/activations.h"
#include "api/handlers.h"
#include "api/inference.h"
#include "api/reply.h"

/* ---- rows --------------------------------------------------------------------------------------------- */

#define SINGLE_ROWS                                                                                                          \
  INFERENCE_MODEL_ROW,                                                                                                       \
  {"source", "layer", FIELD_SOURCE, .text = "With index: a feature of this source."},                                        \
  {"index", NULL, FIELD_INDEX, .max = 1e12, .text = "The feature's number in its source."},                                  \
  {"vector", NULL, FIELD_NUMBERS, .min = 1, .max = 1e6, .text = "With hook, in place of a feature: values are dot products."}, \
  {"hook", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "The vector's point, such as \"blocks.0.hook_resid_post\"."},     \
  {"prependBos", NULL, FIELD_BOOL,                                                                                           \
   .text = "With a vector, whether BOS stands in front; left out: as the model wants it (/v1/tokenize tells)."}

const struct field inference_single_fields[] = {INFERENCE_PROMPT_ROW, SINGLE_ROWS, {.name = NULL}};
const struct field inference_single_batch_fields[] = {INFERENCE_PROMPTS_ROW, SINGLE_ROWS, {.name = NULL}};

#define ALL_ROWS                                                                                                             \
  INFERENCE_MODEL_ROW,                                                                                                       \
  {"sourceSet", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 128, .text = "The set, such as \"res-jb\", or \"neurons\"."},             \
  {"selectedSources", "selectedLayers", FIELD_NAMES, .max = 1024,                                                            \
   .text = "Only these sources of the set; [] or left out: all of them."},                                                   \
  {"sortByTokenIndexes", "sortIndexes", FIELD_INTS, .max = 4096,                                                             \
   .text = "Rank by the sum of the values at these positions of `tokens`, where BOS is 0; [] or left out: by maximum."},     \
  {"ignoreBos", NULL, FIELD_BOOL, .fallback = "true", .text = "true puts the value at BOS to 0 before features are ranked."},  \
  {"numResults", NULL, FIELD_INT, .fallback = "25", .min = 1, .max = 1e9,                                                    \
   .text = "Features to give, those that do not fire last; never more than 1000."}

const struct field inference_all_fields[] = {INFERENCE_PROMPT_ROW, ALL_ROWS, {.name = NULL}};
const struct field inference_all_batch_fields[] = {INFERENCE_PROMPTS_ROW, ALL_ROWS, {.name = NULL}};

#define TOPK_ROWS                                                                                                            \
  INFERENCE_MODEL_ROW, SOURCE_ROW("source", "layer"),                                                                        \
  {"topK", NULL, FIELD_INT, .fallback = "5", .min = 1, .max = 1e9,                                                           \
   .text = "Features at each token, those that do not fire last; never more than the source has."},                          \
  {"ignoreBos", NULL, FIELD_BOOL, .fallback = "true", .text = "true leaves the BOS position out."}

const struct field inference_topk_fields[] = {INFERENCE_PROMPT_ROW, TOPK_ROWS, {.name = NULL}};
const struct field inference_topk_batch_fields[] = {INFERENCE_PROMPTS_ROW, TOPK_ROWS, {.name = NULL}};

const struct field inference_source_fields[] = {INFERENCE_PROMPTS_ROW, INFERENCE_MODEL_ROW, SOURCE_ROW("source", "layer"), {.name = NULL}};

static const struct activations_names one = {.model = "model", .texts = "prompt", .set = "sourceSet", .sources = "selectedSources",
                                             .sort = "sortByTokenIndexes"};
static const struct activations_names several = {.model = "model", .texts = "prompts", .set = "sourceSet",
                                                 .sources = "selectedSources", .sort = "sortByTokenIndexes"};

/* One text is answered by its object; `prompts` by {results: [...]}, also where it holds one, or is one. */
static struct activations_plan *new_plan(struct api_call *call, const struct activations_names *names, struct error *error) {
  struct activations_plan *plan = activations_plan_new(call, names, call->values, error);
  if (!plan) return NULL;
  plan->many = names == &several;
  plan->snake = call_speaks_snake(call);
  return plan;
}

/* ---- one feature -------------------------------------------------------------------------------------- */

static void write_values(struct json_writer *w, const struct lab_feature_values *values, size_t n) {
  jw_key(w, "values");
  jw_f32_array(w, values->values, n);
  jw_member_f32(w, "maxValue", values->max);
  jw_member_int(w, "maxValueIndex", values->max_position);
  if (values->origins) {
    activations_write_origins(w, values, n);
    return;
  }
  jw_member_null(w, "dfaValues");
  jw_member_null(w, "dfaTargetIndex");
  jw_member_null(w, "dfaMaxValue");
}

void inference_write_single(struct json_writer *w, const struct lab_feature_values *values, const char *const *tokens,
                            const bool *special, size_t n) {
  jw_open(w, '{');
  jw_key(w, "activation");
  jw_open(w, '{');
  write_values(w, values, n);
  jw_close(w, '}');
  reply_texts(w, "tokens", tokens, n);
  reply_flags(w, "tokensIsSpecial", special, n);
  jw_close(w, '}');
}

static int write_single(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text, struct error *error) {
  (void)call;
  (void)error;
  inference_write_single(w, &text->features[0], text->tokens, text->special, text->n_tokens);
  return 0;
}

static int finish_single(struct api_call *call, struct error *error) { return activations_finish(call, write_single, error); }

/* Exactly one of the two pairs, and both of it. */
static int check_pair(const struct values *values, bool *feature, struct error *error) {
  bool source = values_has(values, "source"), index = values_has(values, "index");
  bool vector = values_has(values, "vector"), hook = values_has(values, "hook");
  *feature = source || index;
  if (*feature == (vector || hook))
    return error_set_field(error, ERROR_ARGUMENT, *feature ? "vector" : "source",
                           "exactly one of a feature ('source' with 'index') and a vector ('vector' with 'hook') is to be given, "
                           "found %s", *feature ? "both" : "neither");
  if (*feature ? source && index : vector && hook) return 0;
  const char *missing = *feature ? (source ? "index" : "source") : vector ? "hook" : "vector";
  const char *beside = *feature ? (source ? "source" : "index") : vector ? "vector" : "hook";
  return error_set_field(error, ERROR_ARGUMENT, missing, "'%s' is required beside '%s'", missing, beside);
}

static int start_single(struct api_call *call, const struct activations_names *names, struct error *error) {
  const struct values *values = call->values;
  bool feature;
  if (check_pair(values, &feature, error) != 0) return -1;
  if (!feature) return inference_start_vector(call, names->texts, names == &several, error);
  struct activations_plan *plan = new_plan(call, names, error);
  if (!plan || activations_take_source(call, plan, values_text(values, "source", NULL), "source", error) != 0) return -1;
  plan->args.form = LAB_ONE_FEATURE;
  plan->args.index = values_int(values, "index");
  plan->args.ignore_bos = LAB_BOS_YES;
  plan->args.origins = true;
  return activations_start(call, plan, finish_single, error);
}

int inference_single_post(struct api_call *call, struct error *error) { return start_single(call, &one, error); }
int inference_single_batch_post(struct api_call *call, struct error *error) { return start_single(call, &several, error); }

/* ---- the strongest over a text ------------------------------------------------------------------------ */

static int write_all(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text, struct error *error) {
  (void)call;
  (void)error;
  jw_open(w, '{');
  jw_key(w, "activations");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_features; i++) {
    const struct lab_feature_values *values = &text->features[i];
    jw_open(w, '{');
    jw_member_text(w, "source", values->source->id);
    jw_member_int(w, "index", values->index);
    jw_member_f32(w, "sumValues", values->sum);
    write_values(w, values, text->n_tokens);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  reply_texts(w, "tokens", text->tokens, text->n_tokens);
  jw_member_null(w, "counts");
  jw_close(w, '}');
  return 0;
}

static int finish_all(struct api_call *call, struct error *error) { return activations_finish(call, write_all, error); }

static int start_all(struct api_call *call, const struct activations_names *names, struct error *error) {
  const struct values *values = call->values;
  struct activations_plan *plan = new_plan(call, names, error);
  if (!plan || activations_take_set(call, plan, names, error) != 0) return -1;
  int64_t wanted = values_int(values, "numResults");
  plan->args.form = LAB_TOP_OVER_TEXT;
  plan->args.n_results = (int)(wanted < INFERENCE_RESULTS_MOST ? wanted : INFERENCE_RESULTS_MOST);
  plan->args.ignore_bos = LAB_BOS_NO;
  plan->args.bos_values = values_bool(values, "ignoreBos") ? LAB_BOS_NO : LAB_BOS_YES;
  plan->args.silent = true;
  plan->args.origins = true;
  return activations_start(call, plan, finish_all, error);
}

int inference_all_post(struct api_call *call, struct error *error) { return start_all(call, &one, error); }
int inference_all_batch_post(struct api_call *call, struct error *error) { return start_all(call, &several, error); }

/* ---- the strongest at each token ---------------------------------------------------------------------- */

static void write_token(struct json_writer *w, struct api_call *call, const struct lab_text_activations *text, size_t i) {
  jw_open(w, '{');
  jw_member_int(w, "tokenPosition", text->position_offset + (int64_t)i);
  jw_member_text(w, "token", text->tokens[i]);
  jw_member_bool(w, "isSpecial", text->special[i]);
  activations_write_top(w, call, text, i, NULL, NULL);
  jw_close(w, '}');
}

static int write_topk(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text, struct error *error) {
  (void)error;
  jw_open(w, '{');
  jw_key(w, "results");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_tokens; i++) write_token(w, call, text, i);
  jw_close(w, ']');
  reply_texts(w, "tokens", text->tokens, text->n_tokens);
  jw_close(w, '}');
  return 0;
}

static int finish_topk(struct api_call *call, struct error *error) { return activations_finish(call, write_topk, error); }

static int start_topk(struct api_call *call, const struct activations_names *names, struct error *error) {
  const struct values *values = call->values;
  struct activations_plan *plan = new_plan(call, names, error);
  if (!plan || activations_take_source(call, plan, values_text(values, "source", NULL), "source", error) != 0) return -1;
  int64_t wanted = values_int(values, "topK");
  bool ignore = values_bool(values, "ignoreBos");
  plan->args.form = LAB_TOP_BY_TOKEN;
  plan->args.n_results = (int)(wanted < plan->source->n_feat ? wanted : plan->source->n_feat);
  plan->args.count_field = "topK";
  plan->args.ignore_bos = ignore ? LAB_BOS_YES : LAB_BOS_NO;
  plan->args.bos_values = LAB_BOS_YES;
  plan->args.silent = true;
  return activations_start(call, plan, finish_topk, error);
}

int inference_topk_post(struct api_call *call, struct error *error) { return start_topk(call, &one, error); }
int inference_topk_batch_post(struct api_call *call, struct error *error) { return start_topk(call, &several, error); }

/* ---- all that fire ------------------------------------------------------------------------------------ */

static int finish_source(struct api_call *call, struct error *error) {
  return activations_finish(call, activations_write_firing, error);
}

int inference_source_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, &several, error);
  if (!plan || activations_take_source(call, plan, values_text(call->values, "source", NULL), "source", error) != 0) return -1;
  plan->args.form = LAB_ALL_BY_TOKEN;
  plan->args.ignore_bos = LAB_BOS_NO;
  plan->args.bos_values = LAB_BOS_NO; /* a place of its own in `tokens`, and nothing that fires there */
  return activations_start(call, plan, finish_source, error);
}
