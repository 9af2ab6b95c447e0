/* explanations.c: explanations one by one and whole: export, one by its number, new, delete.
 *
 * The export is unbounded, so it goes out in pages of rows; each page is one short read of the store, because a read
 * that waited for a slow client would keep the store's log from shrinking. */
#include <math.h>
#include <string.h>

#include "api/explanation_search.h"
#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"
#include "core/base/number.h"
#include "core/base/unicode.h"

#define EXPORT_SOURCE_ROW                                                                                    \
  {"saeId", "source layer sourceId", FIELD_SOURCE, .text = "The source, such as \"7-res-jb\"; left out: all of " \
                                                           "the model's."}
#define LIMIT_ROW(text_) {"limit", NULL, FIELD_INT, .min = 1, .max = 1e9, .text = text_}

enum { EXPORT_ROWS = 500, SEARCH_ROWS = 20, SEARCH_MOST = 1000 }; /* a piece of the export is some 100 KB */

const struct field explanation_export_fields[] = {MODEL_ROW, EXPORT_SOURCE_ROW, OFFSET_ROW("How many rows to pass over."),
                                                  LIMIT_ROW("Rows at most; left out: all."), {.name = NULL}};

const struct field explanations_fields[] = {
    MODEL_ROW, EXPORT_SOURCE_ROW,
    {"q", "query", FIELD_TEXT, .min = 1, .max = 256,
     .text = "Words to search for, all of which must occur; the last may be the beginning of one. Left out: export."},
    OFFSET_ROW("How many rows to pass over."),
    LIMIT_ROW("Rows at most; left out: all, or 20 of a search, which gives 1000 at most."), {.name = NULL}};

const struct field explanation_new_fields[] = {
    MODEL_ROW,
    SOURCE_ROW("layer", "source"), INDEX_ROW,
    {"description", "explanation", FIELD_TEXT, .required = true, .min = 1, .max = 4096, .text = "What the feature means."},
    {"typeName", "methodName", FIELD_TEXT, .min = 1, .max = 128, .text = "The method it was found by."},
    {"explanationModelName", "modelName", FIELD_TEXT, .min = 1, .max = 128, .text = "Who or what wrote it."},
    {"authorId", "author", FIELD_TEXT, .min = 1, .max = 128, .text = "The person."},
    {"notes", NULL, FIELD_TEXT, .max = 4096, .text = "Anything else."},
    {"score", NULL, FIELD_NUMBER, .min = -1e6, .max = 1e6, .text = "How good it is; the largest comes first."},
    {"origin", NULL, FIELD_CHOICE, .fallback = "manual", .choices = "manual imported",
     .text = "Manual explanations come before imported, imported before automatic ones."},
    {.name = NULL}};

/* ---- export ------------------------------------------------------------------------------------------- */

struct export_plan {
  struct store_explanation_query query; /* of the next piece */
  int64_t left;                         /* rows still wanted */
  struct json_writer writer;            /* keeps the comma between pieces */
  int64_t rows;                         /* written in this piece */
};

static int write_row(void *context, const struct store_explanation *row, struct error *error) {
  (void)error;
  struct export_plan *plan = context;
  jw_open(&plan->writer, '{');
  rows_explanation_members(&plan->writer, row);
  jw_close(&plan->writer, '}');
  plan->rows++;
  return 0;
}

static int export_piece(struct api_call *call, struct buffer *out, struct error *error) {
  struct export_plan *plan = call->plan;
  plan->writer.out = out;
  plan->rows = 0;
  plan->query.limit = plan->left < EXPORT_ROWS ? plan->left : EXPORT_ROWS;
  if (plan->left > 0 && store_explanation_each(lab_store(call->api->lab), &plan->query, write_row, plan, error) != 0)
    return -1;
  plan->query.offset += plan->rows;
  plan->left -= plan->rows;
  if (plan->left > 0 && plan->rows == plan->query.limit) return 0;
  jw_close(&plan->writer, ']');
  call->ended = true;
  return 0;
}

/* What is asked for: a source, or all of a model. */
static int read_query(struct api_call *call, struct store_explanation_query *out, struct error *error) {
  struct place place;
  bool one = values_has(call->values, "saeId");
  const char *model = values_text(call->values, "modelId", NULL);
  int result = one ? call_known_place(call, model, values_text(call->values, "saeId", NULL), "saeId", &place, error) : 0;
  if (!one) place.model = call_known_model(call, model, "modelId", error);
  if (result != 0 || !place.model) return -1;
  *out = (struct store_explanation_query){.model = place.model->id, .offset = values_int(call->values, "offset")};
  if (one) out->source = lab_store_source(call->api->lab, place.source);
  return 0;
}

static int write_empty(struct api_call *call) {
  buffer_text(&call->body, "[]");
  return 0;
}

int explanation_export_get(struct api_call *call, struct error *error) {
  struct export_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  struct store *store = lab_store(call->api->lab);
  if (!plan || read_query(call, &plan->query, error) != 0) return -1;
  struct page page = {.offset = plan->query.offset, .limit = -1};
  if (values_has(call->values, "limit")) page.limit = values_int(call->values, "limit");
  if (store && store_explanation_count(store, &plan->query, &page.total, error) != 0) return -1;
  if (call_add_page(call, &page, error) != 0) return -1;
  if (!store) return write_empty(call);
  plan->left = page.limit > 0 ? page.limit : INT64_MAX;
  call->plan = plan;
  jw_init(&plan->writer, &call->body);
  jw_open(&plan->writer, '[');
  if (export_piece(call, &call->body, error) != 0) return -1;
  call->stream = !call->ended; /* what one piece holds goes out whole */
  call->pull = export_piece;
  return 0;
}

/* ---- search, as a flat list --------------------------------------------------------------------------- */

static void write_hits(struct api_call *call, const struct store_hit *hits, size_t n) {
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) {
    jw_open(&w, '{');
    rows_explanation_members(&w, &hits[i].explanation);
    search_hit_members(&w, &hits[i]);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
}

int explanations_get(struct api_call *call, struct error *error) {
  if (!values_has(call->values, "q")) return explanation_export_get(call, error);
  struct store_explanation_query where;
  struct store_search search = {.prefix = true, .limit = SEARCH_ROWS};
  if (read_query(call, &where, error) != 0) return -1;
  search.query = values_text(call->values, "q", &search.query_length);
  search.model = where.model;
  search.offset = where.offset;
  if (where.source) search.sources = &where.source, search.n_sources = 1;
  if (values_has(call->values, "limit")) search.limit = values_int(call->values, "limit");
  if (search.limit > SEARCH_MOST) search.limit = SEARCH_MOST;
  struct page page = {.offset = search.offset, .limit = search.limit, .total = -1};
  struct store_hit *hits;
  size_t n;
  if (search_run(call, &search, "q", &hits, &n, &page.more, error) != 0 || call_add_page(call, &page, error) != 0)
    return -1;
  write_hits(call, hits, n);
  return 0;
}

/* ---- one ---------------------------------------------------------------------------------------------- */

static int refuse_number(const char *text, struct error *error) {
  return error_set_field(error, ERROR_NOT_FOUND, "id", "there is no explanation '%.32s'", text);
}

/* The {id} of the path, 0 when it is no number. */
static int64_t path_number(const char *text) {
  int64_t number;
  return text[strspn(text, "0123456789")] == '\0' && number_parse_int(text, &number) ? number : 0;
}

static int write_one(struct api_call *call, int64_t id, const char *text, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  struct store_explanation row;
  int found = store && id ? store_explanation_find(store, id, &call->arena, &row, error) : 0;
  if (found < 0) return -1;
  if (found == 0) return refuse_number(text, error);
  struct json_writer w;
  jw_init(&w, &call->body);
  rows_explanation(&w, &row, row.model, row.source_name);
  return 0;
}

int explanation_get(struct api_call *call, struct error *error) {
  const char *text = call_part(call, "id", error);
  return text ? write_one(call, path_number(text), text, error) : -1;
}

/* White space alone would rank before what is known of the feature, and show nothing. */
static int check_description(const struct values *values, struct error *error) {
  size_t length;
  const char *text = values_text(values, "description", &length);
  if (unicode_space_prefix(text, length) < length) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "description", "'description' is nothing but white space; say what the feature means");
}

int explanation_new_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct place place;
  int64_t index = values_int(values, "index"), id;
  if (call_known_place(call, values_text(values, "modelId", NULL), values_text(values, "layer", NULL), "layer", &place, error) != 0 ||
      call_check_known(call, place.source, index, "index", error) != 0 || check_description(values, error) != 0)
    return -1;
  if (call_may_add(call, error) != 0) return -1;
  struct store *store = lab_store(call->api->lab);
  bool manual = strcmp(values_text(values, "origin", NULL), "manual") == 0;
  struct store_explanation row = {.source = lab_store_source(call->api->lab, place.source), .index = (uint32_t)index,
                                  .origin = manual ? STORE_MANUAL : STORE_IMPORTED,
                                  .description = values_text(values, "description", NULL),
                                  .type = values_text(values, "typeName", NULL),
                                  .model_name = values_text(values, "explanationModelName", NULL),
                                  .author = values_text(values, "authorId", NULL),
                                  .notes = values_text(values, "notes", NULL), .score = NAN};
  if (values_has(values, "score")) row.score = values_number(values, "score");
  if (store_explanation_put(store, &row, &id, error) != 0) return -1;
  return write_one(call, id, "", error);
}

int explanation_delete_post(struct api_call *call, struct error *error) {
  const char *text = call_part(call, "id", error);
  if (!text) return -1;
  struct store *store = lab_store(call->api->lab);
  if (!store) return lab_needs_store(error);
  int deleted = path_number(text) ? store_explanation_delete(store, path_number(text), error) : 0;
  if (deleted < 0) return -1;
  return deleted ? reply_success(call) : refuse_number(text, error);
}
