/* graphs.c: rows of attribution graphs. Their texts lie in a table of their own, so that lists of graphs do not read them. */
#include "core/store/store_int.h"

#define GRAPH_COLUMNS "id, model, slug, prompt, tokens, source_set, n_nodes, n_links, created_at, seal"

/* ---- reading ---------------------------------------------------------------------------------------- */

static int graph_take(struct row *row, struct store_graph *out) {
  *out = (struct store_graph){0};
  out->id = row_int(row);
  out->model = row_text(row);
  out->slug = row_text(row);
  out->prompt = row_text(row);
  out->tokens = row_text(row);
  out->source_set = row_text(row);
  out->n_nodes = row_int(row);
  out->n_links = row_int(row);
  out->created_at = row_text(row);
  return row_check_seal(row, "a graph");
}

static int graph_by_name(struct connection *connection, const char *model, const char *slug, struct arena *arena, struct store_graph *out,
                         struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " GRAPH_COLUMNS " FROM graphs WHERE model = ?1 AND slug = ?2", arena, error);
  row_put_text(&row, model);
  row_put_text(&row, slug);
  int got = row_next(&row);
  if (got == 1 && graph_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

static int text_read(struct connection *connection, struct arena *arena, struct store_graph *graph, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT id, json, seal FROM graph_texts WHERE id = ?1", arena, error);
  row_put_int(&row, graph->id);
  int got = row_next(&row);
  if (got == 0) row_damaged(&row, "a graph without its text");
  if (got == 1) {
    (void)row_int(&row);
    graph->json = row_blob(&row, &graph->length);
    if (row_check_seal(&row, "the text of a graph") != 0) got = -1;
  }
  row_close(&row);
  return got == 1 ? 1 : -1;
}

int store_graph_find(struct store *store, const char *model, const char *slug, bool json, struct arena *arena, struct store_graph *out,
                     struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int got = graph_by_name(reader, model, slug, arena, out, error);
  if (got == 1 && json) got = text_read(reader, arena, out, error);
  return store_reader_end(store, reader, got);
}

static int graphs_read(struct connection *reader, struct arena *arena, struct store_graph **out, size_t *n, struct error *error) {
  struct row row;
  int64_t count = rows_count(reader, "SELECT count(*) FROM graphs", NULL, error);
  *n = 0;
  if (count < 0 || !(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  row_open(&row, reader, "SELECT " GRAPH_COLUMNS " FROM graphs ORDER BY id", arena, error);
  while (row_next(&row) == 1 && graph_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_graph_all(struct store *store, struct arena *arena, struct store_graph **out, size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, graphs_read(reader, arena, out, n, error));
}

/* ---- writing ---------------------------------------------------------------------------------------- */

static int graph_write(struct connection *writer, const struct store_graph *graph, int64_t id, struct error *error) {
  struct row row;
  char now[25];
  const char *created = time_or_now(NULL, now);
  row_open(&row, writer, "INSERT INTO graphs(" GRAPH_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_text(&row, graph->model);
  row_put_text(&row, graph->slug);
  row_put_text(&row, graph->prompt);
  row_put_text(&row, graph->tokens);
  row_put_text(&row, graph->source_set);
  row_put_int(&row, graph->n_nodes);
  row_put_int(&row, graph->n_links);
  row_put_text(&row, created);
  row_put_seal(&row);
  return row_run(&row);
}

static int text_write(struct connection *writer, const struct store_graph *graph, int64_t id, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT INTO graph_texts(id, json, seal) VALUES(?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_blob(&row, graph->json, graph->length);
  row_put_seal(&row);
  return row_run(&row);
}

static int graph_add(struct connection *writer, const struct store_graph *graph, int64_t *id, struct arena *arena, struct error *error) {
  struct store_graph old;
  int got = graph_by_name(writer, graph->model, graph->slug, arena, &old, error);
  if (got != 0) return got < 0 ? -1 : 0;
  int64_t count = rows_count(writer, "SELECT count(*) FROM graphs", NULL, error);
  if (count >= STORE_GRAPHS_MAX)
    return error_set(error, ERROR_LIMIT, "there are %lld graphs, and there may be %d: delete one first", (long long)count, STORE_GRAPHS_MAX);
  *id = rows_count(writer, "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'graphs'", NULL, error);
  if (count < 0 || *id < 0 || graph_write(writer, graph, *id, error) != 0 || text_write(writer, graph, *id, error) != 0) return -1;
  return 1;
}

int store_graph_new(struct store *store, const struct store_graph *graph, int64_t *id, struct error *error) {
  struct arena arena;
  int64_t number;
  if (graph->length > STORE_GRAPH_BYTES)
    return error_set(error, ERROR_LIMIT, "the graph has %zu MiB, and at most %zu are kept", graph->length >> 20, STORE_GRAPH_BYTES >> 20);
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = graph_add(writer, graph, &number, &arena, error);
  arena_clear(&arena);
  if (result == 1 && id) *id = number;
  return store_writer_end(store, writer, result, error);
}

static int row_delete(struct connection *writer, const char *sql, int64_t id, struct error *error) {
  struct row row;
  row_open(&row, writer, sql, NULL, error);
  row_put_int(&row, id);
  return row_run(&row);
}

int store_graph_delete(struct store *store, const char *model, const char *slug, struct error *error) {
  struct arena arena;
  struct store_graph graph;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = graph_by_name(writer, model, slug, &arena, &graph, error);
  if (result == 1 && (row_delete(writer, "DELETE FROM subgraphs WHERE graph = ?1", graph.id, error) != 0 ||
                      row_delete(writer, "DELETE FROM graph_texts WHERE id = ?1", graph.id, error) != 0 ||
                      row_delete(writer, "DELETE FROM graphs WHERE id = ?1", graph.id, error) != 0))
    result = -1;
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}
