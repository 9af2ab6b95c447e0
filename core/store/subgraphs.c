/* subgraphs.c: rows of subgraphs. */
#include <string.h>

#include "core/store/store_int.h"

#define SUBGRAPH_COLUMNS "id, graph, name, choices, created_at, updated_at, seal"

/* ---- reading ---------------------------------------------------------------------------------------- */

static int subgraph_take(struct row *row, struct store_subgraph *out) {
  *out = (struct store_subgraph){0};
  out->id = row_int(row);
  out->graph = row_int(row);
  out->name = row_text(row);
  out->choices = row_text(row);
  out->created_at = row_text(row);
  out->updated_at = row_text(row);
  return row_check_seal(row, "a subgraph");
}

/* Rows that have `number` as the parameter of a query. */
static int64_t count_of(struct connection *connection, const char *sql, int64_t number, struct error *error) {
  struct row row;
  int64_t count = -1;
  row_open(&row, connection, sql, NULL, error);
  row_put_int(&row, number);
  if (row_next(&row) == 1) count = row_int(&row);
  row_close(&row);
  return row_check(&row) == 0 ? count : -1;
}

static int subgraphs_read(struct connection *reader, int64_t graph, struct arena *arena, struct store_subgraph **out, size_t *n, struct error *error) {
  struct row row;
  int64_t count = count_of(reader, "SELECT count(*) FROM subgraphs WHERE graph = ?1", graph, error);
  *n = 0;
  if (count < 0 || !(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  row_open(&row, reader, "SELECT " SUBGRAPH_COLUMNS " FROM subgraphs WHERE graph = ?1 ORDER BY id DESC", arena, error);
  row_put_int(&row, graph);
  while (*n < (size_t)count && row_next(&row) == 1 && subgraph_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_subgraphs_of(struct store *store, int64_t graph, struct arena *arena, struct store_subgraph **out, size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, subgraphs_read(reader, graph, arena, out, n, error));
}

static int subgraph_by_id(struct connection *connection, int64_t id, struct arena *arena, struct store_subgraph *out, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " SUBGRAPH_COLUMNS " FROM subgraphs WHERE id = ?1", arena, error);
  row_put_int(&row, id);
  int got = row_next(&row);
  if (got == 1 && subgraph_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

static int check_size(const struct store_subgraph *subgraph, struct error *error) {
  if (strlen(subgraph->choices) <= STORE_SUBGRAPH_BYTES) return 0;
  return error_set(error, ERROR_LIMIT, "the subgraph has %zu bytes, and at most %zu MiB are kept", strlen(subgraph->choices), STORE_SUBGRAPH_BYTES >> 20);
}

static int subgraph_write(struct connection *writer, const struct store_subgraph *subgraph, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO subgraphs(" SUBGRAPH_COLUMNS ") VALUES(?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, subgraph->id);
  row_put_int(&row, subgraph->graph);
  row_put_text(&row, subgraph->name);
  row_put_text(&row, subgraph->choices);
  row_put_text(&row, subgraph->created_at);
  row_put_text(&row, subgraph->updated_at);
  row_put_seal(&row);
  return row_run(&row);
}

static int subgraph_add(struct connection *writer, const struct store_subgraph *given, int64_t *id, struct error *error) {
  struct store_subgraph subgraph = *given;
  char now[25];
  int64_t graphs = count_of(writer, "SELECT count(*) FROM graphs WHERE id = ?1", given->graph, error);
  if (graphs < 0) return -1;
  if (graphs == 0) return error_set(error, ERROR_NOT_FOUND, "the graph was deleted");
  int64_t count = count_of(writer, "SELECT count(*) FROM subgraphs WHERE graph = ?1", given->graph, error);
  if (count >= STORE_SUBGRAPHS_MAX)
    return error_set(error, ERROR_LIMIT, "the graph has %lld subgraphs, and may have %d: delete one first", (long long)count, STORE_SUBGRAPHS_MAX);
  *id = rows_count(writer, "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'subgraphs'", NULL, error);
  if (count < 0 || *id < 0) return -1;
  subgraph.id = *id;
  subgraph.created_at = subgraph.updated_at = time_or_now(NULL, now);
  return subgraph_write(writer, &subgraph, error);
}

int store_subgraph_new(struct store *store, const struct store_subgraph *subgraph, int64_t *id, struct error *error) {
  if (check_size(subgraph, error) != 0) return -1;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  return store_writer_end(store, writer, subgraph_add(writer, subgraph, id, error), error);
}

static int subgraph_change(struct connection *writer, const struct store_subgraph *given, struct arena *arena, struct error *error) {
  struct store_subgraph subgraph;
  char now[25];
  int got = subgraph_by_id(writer, given->id, arena, &subgraph, error);
  if (got != 1) return got;
  if (subgraph.graph != given->graph) return 0;
  subgraph.choices = given->choices;
  subgraph.updated_at = time_or_now(NULL, now);
  return subgraph_write(writer, &subgraph, error) == 0 ? 1 : -1;
}

int store_subgraph_update(struct store *store, const struct store_subgraph *subgraph, struct error *error) {
  struct arena arena;
  if (check_size(subgraph, error) != 0) return -1;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = subgraph_change(writer, subgraph, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}

int store_subgraph_delete(struct store *store, int64_t id, struct error *error) {
  struct row row;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  row_open(&row, writer, "DELETE FROM subgraphs WHERE id = ?1", NULL, error);
  row_put_int(&row, id);
  int result = row_run(&row);
  if (result == 0) result = sqlite3_changes(writer->db) > 0;
  return store_writer_end(store, writer, result, error);
}
