/* features.c: what is known of features: one in full (GET /feature/...), several at once, their stored activations.
 *
 * One feature is a job, because what its dictionary alone tells may have to be computed first; the others answer
 * with what the store has. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"
#include "api/vector_features.h"
#include "core/base/number.h"

enum { FEATURES_MOST = 100, OFFSET_PAGE = 25, LISTS_MOST = 100 };


const struct field feature_fields[] = {
    {"maxActivations", "maxActsToReturn", FIELD_INT, .fallback = "4096", .max = STORE_SLOT_MAX,
     .text = "Activations at most, the largest first."},
    {.name = NULL}};

static const struct field feature_rows[] = {
    MODEL_ROW, SOURCE_ROW("layer", "source"), INDEX_ROW,
    {"maxActsToReturn", NULL, FIELD_INT, .max = STORE_SLOT_MAX,
     .text = "Activations at most, the largest first; left out: as the first of the list has it, else all."},
    {.name = NULL}};

const struct field features_fields[] = {
    {"features", NULL, FIELD_OBJECTS, .required = true, .max = FEATURES_MOST, .inner = feature_rows, .bare = true,
     .text = "The features; those that do not exist are absent from the answer."},
    {.name = NULL}};

const struct field features_offset_fields[] = {
    MODEL_ROW, SOURCE_ROW("layer", "source"),
    OFFSET_ROW("How many features to pass over; a page has 25."),
    {.name = NULL}};

const struct field activation_get_fields[] = {MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW, {.name = NULL}};

/* ---- GET /feature/{model}/{source}/{index} ------------------------------------------------------------ */

/* The lists that it is in. */
static int read_lists(struct store *store, struct rows_feature *row, struct arena *arena, struct error *error) {
  struct store_list_place *lists = NULL;
  if (store && store_lists_of(store, row->model->id, row->source->id, row->stored->index, LISTS_MOST, arena, &lists, &row->n_lists, error) != 0)
    return -1;
  row->lists = lists;
  return 0;
}

static int finish_feature(struct api_call *call, struct error *error) {
  const struct place *place = call->plan;
  const struct lab_feature *feature = lab_feature_result(call->job);
  struct rows_feature row = {.model = place->model, .source = place->source, .stored = &feature->stored, .statistics = &feature->statistics,
                             .decoder_norm = feature->decoder_norm};
  if (read_lists(lab_store(call->api->lab), &row, &call->arena, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  rows_feature(&w, &row);
  return 0;
}

static int path_index(struct api_call *call, const struct place *place, int64_t *out, struct error *error) {
  const char *text = call_part(call, "index", error);
  if (!text) return -1;
  bool number = text[strspn(text, "0123456789")] == '\0' && number_parse_int(text, out);
  if (!number && place->source->n_feat > 0)
    return error_set_field(error, ERROR_NOT_FOUND, "index",
                           "source '%.64s' has no feature '%.32s'; its indices go from 0 to %lld", place->source->id, text,
                           (long long)place->source->n_feat - 1);
  return call_check_index(place->source, number ? *out : -1, "index", error);
}

/* ---- from the store ----------------------------------------------------------------------------------- */

/* A source as it is read from, one feature after the other. */
struct reader {
  struct store *store;      /* NULL: nothing is stored */
  struct place place;
  int64_t number;           /* the store's number of the source */
  struct store_source row;  /* zeroes when it is not stored */
};

static int open_reader(struct api_call *call, const struct place *place, struct reader *out, struct error *error) {
  *out = (struct reader){.store = lab_store(call->api->lab), .place = *place};
  if (!out->store) return 0;
  out->number = lab_store_source(call->api->lab, place->source);
  int found = store_source_at(out->store, out->number, &call->arena, &out->row, error);
  if (found == 0) out->row = (struct store_source){0};
  return found < 0 ? -1 : 0;
}

static int read_stored(const struct reader *reader, uint32_t index, size_t most, struct arena *arena,
                       struct store_feature *out, struct error *error) {
  int found = reader->store ? store_feature_get(reader->store, reader->number, index, most, arena, out, error) : 0;
  if (found == 0) *out = (struct store_feature){.index = index};
  return found < 0 ? -1 : 0;
}

static struct rows_feature row_of(const struct reader *reader, const struct store_feature *stored) {
  return (struct rows_feature){.model = reader->place.model, .source = reader->place.source, .stored = stored,
                               .statistics = &reader->row.statistics, .decoder_norm = NAN};
}

/* Reads and writes one feature; its memory is its own, so that a long list holds one at a time. */
static int write_stored(struct api_call *call, struct json_writer *w, const struct reader *reader, uint32_t index,
                        size_t most, struct error *error) {
  struct arena arena;
  struct store_feature stored;
  arena_init(&arena, call->arena.limit);
  int result = read_stored(reader, index, most, &arena, &stored, error);
  struct rows_feature row = row_of(reader, &stored);
  if (result == 0) result = read_lists(reader->store, &row, &arena, error);
  if (result == 0) rows_feature(w, &row);
  arena_clear(&arena);
  return result;
}

/* A feature of which the store alone knows. */
static int write_one_stored(struct api_call *call, const struct place *place, uint32_t index, struct error *error) {
  struct reader reader;
  struct json_writer w;
  if (call_check_known(call, place->source, index, "index", error) != 0) return -1;
  jw_init(&w, &call->body);
  if (open_reader(call, place, &reader, error) != 0) return -1;
  return write_stored(call, &w, &reader, index, (size_t)values_int(call->values, "maxActivations"), error);
}

int feature_get(struct api_call *call, struct error *error) {
  struct place *place = arena_alloc(&call->arena, sizeof *place, error);
  const char *source = call_part(call, "source", error);
  int64_t index;
  if (source && lab_holds_vectors(source)) return vector_feature_get(call, error);
  if (!source || !place || call_known_path(call, place, error) != 0 || path_index(call, place, &index, error) != 0) return -1;
  if (place->source->stored) return write_one_stored(call, place, (uint32_t)index, error);
  call->plan = place;
  call->finish = finish_feature;
  return lab_feature(call->api->lab, place->source, index, (size_t)values_int(call->values, "maxActivations"),
                     call->waker, &call->job, error);
}

/* ---- POST /api/features ------------------------------------------------------------------------------- */

/* 1 when the feature exists, 0 when not, -1. */
static int find_feature(struct api_call *call, const struct values *values, size_t i, struct place *out,
                        struct error *error) {
  struct error own = ERROR_INIT;
  char field[48];
  snprintf(field, sizeof field, "features[%zu].layer", i);
  if (call_known_place(call, values_text(values, "modelId", NULL), values_text(values, "layer", NULL), field, out, &own) == 0 &&
      call_check_known(call, out->source, values_int(values, "index"), "index", &own) == 0)
    return 1;
  if (own.code == ERROR_NOT_FOUND) return 0;
  *error = own;
  return -1;
}

static size_t examples_wanted(const struct values *values, const struct values *first) {
  if (values_has(values, "maxActsToReturn")) return (size_t)values_int(values, "maxActsToReturn");
  return values_has(first, "maxActsToReturn") ? (size_t)values_int(first, "maxActsToReturn") : STORE_SLOT_MAX;
}

/* One that is not there is passed over, as features are. */
static int write_vector_of(struct api_call *call, struct json_writer *w, const struct values *values, struct error *error) {
  struct error own = ERROR_INIT;
  struct store_vector vector;
  const struct lab_model_info *model = call_known_model(call, values_text(values, "modelId", NULL), "modelId", &own);
  if (!model && own.code != ERROR_NOT_FOUND) return *error = own, -1;
  int found = model ? vector_find(call, model, values_text(values, "layer", NULL), values_int(values, "index"), &vector, error) : 0;
  if (found == 1) vector_feature_write(w, model, &vector);
  return found < 0 ? -1 : 0;
}

static int write_one_of(struct api_call *call, struct json_writer *w, size_t i, struct reader *reader,
                        struct error *error) {
  const struct values *values = values_at(call->values, "features", i);
  struct place place;
  if (lab_holds_vectors(values_text(values, "layer", NULL))) return write_vector_of(call, w, values, error);
  int found = find_feature(call, values, i, &place, error);
  if (found <= 0) return found;
  if (place.source != reader->place.source && open_reader(call, &place, reader, error) != 0) return -1;
  size_t most = examples_wanted(values, values_at(call->values, "features", 0));
  return write_stored(call, w, reader, (uint32_t)values_int(values, "index"), most, error);
}

int features_post(struct api_call *call, struct error *error) {
  struct reader reader = {0};
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < values_count(call->values, "features"); i++)
    if (write_one_of(call, &w, i, &reader, error) != 0) return -1;
  jw_close(&w, ']');
  return 0;
}

/* The place that a body names. */
static int known_place(struct api_call *call, const char *field, struct place *out, struct error *error) {
  return call_known_place(call, values_text(call->values, "modelId", NULL), values_text(call->values, field, NULL), field, out,
                          error);
}

/* ---- POST /api/features-offset ------------------------------------------------------------------------ */

int features_offset_post(struct api_call *call, struct error *error) {
  struct place place;
  struct reader reader;
  struct store_feature_row *rows = NULL;
  size_t n = 0;
  if (known_place(call, "layer", &place, error) != 0 || open_reader(call, &place, &reader, error) != 0)
    return -1;
  struct store_feature_query query = {.source = reader.number, .order = STORE_BY_INDEX, .alive = true,
                                      .offset = values_int(call->values, "offset"), .limit = OFFSET_PAGE};
  if (reader.store && store_feature_list(reader.store, &query, &call->arena, &rows, &n, NULL, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++)
    if (write_stored(call, &w, &reader, rows[i].index, STORE_SLOT_MAX, error) != 0) return -1;
  jw_close(&w, ']');
  return 0;
}

/* ---- POST /api/activation/get ------------------------------------------------------------------------- */

int activation_get_post(struct api_call *call, struct error *error) {
  struct place place;
  struct reader reader;
  struct store_feature stored;
  int64_t index = values_int(call->values, "index");
  if (known_place(call, "source", &place, error) != 0 || call_check_known(call, place.source, index, "index", error) != 0 ||
      open_reader(call, &place, &reader, error) != 0 ||
      read_stored(&reader, (uint32_t)index, STORE_SLOT_MAX, &call->arena, &stored, error) != 0)
    return -1;
  struct rows_feature row = row_of(&reader, &stored);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < stored.n_examples; i++) rows_activation(&w, &row, &stored.examples[i]);
  jw_close(&w, ']');
  return 0;
}
