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

#include "api/handlers.h"
#include "api/reply.h"
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
    {"layer", "source", FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"."},
    {"index", NULL, FIELD_INDEX, .required = true, .max = 1e12, .text = "The feature's number in its source."},
    {.name = NULL}};

const struct field activation_new_fields[] = {
    {"feature", "neuron", FIELD_OBJECT, .required = true, .inner = feature_rows,
     .example = "{\"layer\": \"7-res-jb\", \"index\": 6770}", .text = "The feature to look at."},
    {"customText", "text prompt", FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT,
     .text = "One text, or an array of texts; an array is answered by an array."},
    BOS_ROW(BOS_DEFAULT ".") , {.name = NULL}};

const struct field activation_source_fields[] = {
    MODEL_ROW,
    {"source", "layer", FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"."},
    {"customText", "text prompt", FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT,
     .text = "One text, or an array of texts; either is answered by {results: [...]}."},
    BOS_ROW("true leaves the BOS position out, and positions count without it; left out or false: it is shown."),
    {.name = NULL}};

const struct field search_topk_fields[] = {
    MODEL_ROW,
    {"source", "layer", FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"."},
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
    {"sourceSet", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 128, .text = "The set, such as \"res-jb\"."},
    TEXT_ROW, LAYERS_ROW, SORT_ROW, BOS_ROW(BOS_DEFAULT "."), DENSITY_ROW,
    {"numResults", NULL, FIELD_INT, .fallback = "50", .min = 1, .max = 100, .text = "Features at most."},
    {.name = NULL}};

const struct field activations_fields[] = {
    MODEL_ROW, TEXT_ROW,
    {"source", "layer", FIELD_SOURCE, .text = "With index: one feature. Alone: the strongest features per token."},
    {"index", NULL, FIELD_INDEX, .max = 1e12, .text = "The feature's number in its source."},
    {"sourceSet", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "The strongest features of the set over the text."},
    LAYERS_ROW, SORT_ROW,
    BOS_ROW(BOS_DEFAULT "; with a source alone, true when left out, and then no special token is shown."),
    DENSITY_ROW,
    {"numResults", NULL, FIELD_INT, .min = 1, .max = 100,
     .text = "At most so many features: per token (10 when left out, 20 at most) or over the text (50 when left out)."},
    {.name = NULL}};

struct activations_plan {
  struct lab_activations_args args;
  bool many;         /* the texts came as an array, so the answer is one */
  bool hide_special; /* special tokens get no row */
};

/* ---- in ----------------------------------------------------------------------------------------------- */

static struct activations_plan *new_plan(struct api_call *call, const char *texts_field, struct error *error) {
  const struct values *values = call->values;
  struct activations_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan) return NULL;
  plan->many = values_is_list(values, texts_field);
  plan->args.n_texts = values_count(values, texts_field);
  struct lab_text *texts = arena_array(&call->arena, plan->args.n_texts, sizeof *texts, error);
  if (!texts) return NULL;
  for (size_t i = 0; i < plan->args.n_texts; i++)
    texts[i].text = values_text_at(values, texts_field, i, &texts[i].length);
  plan->args.texts = texts;
  plan->args.ignore_bos = LAB_BOS_DEFAULT;
  if (values_has(values, "ignoreBos"))
    plan->args.ignore_bos = values_bool(values, "ignoreBos") ? LAB_BOS_YES : LAB_BOS_NO;
  call->plan = plan;
  return plan;
}

static int set_source(struct api_call *call, struct activations_plan *plan, const char *source, const char *field,
                      struct error *error) {
  if (call_check_source(source, field, error) != 0) return -1;
  const char **ids = arena_array(&call->arena, 1, sizeof *ids, error);
  if (!ids) return -1;
  ids[0] = source;
  plan->args.source_ids = ids;
  plan->args.n_sources = 1;
  return 0;
}

static int start(struct api_call *call, const struct activations_plan *plan,
                 int (*finish)(struct api_call *, struct error *), struct error *error) {
  call->finish = finish;
  return lab_activations(call->api->lab, &plan->args, call->waker, &call->job, error);
}

static int read_sort_positions(struct api_call *call, struct activations_plan *plan, struct error *error) {
  size_t count = values_count(call->values, "sortIndexes");
  int64_t *positions = arena_array(&call->arena, count, sizeof *positions, error);
  if (!positions) return -1;
  for (size_t i = 0; i < count; i++) positions[i] = values_int_at(call->values, "sortIndexes", i);
  plan->args.sort_positions = positions;
  plan->args.n_sort_positions = count;
  return 0;
}

static bool selected(const struct values *values, const char *id) {
  size_t count = values_count(values, "selectedLayers");
  for (size_t i = 0; i < count; i++)
    if (strcmp(values_text_at(values, "selectedLayers", i, NULL), id) == 0) return true;
  return count == 0;
}

/* The sources of a model as they are during one request. */
struct sources {
  const struct lab_source_info *const *items;
  size_t n;
};

static bool set_has(const struct sources *sources, const char *set, const char *id) {
  for (size_t i = 0; i < sources->n; i++)
    if (strcmp(sources->items[i]->set, set) == 0 && strcmp(sources->items[i]->id, id) == 0) return true;
  return false;
}

/* Every source that the client chose must be in the set. */
static int check_selected(const struct values *values, const struct lab_model_info *model, const struct sources *sources,
                          const char *set, struct error *error) {
  for (size_t i = 0; i < values_count(values, "selectedLayers"); i++) {
    const char *id = values_text_at(values, "selectedLayers", i, NULL);
    if (set_has(sources, set, id)) continue;
    char field[64];
    snprintf(field, sizeof field, "selectedLayers[%zu]", i);
    return error_set_field(error, ERROR_NOT_FOUND, field,
                           "'%s': the set '%.64s' of model '%.64s' has no source '%.64s'", field, set, model->id, id);
  }
  return 0;
}

static int refuse_set(const struct lab_model_info *model, const struct sources *sources, const char *set,
                      struct error *error) {
  char sets[256] = "";
  for (size_t i = 0; i < sources->n; i++) {
    const char *name = sources->items[i]->set;
    size_t k = 0, used = strlen(sets);
    while (strcmp(sources->items[k]->set, name) != 0) k++;
    if (k == i) snprintf(sets + used, sizeof sets - used, "%s'%s'", used ? ", " : "", name);
  }
  return error_set_field(error, ERROR_NOT_FOUND, "sourceSet", "model '%.64s' has no source set '%.64s'; it has %s",
                         model->id, set, sets[0] ? sets : "none");
}

static int by_layer(const void *a, const void *b) {
  const struct lab_source_info *x = *(const struct lab_source_info *const *)a;
  const struct lab_source_info *y = *(const struct lab_source_info *const *)b;
  if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
  return strcmp(x->id, y->id);
}

/* The chosen sources of the set, lowest layer first: among equals the earlier source ranks first. */
static int set_sources(struct api_call *call, struct activations_plan *plan, struct error *error) {
  const struct lab_model_info *model = plan->args.model;
  const char *set = values_text(call->values, "sourceSet", NULL);
  struct sources sources;
  sources.n = lab_sources(call->api->lab, model, &sources.items);
  const struct lab_source_info **found = arena_array(&call->arena, sources.n, sizeof *found, error);
  const char **ids = arena_array(&call->arena, sources.n, sizeof *ids, error);
  size_t count = 0;
  if (!found || !ids) return -1;
  for (size_t i = 0; i < sources.n; i++)
    if (strcmp(sources.items[i]->set, set) == 0 && selected(call->values, sources.items[i]->id))
      found[count++] = sources.items[i];
  if (check_selected(call->values, model, &sources, set, error) != 0) return -1;
  if (count == 0) return refuse_set(model, &sources, set, error);
  qsort(found, count, sizeof *found, by_layer);
  for (size_t i = 0; i < count; i++) ids[i] = found[i]->id;
  plan->args.source_ids = ids;
  plan->args.n_sources = count;
  return 0;
}

/* ---- one feature -------------------------------------------------------------------------------------- */

static float smallest(const float *values, size_t count) {
  float least = count ? values[0] : 0;
  for (size_t i = 1; i < count; i++)
    if (values[i] < least) least = values[i];
  return least;
}

static void write_one(struct json_writer *w, const struct lab_text_activations *text, const char *now) {
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
  jw_member_text(w, "createdAt", now);
  jw_close(w, '}');
}

static int finish_one(struct api_call *call, struct error *error) {
  (void)error;
  const struct activations_plan *plan = call->plan;
  size_t n_texts;
  const struct lab_text_activations *texts = lab_activations_result(call->job, &n_texts);
  struct json_writer w;
  char now[25];
  clock_iso(now);
  jw_init(&w, &call->body);
  if (plan->many) jw_open(&w, '[');
  for (size_t i = 0; i < n_texts; i++) write_one(&w, &texts[i], now);
  if (plan->many) jw_close(&w, ']');
  return 0;
}

static int start_one(struct api_call *call, struct activations_plan *plan, const struct values *values,
                     const char *source, const char *field, struct error *error) {
  plan->args.form = LAB_ONE_FEATURE;
  plan->args.index = values_int(values, "index");
  if (set_source(call, plan, values_text(values, source, NULL), field, error) != 0) return -1;
  return start(call, plan, finish_one, error);
}

int activation_new_post(struct api_call *call, struct error *error) {
  const struct values *feature = values_at(call->values, "feature", 0);
  struct activations_plan *plan = new_plan(call, "customText", error);
  if (!plan) return -1;
  plan->args.model = call_model(call, feature, "modelId", error);
  if (!plan->args.model) return -1;
  return start_one(call, plan, feature, "layer", "feature.layer", error);
}

/* ---- top by token ------------------------------------------------------------------------------------- */

static void write_token(struct json_writer *w, const struct lab_text_activations *text, size_t i) {
  jw_open(w, '{');
  jw_member_int(w, "position", text->position_offset + (int64_t)i);
  jw_member_text(w, "token", text->tokens[i]);
  jw_member_bool(w, "isSpecial", text->special[i]);
  jw_key(w, "topFeatures");
  jw_open(w, '[');
  for (int k = 0; k < text->n_top[i]; k++) {
    jw_open(w, '{');
    jw_member_f32(w, "activationValue", text->top[i][k].value);
    jw_member_int(w, "featureIndex", text->top[i][k].index);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

static void write_by_token(struct json_writer *w, const struct activations_plan *plan,
                           const struct lab_text_activations *text) {
  jw_open(w, '{');
  jw_member_text(w, "source", plan->args.source_ids[0]);
  jw_key(w, "results");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_tokens; i++)
    if (!(plan->hide_special && text->special[i])) write_token(w, text, i);
  jw_close(w, ']');
  jw_close(w, '}');
}

/* One text is answered by its object, an array by {results: [...]}. */
static int finish_wrapped(struct api_call *call,
                          void (*write)(struct json_writer *, const struct activations_plan *,
                                        const struct lab_text_activations *)) {
  const struct activations_plan *plan = call->plan;
  size_t n_texts;
  const struct lab_text_activations *texts = lab_activations_result(call->job, &n_texts);
  struct json_writer w;
  jw_init(&w, &call->body);
  if (plan->many) {
    jw_open(&w, '{');
    jw_key(&w, "results");
    jw_open(&w, '[');
  }
  for (size_t i = 0; i < n_texts; i++) write(&w, plan, &texts[i]);
  if (plan->many) {
    jw_close(&w, ']');
    jw_close(&w, '}');
  }
  return 0;
}

static int finish_by_token(struct api_call *call, struct error *error) {
  (void)error;
  return finish_wrapped(call, write_by_token);
}

static int start_by_token(struct api_call *call, struct activations_plan *plan, int n_results, struct error *error) {
  plan->args.form = LAB_TOP_BY_TOKEN;
  plan->args.n_results = n_results;
  plan->hide_special = !values_has(call->values, "ignoreBos") || values_bool(call->values, "ignoreBos");
  plan->args.ignore_bos = plan->hide_special ? LAB_BOS_YES : LAB_BOS_NO;
  if (set_source(call, plan, values_text(call->values, "source", NULL), "source", error) != 0) return -1;
  return start(call, plan, finish_by_token, error);
}

int search_topk_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, "text", error);
  if (!plan) return -1;
  plan->args.model = call_model(call, call->values, "modelId", error);
  if (!plan->args.model) return -1;
  plan->args.most_density = values_number(call->values, "densityThreshold");
  return start_by_token(call, plan, (int)values_int(call->values, "numResults"), error);
}

/* ---- top over the text -------------------------------------------------------------------------------- */

static void write_over_text(struct json_writer *w, const struct activations_plan *plan,
                            const struct lab_text_activations *text) {
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
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_key(w, "sortIndexes");
  jw_open(w, '[');
  for (size_t i = 0; i < plan->args.n_sort_positions; i++) jw_int(w, plan->args.sort_positions[i]);
  jw_close(w, ']');
  jw_close(w, '}');
}

static int finish_over_text(struct api_call *call, struct error *error) {
  (void)error;
  return finish_wrapped(call, write_over_text);
}

static int start_over_text(struct api_call *call, struct activations_plan *plan, int n_results, struct error *error) {
  plan->args.form = LAB_TOP_OVER_TEXT;
  plan->args.n_results = n_results;
  if (read_sort_positions(call, plan, error) != 0 || set_sources(call, plan, error) != 0) return -1;
  return start(call, plan, finish_over_text, error);
}

int search_all_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, "text", error);
  if (!plan) return -1;
  plan->args.model = call_model(call, call->values, "modelId", error);
  if (!plan->args.model) return -1;
  plan->args.most_density = values_number(call->values, "densityThreshold");
  return start_over_text(call, plan, (int)values_int(call->values, "numResults"), error);
}

/* ---- all that fire ------------------------------------------------------------------------------------ */

struct firing {
  int64_t feature, position;
  float value;
};

static int by_feature(const void *a, const void *b) {
  const struct firing *x = a, *y = b;
  if (x->feature != y->feature) return x->feature < y->feature ? -1 : 1;
  return (x->position > y->position) - (x->position < y->position);
}

/* The rows of the tokens, turned: by feature, and by position within one. NULL on failure. */
static struct firing *turn(struct api_call *call, const struct lab_text_activations *text, size_t *n, struct error *error) {
  *n = 0;
  for (size_t i = 0; i < text->n_tokens; i++) *n += (size_t)text->n_top[i];
  struct firing *all = arena_array(&call->arena, *n, sizeof *all, error);
  size_t at = 0;
  for (size_t i = 0; all && i < text->n_tokens; i++)
    for (int k = 0; k < text->n_top[i]; k++)
      all[at++] = (struct firing){text->top[i][k].index, (int64_t)i, text->top[i][k].value};
  if (all) qsort(all, *n, sizeof *all, by_feature);
  return all;
}

/* {"feature": [[position, value], ...], ...} */
static void write_firing(struct json_writer *w, const struct firing *all, size_t n) {
  jw_open(w, '{');
  for (size_t i = 0; i < n; i++) {
    char name[24];
    snprintf(name, sizeof name, "%lld", (long long)all[i].feature);
    bool opens = i == 0 || all[i - 1].feature != all[i].feature, closes = i + 1 == n || all[i + 1].feature != all[i].feature;
    if (opens) {
      jw_key(w, name);
      jw_open(w, '[');
    }
    jw_open(w, '[');
    jw_int(w, all[i].position);
    jw_f32(w, all[i].value);
    jw_close(w, ']');
    if (closes) jw_close(w, ']');
  }
  jw_close(w, '}');
}

static int finish_all(struct api_call *call, struct error *error) {
  size_t n_texts;
  const struct lab_text_activations *texts = lab_activations_result(call->job, &n_texts);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "results");
  jw_open(&w, '[');
  for (size_t t = 0; t < n_texts; t++) {
    size_t n;
    const struct firing *all = turn(call, &texts[t], &n, error);
    if (!all) return -1;
    jw_open(&w, '{');
    reply_texts(&w, "tokens", texts[t].tokens, texts[t].n_tokens);
    jw_key(&w, "activeFeatures");
    write_firing(&w, all, n);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int activation_source_post(struct api_call *call, struct error *error) {
  struct activations_plan *plan = new_plan(call, "customText", error);
  if (!plan) return -1;
  plan->args.model = call_model(call, call->values, "modelId", error);
  if (!plan->args.model) return -1;
  plan->args.form = LAB_ALL_BY_TOKEN;
  plan->args.n_results = 1;
  if (plan->args.ignore_bos == LAB_BOS_DEFAULT) plan->args.ignore_bos = LAB_BOS_NO; /* positions are upstream's */
  if (set_source(call, plan, values_text(call->values, "source", NULL), "source", error) != 0) return -1;
  return start(call, plan, finish_all, error);
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
  struct activations_plan *plan = new_plan(call, "text", error);
  if (!plan) return -1;
  plan->args.model = call_model(call, values, "modelId", error);
  if (!plan->args.model) return -1;
  plan->args.most_density = values_number(values, "densityThreshold");
  int n_results = (int)values_int(values, "numResults");
  if (values_has(values, "sourceSet")) return start_over_text(call, plan, n_results ? n_results : 50, error);
  if (values_has(values, "index")) return start_one(call, plan, values, "source", "source", error);
  return start_by_token(call, plan, n_results ? n_results : 10, error);
}
