/* models.c: what is loaded: plainly at GET /models, and in Neuronpedia's shapes. */
#include <string.h>

#include "api/call.h"
#include "api/handlers.h"
#include "api/rows.h"

const struct field model_list_fields[] = {{.name = NULL}};

const struct field model_get_fields[] = {
    {"id", "modelId", FIELD_TEXT, .required = true, .min = 1, .max = 128, .text = "The model's id or an alias of it."},
    {.name = NULL}};

/* ---- GET /models -------------------------------------------------------------------------------------- */

void source_members(struct json_writer *w, const struct lab_source_info *source) {
  jw_member_text(w, "set", source->set);
  jw_member_text(w, "kind", source->kind);
  jw_member_int(w, "layer", source->layer);
  jw_member_text(w, "point", source->point);
  jw_member_text(w, "pointOut", source->point_out);
  if (source->point_last) jw_member_text(w, "pointLast", source->point_last);
  jw_member_int(w, "features", source->n_feat);
  jw_member_int(w, "width", source->d_in);
  jw_member_bool(w, "folded", source->folded);
  jw_member_bool(w, "bosCounts", source->bos_counts);
  jw_member_bool(w, "promotes", source->promotes);
  jw_member_int(w, "bytes", (int64_t)source->bytes);
}

static void write_source(struct json_writer *w, const struct lab_source_info *source) {
  jw_open(w, '{');
  jw_member_text(w, "id", source->id);
  source_members(w, source);
  jw_close(w, '}');
}

static void write_model(struct json_writer *w, const struct lab *lab, const struct lab_model_info *model) {
  const struct lab_source_info *const *sources;
  size_t n = lab_sources(lab, model, &sources);
  jw_open(w, '{');
  jw_member_text(w, "id", model->id);
  jw_member_text(w, "family", model->family);
  jw_member_text(w, "dtype", model->dtype);
  jw_member_int(w, "layers", model->n_layer);
  jw_member_int(w, "heads", model->n_head);
  jw_member_int(w, "kvHeads", model->n_kv_head);
  jw_member_int(w, "width", model->d_model);
  jw_member_int(w, "mlpWidth", model->d_mlp);
  jw_member_int(w, "context", model->n_ctx);
  jw_member_int(w, "vocabulary", model->vocabulary);
  jw_member_int(w, "parameters", model->parameters);
  jw_member_int(w, "bytes", (int64_t)model->weight_bytes);
  jw_member_bool(w, "prependsBos", model->prepends_bos);
  jw_member_bool(w, "processed", model->processed);
  jw_key(w, "sources");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) write_source(w, sources[i]);
  jw_close(w, ']');
  jw_close(w, '}');
}

int models_get(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_model_info *models;
  size_t count = lab_models(call->api->lab, &models);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "models");
  jw_open(&w, '[');
  for (size_t i = 0; i < count; i++) write_model(&w, call->api->lab, &models[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

/* ---- Neuronpedia's shapes ----------------------------------------------------------------------------- */

/* Those of the set of sources[first]. */
static void write_sources(struct json_writer *w, const struct lab_source_info *const *sources, size_t n, size_t first) {
  jw_key(w, "sources");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++)
    if (strcmp(sources[i]->set, sources[first]->set) == 0) rows_source(w, sources[i]);
  jw_close(w, ']');
}

static void write_set(struct json_writer *w, const struct lab_source_info *const *sources, size_t n, size_t first) {
  jw_open(w, '{');
  rows_set_members(w, sources[first]);
  write_sources(w, sources, n, first);
  jw_close(w, '}');
}

/* Whether source i is the first of its set. */
static bool opens_set(const struct lab_source_info *const *sources, size_t i) {
  for (size_t k = 0; k < i; k++)
    if (strcmp(sources[k]->set, sources[i]->set) == 0) return false;
  return true;
}

static void write_web_model(struct json_writer *w, const struct lab *lab, const struct lab_model_info *model) {
  const struct lab_source_info *const *sources;
  size_t n = lab_sources(lab, model, &sources);
  jw_open(w, '{');
  rows_model_members(w, model);
  jw_key(w, "sourceSets");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++)
    if (opens_set(sources, i)) write_set(w, sources, n, i);
  jw_close(w, ']');
  jw_close(w, '}');
}

int model_list_post(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_model_info *models;
  size_t count = lab_models(call->api->lab, &models);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < count; i++) write_web_model(&w, call->api->lab, &models[i]);
  jw_close(&w, ']');
  return 0;
}

int model_get_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = lab_find_model(call->api->lab, values_text(call->values, "id", NULL), error);
  if (!model) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  write_web_model(&w, call->api->lab, model);
  return 0;
}

int source_set_get(struct api_call *call, struct error *error) {
  const char *id = call_part(call, "model", error), *name = call_part(call, "name", error);
  const struct lab_model_info *model = id && name ? lab_find_model(call->api->lab, id, error) : NULL;
  const struct lab_source_info *const *sources;
  if (!model) return -1;
  size_t n = lab_sources(call->api->lab, model, &sources), first = 0;
  while (first < n && strcmp(sources[first]->set, name) != 0) first++;
  if (first == n)
    return error_set_field(error, ERROR_NOT_FOUND, "name", "model '%.64s' has no source set '%.64s'; POST /api/model/get lists them",
                           model->id, name);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_set_members(&w, sources[first]);
  jw_member_null(&w, "description"); /* nobody can have written one; the client reads both */
  jw_key(&w, "urls");
  jw_open(&w, '[');
  jw_close(&w, ']');
  write_sources(&w, sources, n, first);
  jw_close(&w, '}');
  return 0;
}
