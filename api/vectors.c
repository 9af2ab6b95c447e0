/* vectors.c: steering vectors that users keep: POST /api/vector/{new, get, list-owned, delete}.
 *
 * Everybody who may use the server owns all of them: keys are secrets, so no owner is made of one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/vector_features.h"

enum { VECTOR_MOST = 24576 };

const struct field vector_new_fields[] = {
    MODEL_ROW,
    {"layerNumber", "layer", FIELD_INT, .required = true, .max = 10000, .text = "The layer it is added at."},
    {"hookType", NULL, FIELD_CHOICE, .required = true,
     .choices = "hook_resid_pre hook_resid_post resid-pre resid-post", .text = "Where in the layer."},
    {"vector", "values", FIELD_NUMBERS, .required = true, .min = 1, .max = VECTOR_MOST,
     .text = "As many numbers as the model is wide."},
    {"vectorDefaultSteerStrength", "defaultSteerStrength", FIELD_NUMBER, .fallback = "10", .min = -300, .max = 300,
     .text = "The strength it is steered with unless another is asked for."},
    {"vectorLabel", "label", FIELD_TEXT, .max = 256, .text = "What it is."},
    {.name = NULL}};

const struct field vector_get_fields[] = {MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW, {.name = NULL}};

const struct field vector_delete_fields[] = {
    MODEL_ROW,
    {"source", "layer", FIELD_SOURCE, .text = "With index: one vector."},
    {"index", NULL, FIELD_INDEX, .max = 1e12, .text = "Its number there."},
    {"vectorLabel", "label", FIELD_TEXT, .min = 1, .max = 256, .text = "In place of both: all vectors of the model that have this label."},
    {.name = NULL}};

const struct field vector_list_fields[] = {
    {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "Only those of this model; left out: all."},
    {"values", NULL, FIELD_BOOL, .fallback = "true", .text = "false leaves out the numbers: `vector` is [] then."},
    {.name = NULL}};

/* ---- new ---------------------------------------------------------------------------------------------- */

static int read_values(struct api_call *call, const struct lab_model_info *model, float **out, struct error *error) {
  size_t n = values_count(call->values, "vector");
  if ((int64_t)n != model->d_model)
    return error_set_field(error, ERROR_ARGUMENT, "vector",
                           "'vector' must have %" PRId64 " numbers, the width of model '%.64s', found %zu", model->d_model,
                           model->id, n);
  *out = arena_array(&call->arena, n, sizeof **out, error);
  for (size_t i = 0; *out && i < n; i++) (*out)[i] = (float)values_number_at(call->values, "vector", i);
  return *out ? 0 : -1;
}

/* Source id and point, as Neuronpedia names them: "6-neuronpedia-resid-pre", "blocks.6.hook_resid_pre". */
static int name_place(struct api_call *call, const struct lab_model_info *model, struct store_vector *vector,
                      struct error *error) {
  int64_t layer = values_int(call->values, "layerNumber");
  bool pre = strstr(values_text(call->values, "hookType", NULL), "pre") != NULL;
  if (layer >= model->n_layer)
    return error_set_field(error, ERROR_ARGUMENT, "layerNumber",
                           "'layerNumber' must be an integer from 0 to %d for model '%.64s', found %" PRId64,
                           model->n_layer - 1, model->id, layer);
  return lab_vector_place(layer, pre, &call->arena, vector, error);
}

static int write_new(struct api_call *call, const struct store_vector *vector, struct error *error) {
  const char *base = call_base(call, error);
  const char *url = NULL;
  if (base) url = arena_printf(&call->arena, error, "%s/%s/%s/%" PRId64, base, vector->model, vector->source, vector->index);
  if (!url) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", "Success");
  jw_member_text(&w, "url", url);
  jw_key(&w, "vector");
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", vector->model);
  jw_member_text(&w, "source", vector->source);
  reply_digits(&w, "index", vector->index);
  jw_member_text(&w, "label", vector->label);
  jw_member_text(&w, "createdAt", vector->created_at);
  jw_member_f64(&w, "defaultSteerStrength", vector->strength);
  jw_member_text(&w, "hookName", vector->point);
  jw_key(&w, "values");
  jw_f32_array(&w, vector->values, vector->n);
  jw_close(&w, '}');
  jw_close(&w, '}');
  return 0;
}

int vector_new_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_model(call, call->values, "modelId", error);
  if (!model) return -1;
  if (call_may_add(call, error) != 0) return -1;
  struct store *store = lab_store(call->api->lab);
  float *values;
  struct store_vector vector = {.model = model->id, .label = values_text(call->values, "vectorLabel", NULL),
                                .strength = values_number(call->values, "vectorDefaultSteerStrength")};
  if (name_place(call, model, &vector, error) != 0 || read_values(call, model, &values, error) != 0) return -1;
  vector.values = values;
  vector.n = (size_t)model->d_model;
  if (store_vector_new(store, &vector, &vector.index, error) != 0) return -1;
  int found = store_vector_find(store, vector.model, vector.source, vector.index, &call->arena, &vector, error);
  if (found <= 0) return found < 0 ? -1 : error_set(error, ERROR_STORE, "a vector that was just stored is not there");
  return write_new(call, &vector, error);
}

/* ---- get and list ------------------------------------------------------------------------------------- */

static void write_vector(struct json_writer *w, const struct store_vector *vector) {
  jw_open(w, '{');
  jw_member_text(w, "modelId", vector->model);
  jw_member_text(w, "layer", vector->source);
  jw_member_text(w, "source", vector->source);
  reply_digits(w, "index", vector->index);
  jw_member_text(w, "vectorLabel", vector->label);
  jw_member_text(w, "createdAt", vector->created_at);
  jw_member_null(w, "creatorId");
  jw_member_f64(w, "vectorDefaultSteerStrength", vector->strength);
  jw_member_text(w, "hookName", vector->point);
  jw_key(w, "vector");
  jw_f32_array(w, vector->values, vector->values ? vector->n : 0);
  jw_close(w, '}');
}

/* A feature of a dictionary is a vector too: the row that it writes. */
static int find_row(struct api_call *call, int64_t index, struct store_vector *out, struct error *error) {
  struct place place;
  struct lab_feature_vectors row;
  if (call_place(call, call->values, "modelId", "source", "", &place, error) != 0 ||
      call_check_index(place.source, index, "index", error) != 0 ||
      lab_feature_vectors(call->api->lab, place.source, index, &call->arena, &row, error) != 0)
    return -1;
  *out = (struct store_vector){.model = place.model->id, .source = place.source->id, .index = index, .label = "", .strength = 10,
                               .point = place.source->point_out, .values = row.decoder, .n = row.n_decoder};
  return 0;
}

static int find_kept(struct api_call *call, const char *source, int64_t index, struct store_vector *out, struct error *error) {
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", error);
  char number[24];
  snprintf(number, sizeof number, "%" PRId64, index);
  int found = model ? vector_find(call, model, source, index, out, error) : -1;
  if (found < 0) return -1;
  return found ? 0 : vector_refuse(model, source, number, "index", error);
}

int vector_get_post(struct api_call *call, struct error *error) {
  const char *source = values_text(call->values, "source", NULL);
  int64_t index = values_int(call->values, "index");
  struct store_vector vector;
  if ((lab_holds_vectors(source) ? find_kept(call, source, index, &vector, error) : find_row(call, index, &vector, error)) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "vector");
  write_vector(&w, &vector);
  jw_close(&w, '}');
  return 0;
}

int vector_list_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = NULL;
  const char *id = values_text(call->values, "modelId", NULL);
  if (id && !(model = call_known_model(call, id, "modelId", error))) return -1;
  struct store *store = lab_store(call->api->lab);
  struct store_vector *vectors = NULL;
  size_t n = 0;
  if (store && store_vector_list(store, model ? model->id : NULL, NULL, &call->arena, &vectors, &n, error) != 0)
    return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "vectors");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) {
    if (!values_bool(call->values, "values")) vectors[i].values = NULL;
    write_vector(&w, &vectors[i]);
  }
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

/* ---- delete ------------------------------------------------------------------------------------------- */

/* One vector, or a label; never both, for then one of them would be deleted unasked. */
static int check_delete(const struct values *values, struct error *error) {
  bool source = values_has(values, "source"), index = values_has(values, "index"), label = values_has(values, "vectorLabel");
  if (label && (source || index))
    return error_set_field(error, ERROR_ARGUMENT, "vectorLabel", "'vectorLabel' stands in place of 'source' and 'index': give one or the other");
  if (label || (source && index)) return 0;
  const char *missing = source ? "index" : "source";
  return error_set_field(error, ERROR_ARGUMENT, missing, "'%s' is required: 'source' with 'index', or 'vectorLabel' alone", missing);
}

static int delete_label(struct store *store, const char *model, const char *label, struct error *error) {
  int deleted = store_vectors_delete(store, model, label, error);
  if (deleted != 0) return deleted < 0 ? -1 : 0;
  return error_set_field(error, ERROR_NOT_FOUND, "vectorLabel", "model '%.64s' has no vectors labelled '%.200s'", model, label);
}

/* Of one vector it is a success also when there was none, as upstream answers. */
int vector_delete_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  const struct lab_model_info *model = call_known_model(call, values_text(values, "modelId", NULL), "modelId", error);
  if (!model || check_delete(values, error) != 0) return -1;
  struct store *store = lab_store(call->api->lab);
  if (!store) return lab_needs_store(error);
  int failed = values_has(values, "vectorLabel")
                   ? delete_label(store, model->id, values_text(values, "vectorLabel", NULL), error)
                   : store_vector_delete(store, model->id, values_text(values, "source", NULL), values_int(values, "index"), error) < 0;
  return failed ? -1 : reply_success(call);
}
