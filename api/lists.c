/* lists.c: lists of features that people put together: POST /api/list/{new, new-with-features, add-features, edit-feature, remove,
 * update, delete, list, get}.
 *
 * Everybody who may use the server owns all of them (vectors.c). A list names features; what is known of them is read when it is
 * asked for, so one whose source is not here any more stands in it all the same. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"
#include "core/base/unicode.h"

enum { ADD_MOST = 100, TEXT_MOST = 4096, EXAMPLES_MOST = 20 };

#define LIST_ROW {"listId", "id", FIELD_INDEX, .required = true, .min = 1, .max = 9007199254740991.0, .text = "The list's number."}
#define NAME_ROW {"name", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 256, .text = "What it is called."}
#define DESCRIPTION_ROW {"description", NULL, FIELD_TEXT, .max = TEXT_MOST, .text = "What it is about."}
#define TEST_ROW {"testText", "defaultTestText", FIELD_TEXT, .max = TEXT_MOST, .text = "A text to try its features on."}

static const struct field entry_rows[] = {
    MODEL_ROW, SOURCE_ROW("layer", "source"), INDEX_ROW,
    {"description", NULL, FIELD_TEXT, .max = TEXT_MOST, .text = "Why it is in the list."},
    {.name = NULL}};

const struct field list_new_fields[] = {NAME_ROW, DESCRIPTION_ROW, TEST_ROW, {.name = NULL}};

const struct field list_new_with_fields[] = {
    NAME_ROW, DESCRIPTION_ROW, TEST_ROW,
    {"features", NULL, FIELD_OBJECTS, .required = true, .max = STORE_LIST_FEATURES, .inner = entry_rows, .text = "Its features, in this order."},
    {.name = NULL}};

const struct field list_add_fields[] = {
    LIST_ROW,
    {"featuresToAdd", "features", FIELD_OBJECTS, .required = true, .min = 1, .max = ADD_MOST, .inner = entry_rows,
     .text = "Those that are in it already stay as they are."},
    {.name = NULL}};

const struct field list_edit_fields[] = {
    LIST_ROW, MODEL_ROW, SOURCE_ROW("layer", "source"), INDEX_ROW,
    {"description", NULL, FIELD_TEXT, .max = TEXT_MOST, .text = "Why it is in the list; left out: nothing is said."},
    {.name = NULL}};

const struct field list_remove_fields[] = {LIST_ROW, MODEL_ROW, SOURCE_ROW("layer", "source"), INDEX_ROW, {.name = NULL}};

const struct field list_update_fields[] = {LIST_ROW, NAME_ROW, DESCRIPTION_ROW, TEST_ROW, {.name = NULL}};

const struct field list_delete_fields[] = {LIST_ROW, {.name = NULL}};

const struct field list_get_fields[] = {
    LIST_ROW,
    {"maxActsToReturn", "maxActivations", FIELD_INT, .fallback = "3", .max = EXAMPLES_MOST,
     .text = "Activations of each feature at most, the largest first."},
    {"offset", NULL, FIELD_INT, .fallback = "0", .max = STORE_LIST_FEATURES, .text = "Features of the list to pass over."},
    {"limit", NULL, FIELD_INT, .fallback = "1000", .min = 1, .max = STORE_LIST_FEATURES, .text = "Features to give at most; count says how many there are."},
    {.name = NULL}};

/* ---- what a list says of itself ----------------------------------------------------------------------- */

static int list_members(struct api_call *call, struct json_writer *w, const struct store_list *list, struct error *error) {
  const char *base = call_base(call, error);
  const char *url = base ? arena_printf(&call->arena, error, "%s/list/%" PRId64, base, list->id) : NULL;
  if (!url) return -1;
  reply_digits(w, "id", list->id);
  jw_member_text(w, "name", list->name);
  jw_member_text(w, "description", list->description);
  jw_member_text(w, "defaultTestText", list->test_text);
  jw_member_text(w, "createdAt", list->created_at);
  jw_member_text(w, "updatedAt", list->updated_at);
  jw_member_int(w, "count", list->n_features);
  jw_member_text(w, "url", url);
  return 0;
}

static int refuse_list(int64_t id, struct error *error) {
  return error_set_field(error, ERROR_NOT_FOUND, "listId", "there is no list %" PRId64 "; POST /api/list/list has those there are", id);
}

/* The list as it is now, without what is in it. */
static int write_list(struct api_call *call, int64_t id, struct error *error) {
  struct store_list list;
  struct json_writer w;
  int found = store_list_find(lab_store(call->api->lab), id, &call->arena, &list, NULL, NULL, error);
  if (found <= 0) return found < 0 ? -1 : refuse_list(id, error);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  if (list_members(call, &w, &list, error) != 0) return -1;
  jw_close(&w, '}');
  return 0;
}

/* ---- making and changing ------------------------------------------------------------------------------ */

/* A feature that exists, loaded or stored, by the names it has here. prefix: "features[3]." or "". */
static int read_entry(struct api_call *call, const struct values *values, const char *prefix, struct store_list_feature *out,
                      struct error *error) {
  struct place place;
  char field[64];
  snprintf(field, sizeof field, "%.32slayer", prefix);
  if (call_known_place(call, values_text(values, "modelId", NULL), values_text(values, "layer", NULL), field, &place, error) != 0)
    return -1;
  snprintf(field, sizeof field, "%.32sindex", prefix);
  if (call_check_known(call, place.source, values_int(values, "index"), field, error) != 0) return -1;
  *out = (struct store_list_feature){.model = place.model->id, .source = place.source->id,
                                     .index = (uint32_t)values_int(values, "index"),
                                     .description = values_text(values, "description", NULL)};
  return 0;
}

static struct store_list_feature *read_entries(struct api_call *call, const char *name, size_t *n, struct error *error) {
  *n = values_count(call->values, name);
  struct store_list_feature *out = arena_array(&call->arena, *n, sizeof *out, error);
  for (size_t i = 0; out && i < *n; i++) {
    char prefix[48];
    snprintf(prefix, sizeof prefix, "%s[%zu].", name, i);
    if (read_entry(call, values_at(call->values, name, i), prefix, &out[i], error) != 0) return NULL;
  }
  return out;
}

/* A name that shows. */
static int read_head(struct api_call *call, struct store_list *out, struct error *error) {
  size_t length;
  *out = (struct store_list){.name = values_text(call->values, "name", &length),
                             .description = values_text(call->values, "description", NULL),
                             .test_text = values_text(call->values, "testText", NULL)};
  if (call_may_add(call, error) != 0) return -1;
  if (unicode_space_prefix(out->name, length) < length) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "name", "'name' is nothing but white space; say what the list is called");
}

static int make_list(struct api_call *call, const struct store_list *list, const struct store_list_feature *features, size_t n,
                     struct error *error) {
  int64_t id;
  if (store_list_new(lab_store(call->api->lab), list, features, n, &id, error) != 0) return -1;
  return write_list(call, id, error);
}

int list_new_post(struct api_call *call, struct error *error) {
  struct store_list list;
  return read_head(call, &list, error) == 0 ? make_list(call, &list, NULL, 0, error) : -1;
}

int list_new_with_post(struct api_call *call, struct error *error) {
  struct store_list list;
  size_t n;
  if (read_head(call, &list, error) != 0) return -1;
  const struct store_list_feature *features = read_entries(call, "features", &n, error);
  return features ? make_list(call, &list, features, n, error) : -1;
}

static bool same_feature(const struct store_list_feature *a, const struct store_list_feature *b) {
  return a->index == b->index && strcmp(a->model, b->model) == 0 && strcmp(a->source, b->source) == 0;
}

static const struct store_list_feature *find_entry(const struct store_list_feature *rows, size_t n, const struct store_list_feature *wanted) {
  for (size_t i = 0; i < n; i++)
    if (same_feature(&rows[i], wanted)) return &rows[i];
  return NULL;
}

static void write_added(struct json_writer *w, int64_t list, const struct store_list_feature *feature) {
  jw_open(w, '{');
  reply_digits(w, "listId", list);
  jw_member_text(w, "modelId", feature->model);
  jw_member_text(w, "layer", feature->source);
  reply_digits(w, "index", feature->index);
  jw_member_text(w, "description", feature->description);
  jw_close(w, '}');
}

/* What was asked to be added, each once and as it is in the list now. */
static int write_entries(struct api_call *call, const struct store_list_feature *features, size_t n, struct error *error) {
  struct store_list list;
  struct store_list_feature *rows;
  size_t n_rows;
  struct json_writer w;
  int64_t id = values_int(call->values, "listId");
  int found = store_list_find(lab_store(call->api->lab), id, &call->arena, &list, &rows, &n_rows, error);
  if (found <= 0) return found < 0 ? -1 : refuse_list(id, error);
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) {
    const struct store_list_feature *row = find_entry(rows, n_rows, &features[i]);
    if (row && !find_entry(features, i, &features[i])) write_added(&w, id, row);
  }
  jw_close(&w, ']');
  return 0;
}

int list_add_post(struct api_call *call, struct error *error) {
  int64_t id = values_int(call->values, "listId");
  struct store *store = lab_store(call->api->lab);
  size_t n;
  if (call_may_add(call, error) != 0) return -1;
  const struct store_list_feature *features = read_entries(call, "featuresToAdd", &n, error);
  int done = features ? store_list_add(store, id, features, n, error) : -1;
  if (done <= 0) return done < 0 ? -1 : refuse_list(id, error);
  return write_entries(call, features, n, error);
}

int list_update_post(struct api_call *call, struct error *error) {
  struct store_list list;
  if (read_head(call, &list, error) != 0) return -1;
  list.id = values_int(call->values, "listId");
  int done = store_list_update(lab_store(call->api->lab), &list, error);
  if (done <= 0) return done < 0 ? -1 : refuse_list(list.id, error);
  return write_list(call, list.id, error);
}

int list_delete_post(struct api_call *call, struct error *error) {
  int64_t id = values_int(call->values, "listId");
  struct store *store = lab_store(call->api->lab);
  int done = store ? store_list_delete(store, id, error) : lab_needs_store(error);
  if (done <= 0) return done < 0 ? -1 : refuse_list(id, error);
  buffer_text(&call->body, "true");
  return 0;
}

/* ---- one feature of a list ---------------------------------------------------------------------------- */

/* By its names alone, for its source may be gone; an alias of a loaded model is its id. */
static int name_entry(struct api_call *call, struct store_list_feature *out, struct error *error) {
  const char *id = values_text(call->values, "modelId", NULL);
  const struct lab_model_info *model = lab_find_model(call->api->lab, id, id ? NULL : error);
  if (!model && !id) return -1;
  *out = (struct store_list_feature){.model = model ? model->id : id, .source = values_text(call->values, "layer", NULL),
                                     .index = (uint32_t)values_int(call->values, "index")};
  return 0;
}

static int refuse_entry(int64_t id, const struct store_list_feature *feature, struct error *error) {
  return error_set_field(error, ERROR_NOT_FOUND, "index", "there is no list %" PRId64 ", or %.64s/%.64s/%u is not in it", id, feature->model,
                         feature->source, feature->index);
}

static int change_entry(struct api_call *call, const struct store_list_feature *feature,
                        int (*change)(struct store *, int64_t, const struct store_list_feature *, struct error *),
                        struct error *error) {
  int64_t id = values_int(call->values, "listId");
  struct store *store = lab_store(call->api->lab);
  int done = store ? change(store, id, feature, error) : lab_needs_store(error);
  if (done <= 0) return done < 0 ? -1 : refuse_entry(id, feature, error);
  return reply_success(call);
}

int list_edit_post(struct api_call *call, struct error *error) {
  struct store_list_feature feature;
  if (call_may_add(call, error) != 0 || name_entry(call, &feature, error) != 0) return -1;
  feature.description = values_text(call->values, "description", NULL);
  return change_entry(call, &feature, store_list_describe, error);
}

int list_remove_post(struct api_call *call, struct error *error) {
  struct store_list_feature feature;
  return name_entry(call, &feature, error) == 0 ? change_entry(call, &feature, store_list_remove, error) : -1;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

int list_list_post(struct api_call *call, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  struct store_list *lists = NULL;
  size_t n = 0;
  if (store && store_list_all(store, &call->arena, &lists, &n, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) {
    jw_open(&w, '{');
    if (list_members(call, &w, &lists[i], error) != 0) return -1;
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  return 0;
}

/* What the store has of a feature; nothing where its source is not in it. */
static int read_feature(struct store *store, const struct store_list_feature *entry, size_t most, struct arena *arena,
                        struct store_feature *out, struct store_source *source, struct error *error) {
  int found = store_source_find(store, entry->model, entry->source, arena, source, error);
  if (found == 0) *source = (struct store_source){0};
  if (found == 1) found = store_feature_get(store, source->id, entry->index, most, arena, out, error);
  if (found == 0) *out = (struct store_feature){.index = entry->index, .rate = NAN, .max = NAN};
  return found < 0 ? -1 : 0;
}

static void write_neuron(struct json_writer *w, const struct store_list_feature *entry, const struct store_feature *stored,
                         const struct store_statistics *statistics) {
  const struct lab_model_info model = {.id = entry->model};
  const struct lab_source_info source = {.id = entry->source};
  const struct rows_feature feature = {.model = &model, .source = &source, .stored = stored, .statistics = statistics, .decoder_norm = NAN};
  jw_open(w, '{');
  jw_member_text(w, "modelId", entry->model);
  jw_member_text(w, "layer", entry->source);
  jw_member_text(w, "source", entry->source);
  reply_digits(w, "index", entry->index);
  jw_member_text(w, "description", entry->description);
  jw_member_text(w, "addedAt", entry->created_at);
  rows_summary_members(w, &feature);
  jw_close(w, '}');
}

/* Each feature's memory is its own, so that a long list holds one at a time. */
static int write_entry(struct api_call *call, struct json_writer *w, const struct store_list_feature *entry, struct error *error) {
  struct arena arena;
  struct store_feature stored;
  struct store_source source;
  arena_init(&arena, call->arena.limit);
  int result = read_feature(lab_store(call->api->lab), entry, (size_t)values_int(call->values, "maxActsToReturn"), &arena, &stored,
                            &source, error);
  if (result == 0) write_neuron(w, entry, &stored, &source.statistics);
  arena_clear(&arena);
  return result;
}

int list_get_post(struct api_call *call, struct error *error) {
  struct store_list list;
  struct store_list_feature *features;
  size_t n;
  int64_t id = values_int(call->values, "listId");
  struct store *store = lab_store(call->api->lab);
  int found = store ? store_list_find(store, id, &call->arena, &list, &features, &n, error) : 0;
  if (found <= 0) return found < 0 ? -1 : refuse_list(id, error);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  if (list_members(call, &w, &list, error) != 0) return -1;
  jw_key(&w, "neurons");
  jw_open(&w, '[');
  size_t first = (size_t)values_int(call->values, "offset"), most = (size_t)values_int(call->values, "limit");
  for (size_t i = first; i < n && i - first < most; i++)
    if (write_entry(call, &w, &features[i], error) != 0) return -1;
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}
