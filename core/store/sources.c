/* sources.c: rows of models and sources. */
#include "core/store/store_int.h"

#define MODEL_COLUMNS \
  "id, display_name, layers, dimension, neurons_per_layer, owner, website, default_source, identity, created_at, seal"

#define SOURCE_COLUMNS \
  "id, model, name, set_name, layer, point, kind, n_features, identity, config, description, url, created_at," \
  "n_tokens, n_documents, context, bos_counted, folded, lines, logit_convention, corpus, corpus_hash, made_at, seal"

/* ---- models ----------------------------------------------------------------------------------------- */

static int model_take(struct row *row, struct store_model *out) {
  *out = (struct store_model){0};
  out->id = row_text(row);
  out->display_name = row_text(row);
  out->layers = row_int(row);
  out->dimension = row_int(row);
  out->neurons_per_layer = row_int(row);
  out->owner = row_text(row);
  out->website = row_text(row);
  out->default_source = row_text(row);
  out->identity = row_text(row);
  out->created_at = row_text(row);
  return row_check_seal(row, "a model's entry");
}

int model_by_id(struct connection *connection, const char *id, struct arena *arena, struct store_model *out,
                      struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " MODEL_COLUMNS " FROM models WHERE id = ?1", arena, error);
  row_put_text(&row, id);
  int got = row_next(&row);
  if (got == 1 && model_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

int model_row_write(struct connection *writer, const struct store_model *model, const char *created,
                       struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO models(" MODEL_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?)", NULL,
           error);
  row_put_text(&row, model->id);
  row_put_text(&row, model->display_name);
  row_put_int(&row, model->layers);
  row_put_int(&row, model->dimension);
  row_put_int(&row, model->neurons_per_layer);
  row_put_text(&row, model->owner);
  row_put_text(&row, model->website);
  row_put_text(&row, model->default_source);
  row_put_text(&row, model->identity);
  row_put_text(&row, created);
  row_put_seal(&row);
  return row_run(&row);
}

int store_model_put(struct store *store, const struct store_model *model, struct error *error) {
  char now[25];
  struct store_model old;
  struct arena arena;
  if (!model->id || !*model->id) return error_set(error, ERROR_ARGUMENT, "a model needs an id");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int got = model_by_id(writer, model->id, &arena, &old, error);
  const char *created = time_or_now(got == 1 ? old.created_at : model->created_at, now);
  if (got >= 0) got = model_row_write(writer, model, created, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, got, error);
}

int store_model_find(struct store *store, const char *id, struct arena *arena, struct store_model *out,
                     struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, model_by_id(reader, id, arena, out, error));
}

int64_t rows_count(struct connection *reader, const char *sql, const char *parameter, struct error *error) {
  struct row row;
  int64_t count = 0;
  row_open(&row, reader, sql, NULL, error);
  if (parameter) row_put_text(&row, parameter); /* one that is not bound is NULL */
  if (row_next(&row) == 1) count = row_int(&row);
  row_close(&row);
  return row.failed ? -1 : count;
}

static int models_read(struct connection *reader, struct arena *arena, struct store_model **out, size_t *n,
                       struct error *error) {
  struct row row;
  int64_t count = rows_count(reader, "SELECT count(*) FROM models", NULL, error);
  if (count < 0 || !(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  *n = 0;
  row_open(&row, reader, "SELECT " MODEL_COLUMNS " FROM models ORDER BY id", arena, error);
  while (row_next(&row) == 1 && model_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_model_list(struct store *store, struct arena *arena, struct store_model **out, size_t *n,
                     struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, models_read(reader, arena, out, n, error));
}

/* ---- sources ---------------------------------------------------------------------------------------- */

static void statistics_take(struct row *row, struct store_statistics *out) {
  out->n_tokens = row_int(row);
  out->n_documents = row_int(row);
  out->context = row_int(row);
  out->bos_counted = row_int(row) != 0;
  out->folded = row_int(row) != 0;
  out->lines = row_int(row) != 0;
  out->logit_convention = row_text(row);
  out->corpus = row_text(row);
  out->corpus_hash = row_text(row);
  out->made_at = row_text(row);
}

static int source_take(struct row *row, struct store_source *out) {
  *out = (struct store_source){0};
  out->id = row_int(row);
  out->model = row_text(row);
  out->name = row_text(row);
  out->set = row_text(row);
  out->layer = row_int(row);
  out->point = row_text(row);
  out->kind = row_text(row);
  out->n_features = row_int(row);
  out->identity = row_text(row);
  out->config = row_text(row);
  out->description = row_text(row);
  out->url = row_text(row);
  out->created_at = row_text(row);
  statistics_take(row, &out->statistics);
  return row_check_seal(row, "a source's entry");
}

int source_by_name(struct connection *connection, const char *model, const char *name, struct arena *arena,
                          struct store_source *out, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " SOURCE_COLUMNS " FROM sources WHERE model = ?1 AND name = ?2", arena, error);
  row_put_text(&row, model);
  row_put_text(&row, name);
  int got = row_next(&row);
  if (got == 1 && source_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

int source_by_number(struct connection *connection, int64_t id, struct arena *arena, struct store_source *out,
                            struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " SOURCE_COLUMNS " FROM sources WHERE id = ?1", arena, error);
  row_put_int(&row, id);
  int got = row_next(&row);
  if (got == 1 && source_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

static void statistics_put(struct row *row, const struct store_statistics *statistics) {
  row_put_int(row, statistics->n_tokens);
  row_put_int(row, statistics->n_documents);
  row_put_int(row, statistics->context);
  row_put_int(row, statistics->bos_counted);
  row_put_int(row, statistics->folded);
  row_put_int(row, statistics->lines);
  row_put_text(row, statistics->logit_convention);
  row_put_text(row, statistics->corpus);
  row_put_text(row, statistics->corpus_hash);
  row_put_text(row, statistics->made_at);
}

int source_write(struct connection *writer, const struct store_source *source, int64_t id, const char *created,
                        struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO sources(" SOURCE_COLUMNS
           ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_text(&row, source->model);
  row_put_text(&row, source->name);
  row_put_text(&row, source->set);
  row_put_int(&row, source->layer);
  row_put_text(&row, source->point);
  row_put_text(&row, source->kind);
  row_put_int(&row, source->n_features);
  row_put_text(&row, source->identity);
  row_put_text(&row, source->config);
  row_put_text(&row, source->description);
  row_put_text(&row, source->url);
  row_put_text(&row, created);
  statistics_put(&row, &source->statistics);
  row_put_seal(&row);
  return row_run(&row);
}

int64_t source_number(struct connection *writer, struct error *error) {
  int64_t last = rows_count(writer, "SELECT coalesce(max(id), 0) FROM sources", NULL, error);
  if (last >= STORE_SOURCE_MAX)
    return error_set(error, ERROR_LIMIT, "the store holds %lld sources, which is as many as it can",
                     (long long)STORE_SOURCE_MAX);
  return last < 0 ? -1 : last + 1;
}

int store_source_put(struct store *store, const struct store_source *source, int64_t *id, struct error *error) {
  char now[25];
  struct store_source old = {0};
  struct arena arena;
  if (!source->model || !*source->model || !source->name || !*source->name)
    return error_set(error, ERROR_ARGUMENT, "a source needs a model and a name");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int got = source_by_name(writer, source->model, source->name, &arena, &old, error);
  int64_t number = got == 1 ? old.id : got == 0 ? source_number(writer, error) : -1;
  if (number < 0) got = -1;
  const char *created = time_or_now(got == 1 ? old.created_at : source->created_at, now);
  if (got >= 0) got = source_write(writer, source, number, created, error);
  arena_clear(&arena);
  got = store_writer_end(store, writer, got, error);
  if (got == 0 && id) *id = number;
  return got;
}

int store_source_find(struct store *store, const char *model, const char *name, struct arena *arena,
                      struct store_source *out, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, source_by_name(reader, model, name, arena, out, error));
}

int store_source_at(struct store *store, int64_t id, struct arena *arena, struct store_source *out,
                    struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, source_by_number(reader, id, arena, out, error));
}

#define ALL_SOURCES " FROM sources WHERE (?1 IS NULL OR model = ?1)"
#define NAMED_SOURCES ALL_SOURCES " AND identity IS NULL"
#define SOURCE_ORDER " ORDER BY model, layer, name"

static int sources_read(struct connection *reader, const char *model, bool named, struct arena *arena,
                        struct store_source **out, size_t *n, struct error *error) {
  struct row row;
  int64_t count = named ? rows_count(reader, "SELECT count(*)" NAMED_SOURCES, model, error)
                        : rows_count(reader, "SELECT count(*)" ALL_SOURCES, model, error);
  if (count < 0 || !(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  *n = 0;
  row_open(&row, reader, named ? "SELECT " SOURCE_COLUMNS NAMED_SOURCES SOURCE_ORDER
                               : "SELECT " SOURCE_COLUMNS ALL_SOURCES SOURCE_ORDER, arena, error);
  row_put_text(&row, model);
  while (row_next(&row) == 1 && source_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_source_list(struct store *store, const char *model, struct arena *arena, struct store_source **out,
                      size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, sources_read(reader, model, false, arena, out, n, error));
}

int store_source_list_named(struct store *store, const char *model, struct arena *arena, struct store_source **out,
                            size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, sources_read(reader, model, true, arena, out, n, error));
}

int source_require(struct connection *connection, int64_t source, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT 1 FROM sources WHERE id = ?1", NULL, error);
  row_put_int(&row, source);
  int got = row_next(&row);
  row_close(&row);
  if (got == 0)
    return error_set(error, ERROR_NOT_FOUND, "the store knows no source with the number %lld", (long long)source);
  return got == 1 ? 0 : -1;
}

/* ---- forgetting ------------------------------------------------------------------------------------- */

static int range_delete(struct connection *writer, const char *sql, int64_t first, int64_t last,
                        struct error *error) {
  struct row row;
  row_open(&row, writer, sql, NULL, error);
  row_put_int(&row, first);
  row_put_int(&row, last);
  return row_run(&row);
}

int features_forget(struct connection *writer, int64_t first, int64_t last, struct error *error) {
  static const char *const tables[] = {
      "DELETE FROM features WHERE id BETWEEN ?1 AND ?2",
      "DELETE FROM feature_activity WHERE id BETWEEN ?1 AND ?2",
      "DELETE FROM feature_logits WHERE id BETWEEN ?1 AND ?2",
      "DELETE FROM feature_moments WHERE id BETWEEN ?1 AND ?2",
      "DELETE FROM feature_neighbours WHERE id BETWEEN ?1 AND ?2",
      "DELETE FROM feature_places WHERE id BETWEEN ?1 AND ?2",
      "DELETE FROM feature_extra WHERE id BETWEEN ?1 AND ?2",
  };
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    if (range_delete(writer, tables[i], first, last, error) != 0) return -1;
  return range_delete(writer, "DELETE FROM examples WHERE id BETWEEN ?1 << 12 AND (?2 << 12) + 4095", first, last,
                      error);
}

int features_clear(struct connection *writer, int64_t source, struct error *error) {
  return features_forget(writer, source_first(source), source_last(source), error);
}

int store_source_clear(struct store *store, int64_t source, struct error *error) {
  struct store_source row;
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = source_require(writer, source, error);
  if (result == 0 && source_by_number(writer, source, &arena, &row, error) != 1) result = -1;
  if (result == 0) {
    row.statistics = (struct store_statistics){0};
    result = source_write(writer, &row, source, row.created_at, error);
  }
  if (result == 0) result = features_clear(writer, source, error);
  if (result == 0) result = evaluations_clear(writer, source, error);
  if (result == 0) result = explanations_clear(writer, source, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}
