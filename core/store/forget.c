/* forget.c: taking away sources, sets and models. Knows no rule about which may go: core/lab/forget.c does. */
#include "core/store/store_int.h"

/* Over what is freed zeros are written (connection.c has it so only where a page is written anyway), and the log, where older
 * pages still lie, is folded in. A reader that still looks at them keeps them a while: the log is overwritten in time. */
static int forget_begin(struct connection *writer, struct error *error) {
  return connection_exec(writer, "PRAGMA secure_delete=ON", error);
}

static int forget_end(struct store *store, struct connection *writer, int result, struct error *error) {
  if (connection_exec(writer, "PRAGMA secure_delete=FAST", NULL) != 0 && result >= 0) result = -1;
  result = store_writer_end(store, writer, result, error);
  if (result >= 0) store_fold(store);
  return result;
}

static int statement_run(struct connection *writer, const char *sql, const char *model, const char *name, struct error *error) {
  struct row row;
  row_open(&row, writer, sql, NULL, error);
  row_put_text(&row, model);
  if (name) row_put_text(&row, name);
  return row_run(&row);
}

static int source_forget(struct connection *writer, int64_t source, struct error *error) {
  struct row row;
  if (features_clear(writer, source, error) != 0 || evaluations_clear(writer, source, error) != 0 ||
      explanations_forget(writer, source_first(source), source_last(source), error) != 0)
    return -1;
  row_open(&row, writer, "DELETE FROM sources WHERE id = ?1", NULL, error);
  row_put_int(&row, source);
  return row_run(&row);
}

/* The index keeps the words of rows that went until it is merged. */
static int words_merge(struct connection *writer, struct error *error) {
  return connection_exec(writer, "INSERT INTO explanation_words(explanation_words) VALUES('optimize')", error);
}

static int forget_all(struct connection *writer, const struct store_forget *what, struct error *error) {
  for (size_t i = 0; i < what->n; i++)
    if (source_forget(writer, what->sources[i], error) != 0) return -1;
  if (what->n && words_merge(writer, error) != 0) return -1;
  if (what->set &&
      statement_run(writer, "DELETE FROM source_sets WHERE model = ?1 AND name = ?2", what->model, what->set, error) != 0)
    return -1;
  if (!what->whole_model) return 0;
  if (statement_run(writer, "DELETE FROM source_sets WHERE model = ?1", what->model, NULL, error) != 0 ||
      statement_run(writer, "DELETE FROM vectors WHERE model = ?1", what->model, NULL, error) != 0 ||
      statement_run(writer, "DELETE FROM subgraphs WHERE graph IN (SELECT id FROM graphs WHERE model = ?1)", what->model, NULL, error) != 0 ||
      statement_run(writer, "DELETE FROM graph_texts WHERE id IN (SELECT id FROM graphs WHERE model = ?1)", what->model, NULL, error) != 0 ||
      statement_run(writer, "DELETE FROM graphs WHERE model = ?1", what->model, NULL, error) != 0)
    return -1;
  return statement_run(writer, "DELETE FROM models WHERE id = ?1", what->model, NULL, error);
}

int store_forget(struct store *store, const struct store_forget *what, struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = forget_begin(writer, error);
  if (result == 0) result = forget_all(writer, what, error);
  return forget_end(store, writer, result, error);
}

/* ---- one feature ------------------------------------------------------------------------------------ */

static int feature_forget(struct connection *writer, int64_t key, struct error *error) {
  if (features_forget(writer, key, key, error) != 0 || explanations_forget(writer, key, key, error) != 0) return -1;
  return words_merge(writer, error) == 0 ? 1 : -1;
}

int store_forget_feature(struct store *store, int64_t source, uint32_t index, struct error *error) {
  struct store_feature old;
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = forget_begin(writer, error);
  if (result == 0) result = feature_read(writer, source, index, 1, &arena, &old, error);
  arena_clear(&arena);
  if (result > 0) result = feature_forget(writer, feature_key(source, index), error);
  return forget_end(store, writer, result, error);
}

/* ---- how large -------------------------------------------------------------------------------------- */

static int64_t pragma_number(struct connection *reader, const char *sql, struct error *error) {
  struct row row;
  int64_t number = -1;
  row_open(&row, reader, sql, NULL, error);
  if (row_next(&row) == 1) number = row_int(&row);
  row_close(&row);
  return row_check(&row) == 0 ? number : -1;
}

int store_bytes(struct store *store, int64_t *bytes, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int64_t pages = pragma_number(reader, "PRAGMA page_count", error), unused = pragma_number(reader, "PRAGMA freelist_count", error);
  int64_t size = pragma_number(reader, "PRAGMA page_size", error);
  *bytes = (pages - unused) * size;
  return store_reader_end(store, reader, pages < 0 || unused < 0 || size < 0 ? -1 : 0);
}
