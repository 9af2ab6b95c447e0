/* uploads.c: what clients have counted, into the store: POST /api/feature/upload-batch, POST /api/activation/upload-batch.
 *
 * Everybody who may use the server may (vectors.c). Turns checked fields into rows; which source takes them is core/archive.h's
 * business, and the whole batch is written or none of it. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"

enum { BATCH_FEATURES = 128, BATCH_ACTIVATIONS = 512, TOKENS_MOST = 1024, LOGITS_MOST = 100, EXPLANATIONS_MOST = 16 };

#define IDENTITY_ROW                                                                                                         \
  {"identity", NULL, FIELD_TEXT, .min = 1, .max = 256,                                                                       \
   .text = "Of the dictionary that they were counted with, as GET /v1/lab/dictionaries has it under provenance: needed where " \
           "one is loaded as this source, and the same."}

static const struct field logit_rows[] = {
    {"token", NULL, FIELD_TEXT, .required = true, .max = 1024, .text = "The token's text."},
    {"value", NULL, FIELD_NUMBER, .required = true, .min = -(double)FLT_MAX, .max = (double)FLT_MAX, .text = "Its logit."},
    {.name = NULL}};

static const struct field explanation_rows[] = {
    {"text", "description", FIELD_TEXT, .required = true, .min = 1, .max = 4096, .text = "What the feature means."},
    {"methodName", "typeName", FIELD_TEXT, .max = 128, .text = "The method it was found by."},
    {"modelName", "explanationModelName", FIELD_TEXT, .max = 128, .text = "Who or what wrote it."},
    {.name = NULL}};

static const struct field activation_rows[] = {
    {"tokens", NULL, FIELD_TEXTS, .required = true, .max = 1024, .most = TOKENS_MOST, .text = "The texts of the tokens."},
    {"values", NULL, FIELD_NUMBERS, .required = true, .min = 1, .max = TOKENS_MOST, .text = "The feature's activation at each of them."},
    {"quantileMin", NULL, FIELD_NUMBER, .min = -(double)FLT_MAX, .max = (double)FLT_MAX,
     .text = "The activations that it was sampled from begin here."},
    {"quantileMax", NULL, FIELD_NUMBER, .min = -(double)FLT_MAX, .max = (double)FLT_MAX, .text = "They end here."},
    {"quantileFraction", NULL, FIELD_NUMBER, .max = 1, .text = "The share of positions between the two."},
    {.name = NULL}};

static const struct field feature_rows[] = {
    {"index", NULL, FIELD_INDEX, .required = true, .max = (double)(STORE_UPLOAD_FEATURES - 1), .text = "The feature's number in its source."},
    {"density", NULL, FIELD_NUMBER, .max = 1, .text = "The share of positions where it fires."},
    {"activations", NULL, FIELD_OBJECTS, .max = BATCH_ACTIVATIONS, .inner = activation_rows, .text = "Stretches of text it fires on."},
    {"explanations", NULL, FIELD_OBJECTS, .max = EXPLANATIONS_MOST, .inner = explanation_rows, .text = "What it means."},
    {"topLogits", NULL, FIELD_OBJECTS, .max = LOGITS_MOST, .inner = logit_rows, .text = "The tokens it promotes most, largest first."},
    {"bottomLogits", NULL, FIELD_OBJECTS, .max = LOGITS_MOST, .inner = logit_rows, .text = "Those it suppresses most, smallest first."},
    {.name = NULL}};

const struct field feature_upload_fields[] = {
    MODEL_ROW, SOURCE_ROW("source", "layer"),
    {"features", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = BATCH_FEATURES, .inner = feature_rows,
     .text = "Those that have statistics or activations already are left alone."},
    IDENTITY_ROW, {.name = NULL}};

const struct field activation_upload_fields[] = {
    MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW,
    {"activations", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = BATCH_ACTIVATIONS, .inner = activation_rows,
     .text = "Those that are there already are not added again."},
    IDENTITY_ROW, {.name = NULL}};

/* ---- rows --------------------------------------------------------------------------------------------- */

/* NaN where it is left out. */
static float number_or_nan(const struct values *values, const char *name) {
  return values_has(values, name) ? (float)values_number(values, name) : NAN;
}

static const float *read_values(struct api_call *call, const struct values *values, const char *path, size_t n, struct error *error) {
  float *out = arena_array(&call->arena, n, sizeof *out, error);
  for (size_t i = 0; out && i < n; i++) {
    double value = values_number_at(values, "values", i);
    char field[80];
    snprintf(field, sizeof field, "%.40s.values[%zu]", path, i);
    if (!(fabs(value) <= (double)FLT_MAX))
      return error_set_field(error, ERROR_ARGUMENT, field, "'%s' is %g, beyond the range of float32", field, value), NULL;
    out[i] = (float)value;
  }
  return out;
}

static const struct store_text *read_tokens(struct api_call *call, const struct values *values, size_t n, struct error *error) {
  struct store_text *out = arena_array(&call->arena, n, sizeof *out, error);
  for (size_t i = 0; out && i < n; i++) out[i].text = values_text_at(values, "tokens", i, &out[i].length);
  return out;
}

/* path: "features[3].activations[0]". */
static int read_activation(struct api_call *call, const struct values *values, const char *path, struct store_example *out,
                           struct error *error) {
  size_t n = values_count(values, "tokens"), n_values = values_count(values, "values");
  char field[64];
  snprintf(field, sizeof field, "%.48s.values", path);
  if (n != n_values)
    return error_set_field(error, ERROR_ARGUMENT, field, "'%s' has %zu numbers, and 'tokens' beside it %zu texts: there must be one for "
                           "each", field, n_values, n);
  *out = (struct store_example){.n = n, .qualifying = -1, .document = -1, .position = -1,
                                .bin_min = number_or_nan(values, "quantileMin"), .bin_max = number_or_nan(values, "quantileMax"),
                                .bin_contains = number_or_nan(values, "quantileFraction")};
  out->tokens = read_tokens(call, values, n, error);
  out->values = out->tokens ? read_values(call, values, path, n, error) : NULL;
  return out->values ? 0 : -1;
}

/* The activations of a feature, or of the body; path: "features[3]." or "". */
static struct store_example *read_activations(struct api_call *call, const struct values *values, const char *path, size_t *n,
                                              struct error *error) {
  *n = values_count(values, "activations");
  struct store_example *out = arena_array(&call->arena, *n, sizeof *out, error);
  for (size_t i = 0; out && i < *n; i++) {
    char row[72];
    snprintf(row, sizeof row, "%.24sactivations[%zu]", path, i);
    if (read_activation(call, values_at(values, "activations", i), row, &out[i], error) != 0) return NULL;
  }
  return out;
}

static int read_logits(struct api_call *call, const struct values *values, const char *name, struct store_tokens *out,
                       struct error *error) {
  size_t n = values_count(values, name);
  struct store_text *texts = arena_array(&call->arena, n, sizeof *texts, error);
  float *numbers = arena_array(&call->arena, n, sizeof *numbers, error);
  if (!texts || !numbers) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct values *row = values_at(values, name, i);
    texts[i].text = values_text(row, "token", &texts[i].length);
    numbers[i] = (float)values_number(row, "value");
  }
  *out = (struct store_tokens){texts, numbers, n};
  return 0;
}

static int read_explanations(struct api_call *call, const struct values *values, struct store_feature *out, struct error *error) {
  size_t n = values_count(values, "explanations");
  struct store_explanation *rows = arena_array(&call->arena, n, sizeof *rows, error);
  for (size_t i = 0; rows && i < n; i++) {
    const struct values *row = values_at(values, "explanations", i);
    rows[i] = (struct store_explanation){.origin = STORE_IMPORTED, .description = values_text(row, "text", NULL),
                                         .type = values_text(row, "methodName", NULL),
                                         .model_name = values_text(row, "modelName", NULL), .score = NAN};
  }
  out->explanations = rows;
  out->n_explanations = n;
  return rows ? 0 : -1;
}

static float largest(const struct store_example *examples, size_t n) {
  float max = NAN;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < examples[i].n; k++)
      if (!(max >= examples[i].values[k])) max = examples[i].values[k];
  return max;
}

static int read_feature(struct api_call *call, size_t i, struct store_feature *out, struct error *error) {
  const struct values *values = values_at(call->values, "features", i);
  char path[32];
  snprintf(path, sizeof path, "features[%zu].", i);
  *out = (struct store_feature){.index = (uint32_t)values_int(values, "index"), .groups = STORE_STATISTICS, .n_fired = -1,
                                .rate = values_has(values, "density") ? values_number(values, "density") : NAN, .mean = NAN};
  out->examples = read_activations(call, values, path, &out->n_examples, error);
  if (!out->examples || read_logits(call, values, "topLogits", &out->top, error) != 0 ||
      read_logits(call, values, "bottomLogits", &out->bottom, error) != 0 || read_explanations(call, values, out, error) != 0)
    return -1;
  out->max = largest(out->examples, out->n_examples);
  if (out->n_examples) out->groups |= STORE_EXAMPLES;
  if (out->top.n || out->bottom.n) out->groups |= STORE_LOGITS;
  return 0;
}

static int check_twice(const struct store_feature *features, size_t n, struct error *error) {
  char field[48];
  snprintf(field, sizeof field, "features[%zu].index", n);
  for (size_t i = 0; i < n; i++)
    if (features[i].index == features[n].index)
      return error_set_field(error, ERROR_ARGUMENT, field, "'%s' is %u, as 'features[%zu].index': a feature may come once in a batch",
                             field, features[n].index, i);
  return 0;
}

/* The source, and whether a dictionary's own index is in its range: one that was registered grows. */
static int find_source(struct api_call *call, struct place *out, struct error *error) {
  if (call_may_add(call, error) != 0) return -1;
  return call_known_place(call, values_text(call->values, "modelId", NULL), values_text(call->values, "source", NULL), "source", out,
                          error);
}

static int check_index(const struct place *place, int64_t index, const char *field, struct error *error) {
  if (!place->source->stored) return call_check_index(place->source, index, field, error);
  if (index < STORE_UPLOAD_FEATURES) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "'%s' must be from 0 to %lld, found %lld", field,
                         (long long)STORE_UPLOAD_FEATURES - 1, (long long)index);
}

/* ---- features ----------------------------------------------------------------------------------------- */

static int write_features(struct api_call *call, const struct store_feature *features, const bool *added, size_t n,
                          struct error *error) {
  size_t created = 0;
  for (size_t i = 0; i < n; i++) created += added[i];
  const char *message = arena_printf(&call->arena, error, "%zu features created.", created);
  if (!message) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", message);
  jw_member_int(&w, "created", (int64_t)created);
  jw_key(&w, "existing");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++)
    if (!added[i]) jw_int(&w, features[i].index);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int feature_upload_post(struct api_call *call, struct error *error) {
  struct place place;
  size_t n = values_count(call->values, "features");
  struct store_feature *features = arena_array(&call->arena, n, sizeof *features, error);
  bool *added = arena_array(&call->arena, n, sizeof *added, error);
  if (!features || !added || find_source(call, &place, error) != 0) return -1;
  for (size_t i = 0; i < n; i++) {
    char field[48];
    snprintf(field, sizeof field, "features[%zu].index", i);
    if (read_feature(call, i, &features[i], error) != 0 || check_twice(features, i, error) != 0 ||
        check_index(&place, features[i].index, field, error) != 0)
      return -1;
  }
  if (archive_upload_features(call->api->lab, place.source, values_text(call->values, "identity", NULL), features, n, added, error) != 0)
    return -1;
  return write_features(call, features, added, n, error);
}

/* ---- activations -------------------------------------------------------------------------------------- */

int activation_upload_post(struct api_call *call, struct error *error) {
  struct place place;
  size_t n, added;
  int64_t index = values_int(call->values, "index");
  if (find_source(call, &place, error) != 0 || check_index(&place, index, "index", error) != 0) return -1;
  const struct store_example *examples = read_activations(call, call->values, "", &n, error);
  if (!examples || archive_upload_examples(call->api->lab, place.source, values_text(call->values, "identity", NULL), (uint32_t)index,
                                           examples, n, &added, error) != 0)
    return -1;
  const char *message = arena_printf(&call->arena, error, "%zu activations created.", added);
  if (!message) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", message);
  jw_member_int(&w, "created", (int64_t)added);
  jw_member_int(&w, "existing", (int64_t)(n - added));
  jw_close(&w, '}');
  return 0;
}
