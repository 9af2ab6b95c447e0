/* activations.c: text in, features out: POST /activations and the three calls of Neuronpedia it unites.
 *
 *   one feature      the values of one (source, index) at every token   POST /api/activation/new
 *   top by token     the strongest features of one source per token     POST /api/search-topk-by-token
 *   top over text    the strongest features of a set over the text      POST /api/search-all
 * and of a fourth that it leaves alone, because an answer of it may be large:
 *   all              every feature of a source that fires, and where    POST /api/activation/source */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/activations.h"
#include "api/handlers.h"
#include "api/reply.h"
#include "api/vector_features.h"
#include "core/base/clock.h"

#define TEXT_ROW                                                                                        \
  {"text", "customText prompt", FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT,              \
   .text = "One text, or an array of texts; an array is answered by an array."}
#define BOS_ROW(text_) {"ignoreBos", NULL, FIELD_BOOL, .text = text_}
#define BOS_DEFAULT                                                                                    \
  "true leaves the BOS position out, false shows it; left out: shown where the source counts it"
#define DENSITY_ROW                                                                                    \
  {"densityThreshold", NULL, FIELD_NUMBER, .fallback = "-1", .min = -1, .max = 1,                       \
   .text = "Passes over features that are known to fire at a larger share of positions; 0, 1 and -1: none."}

static const struct field feature_rows[] = {
    MODEL_ROW,
    {"layer", "source", FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"; \"7\" is the neurons of layer 7."},
    {"index", NULL, FIELD_INDEX, .required = true, .max = 1e12, .meant = INDEX_MEANT, .text = "The feature's number in its source."},
    {.name = NULL}};

const struct field activation_new_fields[] = {
    {"feature", "neuron", FIELD_OBJECT, .required = true, .inner = feature_rows,
     .example = "{\"layer\": \"7-res-jb\", \"index\": 6770}", .text = "The feature to look at."},
    {"customText", "text prompt", FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT,
     .text = "One text, or an array of texts; an array is answered by an array."},
    BOS_ROW(BOS_DEFAULT ".") , {.name = NULL}};

const struct field activation_source_fields[] = {
    MODEL_ROW,
    {"source", "layer", FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"; \"7\" is the neurons of layer 7."},
    {"customText", "text prompt", FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT,
     .text = "One text, or an array of texts; either is answered by {results: [...]}."},
    BOS_ROW("true leaves the BOS position out, and positions count without it; left out or false: it is shown."),
    {.name = NULL}};

const struct field search_topk_fields[] = {
    MODEL_ROW,
    {"source", "layer", FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"; \"7\" is the neurons of layer 7."},
    TEXT_ROW,
    {"numResults", NULL, FIELD_INT, .fallback = "10", .min = 1, .max = 20, .text = "Features per token at most."},
    {"ignoreBos", NULL, FIELD_BOOL, .fallback = "true", .text = "true leaves out every special token."},
    DENSITY_ROW, {.name = NULL}};

#define SORT_ROW                                                                                       \
  {"sortIndexes", "sortByTokenIndexes", FIELD_INTS, .max = 4096,                                        \
   .text = "Rank by the sum of the values at these positions of `tokens`; [] or left out: by maximum."}
#define LAYERS_ROW                                                                                     \
  {"selectedLayers", "selectedSources", FIELD_NAMES, .max = 1024,                                       \
   .text = "Only these sources of the set; [] or left out: all of them."}

const struct field search_all_fields[] = {
    MODEL_ROW,
    {"sourceSet", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 128, .text = "The set, such as \"res-jb\", or \"neurons\"."},
    TEXT_ROW, LAYERS_ROW, SORT_ROW, BOS_ROW(BOS_DEFAULT "."), DENSITY_ROW,
    {"numResults", NULL, FIELD_INT, .fallback = "50", .min = 1, .max = 100, .text = "Features at most."},
    {.name = NULL}};

const struct field activations_fields[] = {
    MODEL_ROW, TEXT_ROW,
    {"source", "layer", FIELD_SOURCE, .text = "With index: one feature. Alone: the strongest features per token."},
    {"index", NULL, FIELD_INDEX, .max = 1e12, .meant = INDEX_MEANT, .text = "The feature's number in its source."},
    {"sourceSet", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "The strongest features of the set over the text."},
    LAYERS_ROW, SORT_ROW,
    BOS_ROW(BOS_DEFAULT "; with a source alone, true when left out, and then no special token is shown."),
    DENSITY_ROW,
    {"numResults", NULL, FIELD_INT, .min = 1, .max = 100,
     .text = "At most so many features: per token (10 when left out, 20 at most) or over the text (50 when left out)."},
    {.name = NULL}};

static const struct activations_names names = {.model = "modelId", .texts = "text", .set = "sourceSet", .sources = "selectedLayers",
                                               .sort = "sortIndexes"};
static const struct activations_names custom_names = {.model = "modelId", .texts = "customText"};

/* model: the object that names it. */
static struct activations_plan *new_plan(struct api_call *call, const struct activations_names *as, const struct values *model,
                                         struct error *error) {
  struct activations_plan *plan = activations_plan_new(call, as, model, error);
  if (plan && values_has(call->values, "ignoreBos"))
    plan->args.ignore_bos = values_bool(call->values, "ignoreBos") ? LAB_BOS_YES : LAB_BOS_NO;
  return plan;
}

/* ---- one feature -------------------------------------------------------------------------------------- */

static float smallest(const float *values, size_t count) {
  float least = count ? values[0] : 0;
  for (size_t i = 1; i < count; i++)
    if (values[i] < least) least = values[i];
  return least;
}

void activations_write_one(struct json_writer *w, const struct lab_text_activations *text) {
  char now[25];
  clock_iso(now);
  const struct lab_feature_values *feature = &text->features[0];
  char index[24];
  snprintf(index, sizeof index, "%lld", (long long)feature->index);
  jw_open(w, '{');
  reply_texts(w, "tokens", text->tokens, text->n_tokens);
  jw_key(w, "values");
  jw_f32_array(w, feature->values, text->n_tokens);
  jw_member_f32(w, "maxValue", feature->max);
  jw_member_f32(w, "minValue", smallest(feature->values, text->n_tokens));
  jw_member_text(w, "modelId", feature->source->model_id);
  jw_member_text(w, "layer", feature->source->id);
  jw_member_text(w, "index", index);
  jw_member_null(w, "creatorId");
  jw_member_null(w, "dataIndex");
  jw_member_text(w, "dataSource", "steerd");
  jw_member_int(w, "maxValueTokenIndex", feature->max_position);
  if (feature->origins) activations_write_origins(w, feature, text->n_tokens);
  jw_member_text(w, "createdAt", now);
  jw_close(w, '}');
}

static int finish_one(struct api_call *call, struct error *error) {
  (void)error;
  const struct activations_plan *plan = call->plan;
  size_t n_texts;
  const struct lab_text_activations *texts = lab_activations_result(call->job, &n_texts);
  struct json_writer w;
  jw_init(&w, &call->body);
  if (plan->many) jw_open(&w, '[');
  for (size_t i = 0; i < n_texts; i++) activations_write_one(&w, &texts[i]);
  if (plan->many) jw_close(&w, ']');
  return 0;
}

static int start_one(struct api_call *call, struct activations_plan *plan, const struct values *values,
                     const char *source, const char *field, struct error *error) {
  if (lab_holds_vectors(values_text(values, source, NULL)))
    return vector_activations_start(call, plan, values_text(values, source, NULL), values_int(values, "index"), field, error);
  plan->args.form = LAB_ONE_FEATURE;
  plan->args.origins = true;
  plan->args.index = values_int(values, "index");
  if (activations_take_source(call, plan, values_text(values, source, NULL), field, error) != 0) return -1;
  return activations_start(call, plan, finish_one, error);
}

int activation_new_post(struct api_call *call, struct error *error) {
  const struct values *feature = values_at(call->values, "feature", 0);
  struct activations_plan *plan = new_plan(call, &custom_names, feature, error);
  return plan ? start_one(call, plan, feature, "layer", "feature.layer", error) : -1;
}

/* ---- top by token ------------------------------------------------------------------------------------- */

static void write_token(struct json_writer *w, struct api_call *call, const struct lab_text_activations *text, size_t i,
                        const struct activations_labels *labels, const struct lab_source_info *source) {
  jw_open(w, '{');
  jw_member_int(w, "position", text->position_offset + (int64_t)i);
  jw_member_text(w, "token", text->tokens[i]);
  jw_member_bool(w, "isSpecial", text->special[i]);
  activations_write_top(w, call, text, i, labels, source);
  jw_close(w, '}');
}

static int write_by_token(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text,
                          struct error *error) {
  const struct activations_plan *plan = call->plan;
  struct activations_labels labels = {0};
  if (!plan->many && activations_labels(call, text, plan->source, &labels, error) != 0) return -1;
  jw_open(w, '{');
  jw_member_text(w, "source", plan->source->id);
  jw_key(w, "results");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_tokens; i++)
    if (!(plan->hide_special && text->special[i])) write_token(w, call, text, i, &labels, plan->source);
  jw_close(w, ']');
  jw_close(w, '}');
  return 0;
}

static int finish_by_token(struct api_call *call, struct error *error) {
  return activations_finish(call, write_by_token, error);
}

static int start_by_token(struct api_call *call, struct activations_plan *plan, int n_results, struct error *error) {
  plan->args.form = LAB_TOP_BY_TOKEN;
  plan->args.n_results = n_results;
  plan->hide_special = !values_has(call->values, "ignoreBos") || values_bool(call->values, "ignoreBos");
  plan->args.ignore_bos = plan->hide_special ? LAB_BOS_YES : LAB_BOS_NO;
  if (activations_take_source(call, plan, values_text(call->values, "source", NULL), "source", error) != 0) return -1;
  return activations_start(call, plan, finish_by_token, error);
}

int search_topk_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, &names, call->values, error);
  if (!plan) return -1;
  plan->args.most_density = values_number(call->values, "densityThreshold");
  return start_by_token(call, plan, (int)values_int(call->values, "numResults"), error);
}

/* ---- top over the text -------------------------------------------------------------------------------- */

static int write_over_text(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text,
                           struct error *error) {
  const struct activations_plan *plan = call->plan;
  struct activations_labels labels = {0};
  if (!plan->many && activations_labels(call, text, NULL, &labels, error) != 0) return -1;
  bool sorted = plan->args.n_sort_positions > 0;
  jw_open(w, '{');
  reply_texts(w, "tokens", text->tokens, text->n_tokens);
  jw_key(w, "result");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_features; i++) {
    const struct lab_feature_values *feature = &text->features[i];
    if (!((sorted ? feature->sum : feature->max) > 0)) continue;
    char index[24];
    snprintf(index, sizeof index, "%lld", (long long)feature->index);
    jw_open(w, '{');
    jw_member_text(w, "modelId", feature->source->model_id);
    jw_member_text(w, "layer", feature->source->id);
    jw_member_text(w, "index", index);
    jw_key(w, "values");
    jw_f32_array(w, feature->values, text->n_tokens);
    jw_member_f32(w, "maxValue", feature->max);
    jw_member_int(w, "maxValueIndex", feature->max_position);
    if (feature->origins) activations_write_origins(w, feature, text->n_tokens);
    activations_write_label(w, "neuron", call, &labels, feature->source, feature->index);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_key(w, "sortIndexes");
  jw_open(w, '[');
  for (size_t i = 0; i < plan->args.n_sort_positions; i++) jw_int(w, plan->args.sort_positions[i]);
  jw_close(w, ']');
  jw_close(w, '}');
  return 0;
}

static int finish_over_text(struct api_call *call, struct error *error) {
  return activations_finish(call, write_over_text, error);
}

static int start_over_text(struct api_call *call, struct activations_plan *plan, int n_results, struct error *error) {
  plan->args.form = LAB_TOP_OVER_TEXT;
  plan->args.origins = true;
  plan->args.n_results = n_results;
  if (activations_take_set(call, plan, &names, error) != 0) return -1;
  return activations_start(call, plan, finish_over_text, error);
}

int search_all_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, &names, call->values, error);
  if (!plan) return -1;
  plan->args.most_density = values_number(call->values, "densityThreshold");
  return start_over_text(call, plan, (int)values_int(call->values, "numResults"), error);
}

/* ---- all that fire ------------------------------------------------------------------------------------ */

static int finish_all(struct api_call *call, struct error *error) {
  struct activations_plan *plan = call->plan;
  plan->many = true; /* one text too is answered by {results: [...]} */
  return activations_finish(call, activations_write_firing, error);
}

int activation_source_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, &custom_names, call->values, error);
  if (!plan) return -1;
  plan->args.form = LAB_ALL_BY_TOKEN;
  if (plan->args.ignore_bos == LAB_BOS_DEFAULT) plan->args.ignore_bos = LAB_BOS_NO; /* positions are upstream's */
  if (activations_take_source(call, plan, values_text(call->values, "source", NULL), "source", error) != 0) return -1;
  return activations_start(call, plan, finish_all, error);
}

/* ---- POST /activations: which of the three is meant ---------------------------------------------------- */

/* The fields that decide must not contradict each other. */
static int check_form(const struct values *values, struct error *error) {
  bool source = values_has(values, "source"), set = values_has(values, "sourceSet");
  if (source && set)
    return error_set_field(error, ERROR_ARGUMENT, "sourceSet",
                           "'source' and 'sourceSet' exclude each other: give one of them");
  if (!source && !set)
    return error_set_field(error, ERROR_ARGUMENT, "source",
                           "'source' (with or without 'index') or 'sourceSet' is required");
  if (set && values_has(values, "index"))
    return error_set_field(error, ERROR_ARGUMENT, "index", "'index' needs 'source', found 'sourceSet'");
  if (source && !values_has(values, "index") && values_int(values, "numResults") > 20)
    return error_set_field(error, ERROR_ARGUMENT, "numResults",
                           "'numResults' must be an integer from 1 to 20 with a source alone, found %d",
                           (int)values_int(values, "numResults"));
  return 0;
}

int activations_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  if (check_form(values, error) != 0) return -1;
  struct activations_plan *plan = new_plan(call, &names, values, error);
  if (!plan) return -1;
  plan->args.most_density = values_number(values, "densityThreshold");
  int n_results = (int)values_int(values, "numResults");
  if (values_has(values, "sourceSet")) return start_over_text(call, plan, n_results ? n_results : 50, error);
  if (values_has(values, "index")) return start_one(call, plan, values, "source", "source", error);
  return start_by_token(call, plan, n_results ? n_results : 10, error);
}
