/* maps.c: rows of feature_places. */
#include "core/store/store_int.h"

int place_put(struct connection *writer, int64_t feature, const struct store_place *place, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO feature_places(id, x, y, cluster, sparsity, seal) VALUES(?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, feature);
  row_put_real(&row, place->x);
  row_put_real(&row, place->y);
  row_put_real(&row, place->cluster);
  row_put_real(&row, place->sparsity);
  row_put_seal(&row);
  return row_run(&row);
}

void place_take(struct row *row, struct store_place *out) {
  out->x = row_real(row);
  out->y = row_real(row);
  out->cluster = row_real(row);
  out->sparsity = row_real(row);
}

static int map_write(struct connection *writer, int64_t source, const struct store_place *places, size_t n, struct error *error) {
  struct row row;
  if (source_require(writer, source, error) != 0) return -1;
  row_open(&row, writer, "DELETE FROM feature_places WHERE id BETWEEN ?1 AND ?2", NULL, error);
  row_put_int(&row, source_first(source));
  row_put_int(&row, source_last(source));
  if (row_run(&row) != 0) return -1;
  for (size_t i = 0; i < n; i++)
    if (place_put(writer, feature_key(source, (uint32_t)i), &places[i], error) != 0) return -1;
  return 0;
}

int store_map_put(struct store *store, int64_t source, const struct store_place *places, size_t n, struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  return store_writer_end(store, writer, map_write(writer, source, places, n, error), error);
}

/* What a counting statement over a range of features gives; -1. */
static int64_t count_rows(struct connection *reader, const char *sql, int64_t source, struct error *error) {
  struct row row;
  int64_t count = 0;
  row_open(&row, reader, sql, NULL, error);
  row_put_int(&row, source_first(source));
  row_put_int(&row, source_last(source));
  if (row_next(&row) == 1) count = row_int(&row);
  row_close(&row);
  return row_check(&row) == 0 ? count : -1;
}

int store_map_there(struct store *store, int64_t source, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int64_t there = count_rows(reader, "SELECT EXISTS(SELECT 1 FROM feature_places WHERE id BETWEEN ?1 AND ?2)", source, error);
  return store_reader_end(store, reader, (int)there);
}

#define ROWS                                                                                              \
  " FROM feature_places p LEFT JOIN features f ON f.id = p.id LEFT JOIN explanations e ON e.feature = p.id" \
  " WHERE p.id BETWEEN ?1 AND ?2"

static int row_take(struct row *row, struct store_map_row *out) {
  out->index = key_index(row_int(row));
  place_take(row, &out->place);
  if (row_check_seal(row, "the place of a feature") != 0) return -1;
  out->rate = row_real(row);
  out->description = row_text(row);
  return row_check(row);
}

static int list(struct connection *reader, int64_t source, struct arena *arena, struct store_map_row **out, size_t *n,
                struct error *error) {
  struct row row;
  *n = 0;
  int64_t most = count_rows(reader, "SELECT count(*)" ROWS, source, error);
  if (most < 0 || !(*out = arena_array(arena, (size_t)most, sizeof **out, error))) return -1;
  row_open(&row, reader, "SELECT p.id, p.x, p.y, p.cluster, p.sparsity, p.seal, f.rate, e.description" ROWS
           " ORDER BY p.id, e.origin DESC, e.score DESC, e.id", arena, error);
  row_put_int(&row, source_first(source));
  row_put_int(&row, source_last(source));
  while (*n < (size_t)most && row_next(&row) == 1 && row_take(&row, &(*out)[*n]) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_map_list(struct store *store, int64_t source, struct arena *arena, struct store_map_row **out, size_t *n,
                   struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, list(reader, source, arena, out, n, error));
}
