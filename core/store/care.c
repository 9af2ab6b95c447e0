/* care.c: every row beside its seal, and copies. Knows which tables have seals, and no column but the key's. */
#include "core/store/care.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/store/copy.h"
#include "core/store/migrations.h"
#include "core/store/store_int.h"

#define TELL_EVERY 4096

/* All columns in the order in which they are sealed, the seal last. `keys`: how many of the first name the row. */
static const struct sealed {
  const char *table;
  int keys;
  const char *sql;
} sealed[] = {
    {"models", 1, "SELECT * FROM models"},
    {"sources", 1, "SELECT * FROM sources"},
    {"source_sets", 2, "SELECT * FROM source_sets"},
    {"features", 1, "SELECT * FROM features"},
    {"feature_activity", 1, "SELECT * FROM feature_activity"},
    {"feature_logits", 1, "SELECT * FROM feature_logits"},
    {"feature_moments", 1, "SELECT * FROM feature_moments"},
    {"feature_neighbours", 1, "SELECT * FROM feature_neighbours"},
    {"feature_places", 1, "SELECT * FROM feature_places"},
    {"feature_extra", 1, "SELECT * FROM feature_extra"},
    {"examples", 1, "SELECT * FROM examples"},
    {"explanations", 1, "SELECT * FROM explanations"},
    /* The number is given by the table when the row is sealed already. */
    {"vectors", 3, "SELECT model, source, number, label, point, strength, owner, created_at, numbers, seal FROM vectors"},
    {"lists", 1, "SELECT * FROM lists"},
    {"list_features", 2, "SELECT * FROM list_features"},
    {"graphs", 1, "SELECT * FROM graphs"},
    {"graph_texts", 1, "SELECT * FROM graph_texts"},
    {"subgraphs", 1, "SELECT * FROM subgraphs"},
    {"evaluations", 3, "SELECT * FROM evaluations"},
    {"evaluation_figures", 3, "SELECT * FROM evaluation_figures"},
    {"shares", 1, "SELECT * FROM shares"},
    {"jobs", 1, "SELECT * FROM jobs"},
    {"job_parts", 2, "SELECT * FROM job_parts"},
};
enum { SEALED = sizeof sealed / sizeof *sealed };
_Static_assert(SEALED <= STORE_TABLES_MAX, "one entry of the findings for each table");

/* ---- rows ---- */

static void row_name(struct row *row, const struct sealed *kind, struct store_findings *out) {
  if (out->n_named == STORE_NAMED_MAX) return;
  char *name = out->named[out->n_named++];
  size_t size = sizeof out->named[0], used = (size_t)snprintf(name, size, "%s", kind->table);
  for (int i = 0; i < kind->keys && used < size; i++)
    used += (size_t)snprintf(name + used, size - used, "%s%.40s", i ? "/" : " ", row_shown(row, i));
}

static int rows_look(struct connection *reader, const struct sealed *kind, const struct store_tell *tell, struct store_findings *out,
                     struct error *error) {
  struct row row;
  struct store_table *table = &out->tables[out->n_tables++];
  *table = (struct store_table){.name = kind->table};
  row_open(&row, reader, kind->sql, NULL, error);
  while (row_next(&row) == 1) {
    table->rows++;
    if (!row_sealed(&row) && !row_check(&row)) {
      row_name(&row, kind, out);
      table->damaged++;
    }
    if (table->rows % TELL_EVERY == 0 && store_told(tell, out->rows + table->rows, 0))
      row.failed = error_set(error, ERROR_CANCELLED, "stopped; what was read until then is sound but for what was said") != 0;
  }
  row_close(&row);
  out->rows += table->rows;
  out->damaged += table->damaged;
  return row_check(&row);
}

/* Tables that an older schema has not are left out. */
static int is_there(struct connection *reader, const char *table, bool *there, struct error *error) {
  int64_t n = rows_count(reader, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1", table, error);
  *there = n > 0;
  return n < 0 ? -1 : 0;
}

static int tables_look(struct connection *reader, const struct store_tell *tell, struct store_findings *out, struct error *error) {
  for (int i = 0; i < SEALED; i++) {
    bool there;
    if (is_there(reader, sealed[i].table, &there, error) != 0) return -1;
    if (there && rows_look(reader, &sealed[i], tell, out, error) != 0) return -1;
  }
  return 0;
}

/* ---- the whole ---- */

static int pages_look(struct connection *reader, enum store_check check, struct store_findings *out, struct error *error) {
  int64_t pages = rows_count(reader, "PRAGMA page_count", NULL, error), size = rows_count(reader, "PRAGMA page_size", NULL, error);
  if (pages < 0 || size < 0 || migrations_schema(reader, &out->schema, error) != 0) return -1;
  out->bytes = pages * size;
  if (connection_check(reader, check, error) != 0) return -1;
  return out->schema == migrations_count() ? migrations_verify(reader, error) : 0;
}

int store_look_through(struct store *store, enum store_check check, const struct store_tell *tell, struct store_findings *out,
                       struct error *error) {
  memset(out, 0, sizeof *out);
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int result = pages_look(reader, check, out, error);
  if (result == 0) result = tables_look(reader, tell, out, error);
  return store_reader_end(store, reader, result);
}

int store_copy(struct store *store, const char *path, const struct store_tell *tell, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, copy_pages(reader, path, COPY_REFUSES, tell, error));
}
