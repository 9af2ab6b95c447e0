/* registrations.c: models and source sets that are made by their names: POST /api/model/new, POST /api/source-set/new.
 *
 * Everybody who may use the server may, and nobody owns what comes of it (vectors.c). What is registered has no weights; it is
 * there for what is uploaded to it. */
#include <inttypes.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"

enum { NAME_MOST = 64, LAYERS_MOST = 256 };

const struct field model_new_fields[] = {
    {"id", NULL, FIELD_TEXT, .required = true, .min = 2, .max = NAME_MOST,
     .text = "What it is called from now on: letters, digits, '.', '_' and '-', a letter or digit at both ends."},
    {"layers", NULL, FIELD_INT, .required = true, .min = 1, .max = LAYERS_MOST, .text = "How many layers it has."},
    {"displayName", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "What it is called for readers; left out: the id."},
    {"url", "website", FIELD_TEXT, .min = 1, .max = 1024, .text = "A page about it."},
    {.name = NULL}};

const struct field source_set_new_fields[] = {
    MODEL_ROW,
    {"name", NULL, FIELD_TEXT, .required = true, .min = 1, .max = NAME_MOST,
     .text = "As an id of a model, and without '__'. Its sources are LAYER-NAME, one for each layer."},
    {"description", NULL, FIELD_TEXT, .max = 1024, .text = "What it is."},
    {"url", NULL, FIELD_TEXT, .min = 1, .max = 1024, .text = "A page about it."},
    {.name = NULL}};

/* ---- names -------------------------------------------------------------------------------------------- */

static bool is_plain(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* A name stands in paths and in names of sources. */
static int check_name(const char *name, const char *field, struct error *error) {
  size_t n = strlen(name), i = 0;
  while (i < n && (is_plain(name[i]) || strchr("._-", name[i]))) i++;
  if (i == n && is_plain(name[0]) && is_plain(name[n - 1])) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field,
                         "'%s' must be letters, digits, '.', '_' and '-', with a letter or digit at both ends, found \"%.64s\"",
                         field, name);
}

/* A path of this server's own that is one segment would hide the page of a model of that name. */
static int check_page(const char *id, struct error *error) {
  static const char *const families[] = {"api", "v1", "static"};
  bool taken = false;
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) taken |= strcmp(id, families[i]) == 0;
  for (size_t i = 0; i < n_routes; i++) taken |= strcmp(routes[i].path + 1, id) == 0;
  if (!taken) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "id", "'id' is \"%.64s\", which is a path of this server: choose another name", id);
}

/* ---- models ------------------------------------------------------------------------------------------- */

static int refuse_model(const char *id, struct error *error) {
  return error_set_field(error, ERROR_CONFLICT, "id", "there is a model '%.64s' already; POST /api/model/get tells of it", id);
}

int model_new_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  const char *id = values_text(values, "id", NULL);
  struct store *store = lab_store(call->api->lab);
  struct store_model row = {.id = id, .display_name = values_text(values, "displayName", NULL),
                            .layers = values_int(values, "layers"), .website = values_text(values, "url", NULL)};
  struct lab_model_info model;
  if (check_name(id, "id", error) != 0 || check_page(id, error) != 0) return -1;
  if (call_may_add(call, error) != 0) return -1;
  if (lab_find_model(call->api->lab, id, NULL)) return refuse_model(id, error);
  int added = store_model_register(store, &row, error);
  if (added <= 0) return added < 0 ? -1 : refuse_model(id, error);
  int found = lab_stored_model(call->api->lab, id, &call->arena, &model, error);
  if (found <= 0) return found < 0 ? -1 : error_set(error, ERROR_STORE, "a model that was just stored is not there");
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_model_members(&w, &model);
  jw_close(&w, '}');
  return 0;
}

/* ---- source sets -------------------------------------------------------------------------------------- */

static int refuse_set(const struct lab_model_info *model, const char *name, struct error *error) {
  return error_set_field(error, ERROR_CONFLICT, "name", "model '%.64s' has a source set '%.64s' already, or a source of that name; "
                         "GET /api/source-set/%.64s/%.64s tells of it", model->id, name, model->id, name);
}

static bool is_taken(const struct lab *lab, const struct lab_model_info *model, const char *set) {
  const struct lab_source_info *const *sources;
  size_t n = model->stored ? 0 : lab_sources(lab, model, &sources);
  for (size_t i = 0; i < n; i++)
    if (strcmp(sources[i]->set, set) == 0) return true;
  return false;
}

static int check_layers(const struct lab_model_info *model, struct error *error) {
  if (model->n_layer >= 1 && model->n_layer <= LAYERS_MOST) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "modelId", "model '%.64s' has %d layers, and sets are made for 1 to %d", model->id,
                         model->n_layer, LAYERS_MOST);
}

/* The model that a set is made for; the error says how one comes to be there. */
static const struct lab_model_info *find_model(struct api_call *call, struct error *error) {
  struct error own = ERROR_INIT;
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", &own);
  if (model) return model;
  (void)error_set_field(error, own.code, own.field, "%s%s", own.text,
                        own.code == ERROR_NOT_FOUND ? "; POST /api/model/new registers one" : "");
  return NULL;
}

int source_set_new_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  const char *name = values_text(values, "name", NULL);
  if (check_name(name, "name", error) != 0) return -1;
  if (strstr(name, "__"))
    return error_set_field(error, ERROR_ARGUMENT, "name", "'name' must not hold '__', behind which a variant is named, found \"%.64s\"",
                           name);
  if (call_may_add(call, error) != 0) return -1;
  struct store *store = lab_store(call->api->lab);
  const struct lab_model_info *model = find_model(call, error);
  if (!model || check_layers(model, error) != 0) return -1;
  if (strcmp(name, LAB_NEURONS) == 0)
    return error_set_field(error, ERROR_CONFLICT, "name", "'" LAB_NEURONS "' is the set of a model's own neurons, which no other may be called");
  if (is_taken(call->api->lab, model, name)) return refuse_set(model, name, error);
  struct store_set set = {.model = model->id, .name = name, .description = values_text(values, "description", NULL),
                          .url = values_text(values, "url", NULL)};
  int added = store_set_register(store, &set, model->n_layer, error);
  if (added <= 0) return added < 0 ? -1 : refuse_set(model, name, error);
  return source_set_write(call, model, name, error);
}
