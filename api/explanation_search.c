/* explanation_search.c: POST /api/explanation/search and its kin: words in, ranked explanations out.
 *
 * Upstream compares embeddings made elsewhere; here words are matched and ranked by the store (BM25), so
 * `cosine_similarity` is null and `rank` and `snippet` stand beside it. A release is a source set: the sets of that
 * name in every loaded model. */
#include "api/explanation_search.h"

#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"

enum { PAGE_ROWS = 20, TIME_LIMIT_MS = 2000 };

#define QUERY_ROWS                                                                                             \
  {"query", "q", FIELD_TEXT, .required = true, .min = 3, .max = 256, .text = "Words to search for."},          \
  {"match", NULL, FIELD_CHOICE, .fallback = "all", .choices = "all any",                                       \
   .text = "Whether all words must occur, or any of them."},                                                   \
  OFFSET_ROW("How many results to pass over; a page has 20.")

const struct field explanation_search_fields[] = {
    MODEL_ROW,
    {"layers", "sources selectedLayers", FIELD_NAMES, .max = 1024, .text = "The sources; [] or left out: all of the model's."},
    QUERY_ROWS, {.name = NULL}};

const struct field explanation_search_model_fields[] = {MODEL_ROW, QUERY_ROWS, {.name = NULL}};

const struct field explanation_search_release_fields[] = {
    {"releaseName", "release sourceSet", FIELD_TEXT, .required = true, .min = 1, .max = 128,
     .text = "The name of a source set, such as \"res-jb\"; the sets of that name in every loaded model."},
    QUERY_ROWS, {.name = NULL}};

const struct field explanation_search_all_fields[] = {QUERY_ROWS, {.name = NULL}};

/* ---- the search --------------------------------------------------------------------------------------- */

int search_run(struct api_call *call, struct store_search *search, const char *field, struct store_hit **hits,
               size_t *n, bool *more, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  struct error own = ERROR_INIT;
  *hits = NULL;
  *n = 0;
  *more = false;
  search->time_limit_ms = TIME_LIMIT_MS;
  if (!store || store_explanation_search(store, search, &call->arena, hits, n, more, &own) == 0) return 0;
  if (own.code == ERROR_ARGUMENT) return error_set_field(error, ERROR_ARGUMENT, field, "'%s': %s", field, own.text);
  *error = own;
  return -1;
}

void search_hit_members(struct json_writer *w, const struct store_hit *hit) {
  reply_digits(w, "id", hit->explanation.id);
  jw_member_text(w, "snippet", hit->snippet);
  jw_member_f64(w, "rank", hit->rank);
}

/* ---- the answer in Neuronpedia's shape ---------------------------------------------------------------- */

static void write_request(struct json_writer *w, const struct values *values, const struct store_search *search,
                          const char *release) {
  jw_key(w, "request");
  jw_open(w, '{');
  if (search->model) jw_member_text(w, "modelId", search->model);
  if (release) jw_member_text(w, "releaseName", release);
  jw_member_text(w, "query", search->query);
  jw_member_text(w, "match", values_text(values, "match", NULL));
  jw_member_int(w, "offset", search->offset);
  jw_close(w, '}');
}

static void write_result(struct json_writer *w, const struct store_hit *hit) {
  jw_open(w, '{');
  rows_explanation_members(w, &hit->explanation);
  search_hit_members(w, hit);
  jw_member_null(w, "cosine_similarity");
  jw_close(w, '}');
}

static int answer(struct api_call *call, struct store_search *search, const char *release, struct error *error) {
  const struct values *values = call->values;
  struct store_hit *hits;
  size_t n;
  bool more;
  search->query = values_text(values, "query", &search->query_length);
  search->any = strcmp(values_text(values, "match", NULL), "any") == 0;
  search->offset = values_int(values, "offset");
  search->limit = PAGE_ROWS;
  if (search_run(call, search, "query", &hits, &n, &more, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  write_request(&w, values, search, release);
  jw_key(&w, "results");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) write_result(&w, &hits[i]);
  jw_close(&w, ']');
  jw_member_int(&w, "resultsCount", (int64_t)n);
  jw_member_bool(&w, "hasMore", more);
  if (more) jw_member_int(&w, "nextOffset", search->offset + (int64_t)n);
  jw_close(&w, '}');
  return 0;
}

/* ---- where -------------------------------------------------------------------------------------------- */

static int read_layers(struct api_call *call, const struct lab_model_info *model, struct store_search *search,
                       struct error *error) {
  size_t n = values_count(call->values, "layers");
  int64_t *numbers = arena_array(&call->arena, n, sizeof *numbers, error);
  if (!numbers) return -1;
  for (size_t i = 0; i < n; i++) {
    char field[32];
    snprintf(field, sizeof field, "layers[%zu]", i);
    const char *id = values_text_at(call->values, "layers", i, NULL);
    struct place place;
    if (call_known_place(call, model->id, id, field, &place, error) != 0) return -1;
    numbers[i] = lab_store_source(call->api->lab, place.source);
  }
  if (n) search->sources = numbers;
  search->n_sources = n;
  return 0;
}

int explanation_search_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", error);
  struct store_search search = {.model = model ? model->id : NULL};
  if (!model || read_layers(call, model, &search, error) != 0) return -1;
  return answer(call, &search, NULL, error);
}

int explanation_search_model_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", error);
  if (!model) return -1;
  struct store_search search = {.model = model->id};
  return answer(call, &search, NULL, error);
}

int explanation_search_all_post(struct api_call *call, struct error *error) {
  struct store_search search = {0};
  return answer(call, &search, NULL, error);
}

/* The sources of every set of that name. */
static int read_release(struct api_call *call, const char *name, struct store_search *search, struct error *error) {
  const struct lab *lab = call->api->lab;
  const struct lab_model_info *models;
  struct lab_source_info *stored;
  size_t n_models = lab_models(lab, &models), n = 0, n_stored;
  if (lab_stored_sources(lab, NULL, &call->arena, &stored, &n_stored, error) != 0) return -1;
  int64_t *numbers = arena_array(&call->arena, n_stored, sizeof *numbers, error);
  if (!numbers) return -1;
  for (size_t i = 0; i < n_stored; i++)
    if (strcmp(stored[i].set, name) == 0) numbers[n++] = stored[i].stored;
  for (size_t i = 0; i < n_models; i++) {
    const struct lab_source_info **sources;
    size_t count;
    if (lab_source_set(lab, &models[i], name, &call->arena, &sources, &count, error) != 0) return -1;
    int64_t *more = arena_array(&call->arena, n + count, sizeof *more, error);
    if (!more) return -1;
    for (size_t k = 0; k < n; k++) more[k] = numbers[k];
    for (size_t k = 0; k < count; k++) more[n++] = lab_store_source(lab, sources[k]);
    numbers = more;
  }
  search->sources = numbers;
  search->n_sources = n;
  if (n) return 0;
  return error_set_field(error, ERROR_NOT_FOUND, "releaseName",
                         "no source set '%.64s' is loaded; GET /models lists the sets", name);
}

int explanation_search_release_post(struct api_call *call, struct error *error) {
  struct store_search search = {0};
  const char *name = values_text(call->values, "releaseName", NULL);
  if (read_release(call, name, &search, error) != 0) return -1;
  return answer(call, &search, name, error);
}
