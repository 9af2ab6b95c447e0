/* explanations.c: rows of explanations, kept in step with the index of their words. Searching is in search.c.
 *
 * The word index holds no text of its own: it must be told the old text when a row goes. That is done here by hand,
 * because a trigger would need the schema to be trusted. */
#include "core/store/explanation_row.h"

int explanation_take(struct row *row, struct store_explanation *out) {
  int64_t key;
  *out = (struct store_explanation){0};
  out->id = row_int(row);
  key = row_int(row);
  out->source = key_source(key);
  out->index = key_index(key);
  out->origin = (enum store_origin)row_int(row);
  out->description = row_text(row);
  out->type = row_text(row);
  out->model_name = row_text(row);
  out->author = row_text(row);
  out->notes = row_text(row);
  out->score = row_real(row);
  out->scores = row_text(row);
  out->created_at = row_text(row);
  if (row_check_seal(row, "an explanation") != 0) return -1;
  out->model = row_text(row);
  out->source_name = row_text(row);
  return row_check(row);
}

int explanation_by_id(struct connection *connection, int64_t id, struct arena *arena, struct store_explanation *out,
                      struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " EXPLANATION_COLUMNS EXPLANATION_FROM " WHERE e.id = ?1", arena, error);
  row_put_int(&row, id);
  int got = row_next(&row);
  if (got == 1 && explanation_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

int store_explanation_find(struct store *store, int64_t id, struct arena *arena, struct store_explanation *out,
                           struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, explanation_by_id(reader, id, arena, out, error));
}

/* ---- writing ---------------------------------------------------------------------------------------- */

/* Takes a row and its words away. */
static int explanation_remove(struct connection *writer, int64_t id, const char *description, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT INTO explanation_words(explanation_words, rowid, description)"
           " VALUES('delete', ?1, ?2)", NULL, error);
  row_put_int(&row, id);
  row_put_text(&row, description);
  if (row_run(&row) != 0) return -1;
  row_open(&row, writer, "DELETE FROM explanations WHERE id = ?1", NULL, error);
  row_put_int(&row, id);
  return row_run(&row);
}

/* Removes what the statement finds by (first, last, type, model_name), one after the other. The statement gives the
 * first by feature, so that the next look begins where this one ended and not among rows that stay. */
static int explanations_remove(struct connection *writer, const char *sql, int64_t first, int64_t last,
                               const struct store_explanation *like, struct error *error) {
  struct arena arena;
  int got;
  arena_init(&arena, 0);
  do {
    struct row row;
    int64_t id = 0;
    const char *description = NULL;
    row_open(&row, writer, sql, &arena, error);
    row_put_int(&row, first);
    row_put_int(&row, last);
    row_put_text(&row, like ? like->type : NULL);
    row_put_text(&row, like ? like->model_name : NULL);
    if ((got = row_next(&row)) == 1) {
      id = row_int(&row);
      first = row_int(&row);
      description = row_text(&row);
    }
    row_close(&row);
    if (row_check(&row) != 0) got = -1;
    if (got == 1 && explanation_remove(writer, id, description, error) != 0) got = -1;
    arena_clear(&arena);
  } while (got == 1);
  return got;
}

int explanations_clear(struct connection *writer, int64_t source, struct error *error) {
  return explanations_remove(writer, "SELECT id, feature, description FROM explanations WHERE feature BETWEEN ?1"
                             " AND ?2 AND origin = 0 AND ?3 IS NULL AND ?4 IS NULL ORDER BY feature LIMIT 1",
                             source_first(source), source_last(source), NULL, error);
}

int explanations_forget(struct connection *writer, int64_t first, int64_t last, struct error *error) {
  return explanations_remove(writer, "SELECT id, feature, description FROM explanations WHERE feature BETWEEN ?1 AND ?2"
                             " AND ?3 IS NULL AND ?4 IS NULL ORDER BY feature LIMIT 1", first, last, NULL, error);
}

/* A number that this source has never given to an explanation; -1. */
static int64_t serial_next(struct connection *writer, int64_t source, struct error *error) {
  struct row row;
  int64_t serial = 0;
  row_open(&row, writer, "INSERT INTO explanation_serials(source, serial) VALUES(?1, 1)"
           " ON CONFLICT DO UPDATE SET serial = serial + 1 RETURNING serial", NULL, error);
  row_put_int(&row, source);
  if (row_next(&row) == 1) serial = row_int(&row);
  int rest = row.failed ? -1 : row_next(&row); /* to the end, or the update is not finished */
  row_close(&row);
  if (rest != 0) return -1;
  if (serial <= 0 || serial > UINT32_MAX)
    return error_set(error, ERROR_LIMIT, "the source has had as many explanations as the store can count");
  return serial;
}

static int explanation_write(struct connection *writer, int64_t id, const struct store_explanation *explanation,
                             struct error *error) {
  struct row row;
  char now[25];
  row_open(&row, writer, "INSERT INTO explanations(id, feature, origin, description, type, model_name, author, notes,"
           " score, scores, created_at, seal) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_int(&row, feature_key(explanation->source, explanation->index));
  row_put_int(&row, explanation->origin);
  row_put_text(&row, explanation->description);
  row_put_text(&row, explanation->type);
  row_put_text(&row, explanation->model_name);
  row_put_text(&row, explanation->author);
  row_put_text(&row, explanation->notes);
  row_put_real(&row, explanation->score);
  row_put_text(&row, explanation->scores);
  row_put_text(&row, time_or_now(explanation->created_at, now));
  row_put_seal(&row);
  if (row_run(&row) != 0) return -1;
  row_open(&row, writer, "INSERT INTO explanation_words(rowid, description) VALUES(?1, ?2)", NULL, error);
  row_put_int(&row, id);
  row_put_text(&row, explanation->description);
  return row_run(&row);
}

int explanation_insert(struct connection *writer, const struct store_explanation *explanation, int64_t *id,
                       struct error *error) {
  int64_t key = feature_key(explanation->source, explanation->index);
  if (!explanation->description) return error_set(error, ERROR_ARGUMENT, "an explanation needs a description");
  if ((unsigned)explanation->origin > STORE_MANUAL)
    return error_set(error, ERROR_ARGUMENT, "an explanation is automatic, imported or manual");
  if (explanation->origin == STORE_AUTOMATIC &&
      explanations_remove(writer, "SELECT id, feature, description FROM explanations WHERE feature BETWEEN ?1 AND ?2"
                          " AND origin = 0 AND type IS ?3 AND model_name IS ?4 ORDER BY feature LIMIT 1", key, key,
                          explanation, error) != 0)
    return -1;
  int64_t serial = serial_next(writer, explanation->source, error);
  if (serial < 0) return -1;
  int64_t number = source_first(explanation->source) | serial;
  if (id) *id = number;
  return explanation_write(writer, number, explanation, error);
}

int store_explanation_put(struct store *store, const struct store_explanation *explanation, int64_t *id,
                          struct error *error) {
  int64_t number = 0;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = source_require(writer, explanation->source, error);
  if (result == 0) result = explanation_insert(writer, explanation, &number, error);
  result = store_writer_end(store, writer, result, error);
  if (result == 0 && id) *id = number;
  return result;
}

int store_explanation_delete(struct store *store, int64_t id, struct error *error) {
  struct store_explanation old;
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int got = explanation_by_id(writer, id, &arena, &old, error);
  if (got == 1 && explanation_remove(writer, id, old.description, error) != 0) got = -1;
  arena_clear(&arena);
  return store_writer_end(store, writer, got, error);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static int64_t feature_explanations(struct connection *reader, int64_t key, struct error *error) {
  struct row row;
  int64_t count = 0;
  row_open(&row, reader, "SELECT count(*) FROM explanations WHERE feature = ?1", NULL, error);
  row_put_int(&row, key);
  if (row_next(&row) == 1) count = row_int(&row);
  row_close(&row);
  return row.failed ? -1 : count;
}

int explanations_of(struct connection *reader, int64_t source, uint32_t index, struct arena *arena,
                    const struct store_explanation **out, size_t *n, struct error *error) {
  struct row row;
  int64_t key = feature_key(source, index), count = feature_explanations(reader, key, error);
  *n = 0;
  if (count < 0) return -1;
  struct store_explanation *rows = arena_array(arena, (size_t)count, sizeof *rows, error);
  if (!rows) return -1;
  row_open(&row, reader, "SELECT " EXPLANATION_COLUMNS EXPLANATION_FROM " WHERE e.feature = ?1"
           " ORDER BY e.origin DESC, e.score DESC, e.id", arena, error);
  row_put_int(&row, key);
  while (row_next(&row) == 1 && explanation_take(&row, rows + *n) == 0) ++*n;
  row_close(&row);
  *out = rows;
  return row_check(&row);
}

int explanation_best(struct connection *reader, int64_t feature, struct arena *arena, struct store_explanation *out, struct error *error) {
  struct row row;
  row_open(&row, reader, "SELECT " EXPLANATION_COLUMNS EXPLANATION_FROM " WHERE e.feature = ?1"
           " ORDER BY e.origin DESC, e.score DESC, e.id LIMIT 1", arena, error);
  row_put_int(&row, feature);
  int got = row_next(&row);
  if (got == 1 && explanation_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

static int best_read(struct connection *reader, const struct store_feature_at *feature, struct arena *arena, const char **out,
                     struct error *error) {
  struct store_explanation best;
  int got = explanation_best(reader, feature_key(feature->source, feature->index), arena, &best, error);
  if (got == 1) *out = best.description;
  return got < 0 ? -1 : 0;
}

int store_explanation_best(struct store *store, const struct store_feature_at *features, size_t n, struct arena *arena, const char **out,
                           struct error *error) {
  struct connection *reader = store_reader(store, error);
  int failed = reader ? 0 : -1;
  for (size_t i = 0; i < n; i++) out[i] = NULL;
  for (size_t i = 0; i < n && !failed; i++)
    if (features[i].source) failed = best_read(reader, &features[i], arena, &out[i], error);
  return reader ? store_reader_end(store, reader, failed) : -1;
}

/* ?1, ?2: the features asked for; ?3: the model, or NULL. */
#define EACH_WHERE " WHERE e.feature BETWEEN ?1 AND ?2 AND (?3 IS NULL OR s.model = ?3)"

static void each_put(struct row *row, const struct store_explanation_query *query) {
  row_put_int(row, query->source ? source_first(query->source) : 0);
  row_put_int(row, query->source ? source_last(query->source) : INT64_MAX);
  row_put_text(row, query->model);
}

static int each_read(struct connection *reader, const struct store_explanation_query *query,
                     store_explanation_row visit, void *context, struct error *error) {
  struct row row;
  struct store_explanation one;
  int stop = 0;
  row_open(&row, reader, "SELECT " EXPLANATION_COLUMNS EXPLANATION_FROM EACH_WHERE
           " ORDER BY e.feature, e.origin DESC, e.score DESC, e.id LIMIT ?4 OFFSET ?5", NULL, error);
  each_put(&row, query);
  row_put_int(&row, query->limit);
  row_put_int(&row, query->offset);
  while (!stop && row_next(&row) == 1 && explanation_take(&row, &one) == 0) stop = visit(context, &one, error);
  row_close(&row);
  return stop ? -1 : row_check(&row);
}

int store_explanation_each(struct store *store, const struct store_explanation_query *query,
                           store_explanation_row row, void *context, struct error *error) {
  if (query->offset < 0 || query->limit < -1)
    return error_set(error, ERROR_ARGUMENT, "a page of explanations has an offset of 0 or more and a limit of 0 or "
                     "more");
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, each_read(reader, query, row, context, error));
}

int store_explanation_count(struct store *store, const struct store_explanation_query *query, int64_t *count,
                            struct error *error) {
  struct row row;
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  row_open(&row, reader, "SELECT count(*)" EXPLANATION_FROM EACH_WHERE, NULL, error);
  each_put(&row, query);
  if (row_next(&row) == 1) *count = row_int(&row);
  row_close(&row);
  return store_reader_end(store, reader, row_check(&row));
}
