/* models.c: what is loaded, and what the store alone knows: plainly at GET /models, and in Neuronpedia's shapes. */
#include <string.h>

#include "api/call.h"
#include "api/handlers.h"
#include "api/rows.h"

const struct field model_list_fields[] = {{.name = NULL}};

const struct field model_get_fields[] = {
    {"id", "modelId", FIELD_TEXT, .required = true, .min = 1, .max = 128, .text = "The model's id or an alias of it."},
    {.name = NULL}};

/* ---- GET /models -------------------------------------------------------------------------------------- */

/* What nobody has said of a stored one is null. */
static void member_said(struct json_writer *w, const char *key, const struct lab_source_info *source, bool value) {
  if (source->stored && !source->counted)
    jw_member_null(w, key);
  else
    jw_member_bool(w, key, value);
}

static void member_slice(struct json_writer *w, const int64_t *slice) {
  jw_key(w, "seqposSlice");
  if (!slice) {
    jw_null(w);
    return;
  }
  jw_open(w, '[');
  for (int i = 0; i < 3; i++)
    if (slice[i] == LAB_OPEN) jw_null(w);
    else jw_int(w, slice[i]);
  jw_close(w, ']');
}

/* On which positions statistics are made; of a stored one nobody has said. */
static void members_positions(struct json_writer *w, const struct lab_source_info *source) {
  member_slice(w, source->seqpos_slice);
  jw_key(w, "excludedTokens");
  if (source->stored) {
    jw_null(w);
    return;
  }
  jw_open(w, '[');
  for (size_t i = 0; i < source->n_excluded; i++) jw_int(w, source->excluded[i]);
  jw_close(w, ']');
}

void source_members(struct json_writer *w, const struct lab_source_info *source) {
  jw_member_text(w, "set", source->set);
  jw_member_text(w, "kind", source->kind);
  jw_member_int(w, "layer", source->layer);
  jw_member_text(w, "point", source->point);
  jw_member_text(w, "pointOut", source->point_out);
  if (source->point_last) jw_member_text(w, "pointLast", source->point_last);
  jw_member_int(w, "features", source->n_feat);
  jw_member_int(w, "width", source->d_in);
  member_said(w, "folded", source, source->folded);
  member_said(w, "bosCounts", source, source->bos_counts);
  members_positions(w, source);
  jw_member_bool(w, "promotes", source->promotes);
  jw_member_int(w, "bytes", (int64_t)source->bytes);
}

static void write_source(struct json_writer *w, const struct lab_source_info *source) {
  jw_open(w, '{');
  jw_member_text(w, "id", source->id);
  source_members(w, source);
  jw_close(w, '}');
}

/* Sources "0" to "layers - 1", which nobody loads. */
static void write_neurons(struct json_writer *w, const struct lab_model_info *model) {
  if (model->d_mlp == 0) {
    jw_member_null(w, "neurons");
    return;
  }
  jw_key(w, "neurons");
  jw_open(w, '{');
  jw_member_text(w, "set", LAB_NEURONS);
  jw_member_int(w, "layers", model->n_layer);
  jw_member_int(w, "perLayer", model->d_mlp);
  jw_close(w, '}');
}

static void write_model(struct json_writer *w, const struct lab *lab, const struct lab_model_info *model) {
  const struct lab_source_info *const *sources;
  size_t n = lab_sources(lab, model, &sources);
  jw_open(w, '{');
  jw_member_text(w, "id", model->id);
  jw_member_text(w, "family", model->family);
  jw_member_text(w, "dtype", model->dtype);
  jw_member_text(w, "kept", model->kept);
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
  write_neurons(w, model);
  jw_key(w, "sources");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) write_source(w, sources[i]);
  jw_close(w, ']');
  jw_close(w, '}');
}

/* ---- what the store alone knows ----------------------------------------------------------------------- */

struct stored {
  struct lab_model_info *models;
  struct lab_source_info *sources; /* of these and of loaded models */
  int64_t *counts; /* of each source: its features with statistics; NULL where nobody asks */
  size_t n_models, n_sources;
};

static int read_stored(struct api_call *call, struct stored *out, struct error *error) {
  const struct lab *lab = call->api->lab;
  out->counts = NULL;
  return lab_stored_models(lab, &call->arena, &out->models, &out->n_models, error) == 0
             ? lab_stored_sources(lab, NULL, &call->arena, &out->sources, &out->n_sources, error)
             : -1;
}

static int count_features(struct api_call *call, struct stored *stored, struct error *error) {
  stored->counts = arena_array(&call->arena, stored->n_sources, sizeof *stored->counts, error);
  if (!stored->counts) return -1;
  for (size_t i = 0; i < stored->n_sources; i++)
    if (store_feature_count(lab_store(call->api->lab), stored->sources[i].stored, &stored->counts[i], error) != 0) return -1;
  return 0;
}

/* A model with those of its sources that nobody has loaded. */
static void write_stored(struct json_writer *w, const struct stored *stored, const struct lab_model_info *model) {
  jw_open(w, '{');
  jw_member_text(w, "id", model->id);
  jw_member_text(w, "displayName", model->display_name);
  jw_member_text(w, "url", model->website);
  jw_member_int(w, "layers", model->n_layer);
  jw_member_bool(w, "loaded", !model->stored);
  jw_key(w, "sources");
  jw_open(w, '[');
  for (size_t i = 0; i < stored->n_sources; i++) {
    const struct lab_source_info *source = &stored->sources[i];
    if (strcmp(source->model_id, model->id) != 0) continue;
    jw_open(w, '{');
    jw_member_text(w, "id", source->id);
    jw_member_text(w, "set", source->set);
    jw_member_int(w, "layer", source->layer);
    jw_member_int(w, "features", stored->counts[i] ? stored->counts[i] : source->n_feat);
    jw_member_int(w, "indices", source->n_feat);
    member_said(w, "folded", source, source->folded);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

static bool has_stored(const struct stored *stored, const struct lab_model_info *model) {
  for (size_t i = 0; i < stored->n_sources; i++)
    if (strcmp(stored->sources[i].model_id, model->id) == 0) return true;
  return false;
}

int models_get(struct api_call *call, struct error *error) {
  const struct lab_model_info *models;
  struct stored stored;
  size_t count = lab_models(call->api->lab, &models);
  if (read_stored(call, &stored, error) != 0 || count_features(call, &stored, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "models");
  jw_open(&w, '[');
  for (size_t i = 0; i < count; i++) write_model(&w, call->api->lab, &models[i]);
  jw_close(&w, ']');
  jw_key(&w, "stored");
  jw_open(&w, '[');
  for (size_t i = 0; i < count; i++)
    if (has_stored(&stored, &models[i])) write_stored(&w, &stored, &models[i]);
  for (size_t i = 0; i < stored.n_models; i++) write_stored(&w, &stored, &stored.models[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

/* ---- Neuronpedia's shapes ----------------------------------------------------------------------------- */

/* The sources of a model, loaded ones first, then those of which the store alone knows. NULL when out of memory. */
static const struct lab_source_info **all_sources(struct api_call *call, const struct lab_model_info *model,
                                                  const struct stored *stored, size_t *n, struct error *error) {
  const struct lab_source_info *const *loaded = NULL;
  size_t n_loaded = model->stored ? 0 : lab_sources(call->api->lab, model, &loaded);
  const struct lab_source_info **all = arena_array(&call->arena, n_loaded + stored->n_sources, sizeof *all, error);
  *n = 0;
  for (size_t i = 0; all && i < n_loaded; i++) all[(*n)++] = loaded[i];
  for (size_t i = 0; all && i < stored->n_sources; i++)
    if (strcmp(stored->sources[i].model_id, model->id) == 0) all[(*n)++] = &stored->sources[i];
  return all;
}

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

static int write_web_model(struct api_call *call, struct json_writer *w, const struct lab_model_info *model,
                           const struct stored *stored, struct error *error) {
  size_t n;
  const struct lab_source_info **sources = all_sources(call, model, stored, &n, error);
  if (!sources) return -1;
  jw_open(w, '{');
  rows_model_members(w, model);
  jw_key(w, "sourceSets");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++)
    if (opens_set(sources, i)) write_set(w, sources, n, i);
  jw_close(w, ']');
  jw_close(w, '}');
  return 0;
}

int model_list_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *models;
  struct stored stored;
  size_t count = lab_models(call->api->lab, &models);
  struct json_writer w;
  if (read_stored(call, &stored, error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < count; i++)
    if (write_web_model(call, &w, &models[i], &stored, error) != 0) return -1;
  for (size_t i = 0; i < stored.n_models; i++)
    if (write_web_model(call, &w, &stored.models[i], &stored, error) != 0) return -1;
  jw_close(&w, ']');
  return 0;
}

/* Only the sources of one model. */
static int read_stored_of(struct api_call *call, const struct lab_model_info *model, struct stored *out, struct error *error) {
  *out = (struct stored){0};
  return lab_stored_sources(call->api->lab, model, &call->arena, &out->sources, &out->n_sources, error);
}

int model_get_post(struct api_call *call, struct error *error) {
  struct stored stored;
  struct json_writer w;
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "id", NULL), "modelId", error);
  if (!model || read_stored_of(call, model, &stored, error) != 0) return -1;
  jw_init(&w, &call->body);
  return write_web_model(call, &w, model, &stored, error);
}

int source_set_write(struct api_call *call, const struct lab_model_info *model, const char *name, struct error *error) {
  struct stored stored;
  struct store_set set = {0};
  struct store *store = lab_store(call->api->lab);
  size_t n, first = 0;
  if (read_stored_of(call, model, &stored, error) != 0) return -1;
  const struct lab_source_info **sources = NULL;
  if (!model->stored && strcmp(name, LAB_NEURONS) == 0) {
    if (lab_source_set(call->api->lab, model, name, &call->arena, &sources, &n, error) != 0) return -1;
  } else {
    sources = all_sources(call, model, &stored, &n, error);
  }
  if (!sources || (store && store_set_find(store, model->id, name, &call->arena, &set, error) < 0)) return -1;
  while (first < n && strcmp(sources[first]->set, name) != 0) first++;
  if (first == n)
    return error_set_field(error, ERROR_NOT_FOUND, "name", "model '%.64s' has no source set '%.64s'; POST /api/model/get lists them",
                           model->id, name);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_set_members(&w, sources[first]);
  jw_member_text(&w, "description", set.description);
  jw_key(&w, "urls");
  jw_open(&w, '[');
  if (set.url) jw_string(&w, set.url, strlen(set.url));
  jw_close(&w, ']');
  write_sources(&w, sources, n, first);
  jw_close(&w, '}');
  return 0;
}

int source_set_get(struct api_call *call, struct error *error) {
  const char *id = call_part(call, "model", error), *name = call_part(call, "name", error);
  const struct lab_model_info *model = id && name ? call_known_model(call, id, "modelId", error) : NULL;
  return model ? source_set_write(call, model, name, error) : -1;
}
