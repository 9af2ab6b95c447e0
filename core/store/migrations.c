/* migrations.c: the schema. Every table, with the meaning and the packed form of its columns; docs/store.md tells the
 * same as a tour.
 *
 * Packed columns are little-endian: f32[] and u32[] are words side by side, text[] is a LEB128 length and the bytes of
 * each. `seal` is the hash over the columns before it (row.c). Times are ISO 8601 UTC text. Keys: store_int.h. */
#include "core/store/migrations.h"

#include <stdio.h>
#include <string.h>

static const char schema_1[] =
    "CREATE TABLE models("
    "  id TEXT PRIMARY KEY, display_name TEXT, layers INTEGER, dimension INTEGER, neurons_per_layer INTEGER,"
    "  owner TEXT, website TEXT, default_source TEXT, identity TEXT, created_at TEXT, seal INTEGER) WITHOUT ROWID;"

    /* One row per dictionary; from n_tokens on: how its statistics were made. */
    "CREATE TABLE sources("
    "  id INTEGER PRIMARY KEY, model TEXT NOT NULL, name TEXT NOT NULL, set_name TEXT, layer INTEGER, point TEXT,"
    "  kind TEXT, n_features INTEGER, identity TEXT, config TEXT, description TEXT, url TEXT, created_at TEXT,"
    "  n_tokens INTEGER, n_documents INTEGER, context INTEGER, bos_counted INTEGER, folded INTEGER, lines INTEGER,"
    "  logit_convention TEXT, corpus TEXT, corpus_hash TEXT, made_at TEXT, seal INTEGER, UNIQUE(model, name));"

    /* The numbers of a feature, narrow so that lists and densities read little. id: source << 32 | index. */
    "CREATE TABLE features("
    "  id INTEGER PRIMARY KEY, n_fired INTEGER, rate REAL, mean REAL, maximum REAL, seal INTEGER);"

    /* Histogram of activations > 0: heights f32[], bar positions f32[]. */
    "CREATE TABLE feature_activity(id INTEGER PRIMARY KEY, heights BLOB, positions BLOB, seal INTEGER);"

    /* Decoder row through the unembedding: tokens text[] and values f32[], histogram as above. */
    "CREATE TABLE feature_logits("
    "  id INTEGER PRIMARY KEY, top_tokens BLOB, top_values BLOB, bottom_tokens BLOB, bottom_values BLOB,"
    "  heights BLOB, positions BLOB, seal INTEGER);"

    /* Nearest decoder rows: indices u32[], cosines f32[]. */
    "CREATE TABLE feature_neighbours(id INTEGER PRIMARY KEY, indices BLOB, cosines BLOB, seal INTEGER);"

    /* Fields of an imported feature that have no column: a JSON object. */
    "CREATE TABLE feature_extra(id INTEGER PRIMARY KEY, extra TEXT, seal INTEGER);"

    /* id: feature << 12 | slot. tokens text[], activations f32[] of the same length. */
    "CREATE TABLE examples("
    "  id INTEGER PRIMARY KEY, tokens BLOB, activations BLOB, max_value REAL, max_index INTEGER, min_value REAL,"
    "  bin_min REAL, bin_max REAL, bin_contains REAL, qualifying INTEGER, document INTEGER, position INTEGER,"
    "  data_index TEXT, extra TEXT, seal INTEGER);"

    /* id: source << 32 | serial; origin 0 automatic, 1 imported, 2 manual. */
    "CREATE TABLE explanations("
    "  id INTEGER PRIMARY KEY, feature INTEGER NOT NULL, origin INTEGER NOT NULL, description TEXT NOT NULL,"
    "  type TEXT, model_name TEXT, author TEXT, notes TEXT, score REAL, scores TEXT, created_at TEXT,"
    "  seal INTEGER);"
    "CREATE INDEX explanations_best ON explanations(feature, origin DESC, score DESC, id);"
    "CREATE TABLE explanation_serials(source INTEGER PRIMARY KEY, serial INTEGER NOT NULL);"
    "CREATE VIRTUAL TABLE explanation_words USING fts5("
    "  description, content='explanations', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2');"

    /* numbers f32[]. */
    "CREATE TABLE vectors("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, source TEXT NOT NULL, number INTEGER NOT NULL,"
    "  label TEXT, point TEXT, strength REAL, owner TEXT, created_at TEXT, numbers BLOB, seal INTEGER,"
    "  UNIQUE(model, source, number));"

    "CREATE TABLE shares("
    "  id TEXT PRIMARY KEY, kind TEXT, model TEXT, request TEXT, reply TEXT, created_at TEXT, seal INTEGER);"

    /* state 0 queued, 1 running, 2 done, 3 failed, 4 cancelled. */
    "CREATE TABLE jobs("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, state INTEGER NOT NULL, done INTEGER,"
    "  total INTEGER, unit TEXT, message TEXT, parameters TEXT, result TEXT, error TEXT, cancel INTEGER,"
    "  created_at TEXT, started_at TEXT, updated_at TEXT, finished_at TEXT, seal INTEGER);"
    "CREATE TABLE job_parts("
    "  job INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB, seal INTEGER, PRIMARY KEY(job, part));";

/* Sorted pages of a source without sorting it. maximum stands in each, so that features that never fire are left out
 * without looking at their rows. */
static const char schema_2[] =
    "CREATE INDEX features_by_rate ON features(id >> 32, rate DESC, id, maximum);"
    "CREATE INDEX features_by_maximum ON features(id >> 32, maximum DESC, id);"
    "CREATE INDEX features_by_mean ON features(id >> 32, mean DESC, id, maximum);";

/* How well dictionaries did over texts; below_N: features that fire at less than 10^-N of the positions. */
static const char schema_3[] =
    "CREATE TABLE evaluations("
    "  source INTEGER NOT NULL, corpus_hash TEXT NOT NULL, ends INTEGER NOT NULL, corpus TEXT, lines INTEGER,"
    "  n_documents INTEGER, n_tokens INTEGER, n_features INTEGER, l0 REAL, mse REAL, explained REAL,"
    "  n_predicted INTEGER, ce_raw REAL, ce_spliced REAL, ce_error REAL, ce_zero REAL, n_dead INTEGER,"
    "  below_1 INTEGER, below_2 INTEGER, below_3 INTEGER, below_4 INTEGER, made_at TEXT, seal INTEGER,"
    "  PRIMARY KEY(source, corpus_hash, ends)) WITHOUT ROWID;";

/* The logits of a feature as a whole (core/analysis/logit_shape.h). */
static const char schema_4[] =
    "CREATE TABLE feature_moments("
    "  id INTEGER PRIMARY KEY, mean REAL, std REAL, skewness REAL, kurtosis REAL, seal INTEGER);";

/* What clients make: sets of sources that were registered by name, and lists of features. place: the order in a list. */
static const char schema_5[] =
    "CREATE TABLE source_sets("
    "  model TEXT NOT NULL, name TEXT NOT NULL, description TEXT, url TEXT, owner TEXT, created_at TEXT, seal INTEGER,"
    "  PRIMARY KEY(model, name)) WITHOUT ROWID;"
    "CREATE TABLE lists("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, description TEXT, test_text TEXT, owner TEXT,"
    "  created_at TEXT, updated_at TEXT, seal INTEGER);"
    "CREATE TABLE list_features("
    "  list INTEGER NOT NULL, place INTEGER NOT NULL, model TEXT NOT NULL, source TEXT NOT NULL, number INTEGER NOT NULL,"
    "  description TEXT, created_at TEXT, seal INTEGER, PRIMARY KEY(list, place),"
    "  UNIQUE(list, model, source, number)) WITHOUT ROWID;";

/* Attribution graphs. Their texts may be megabytes, which those who list them do not want. */
static const char schema_6[] =
    "CREATE TABLE graphs("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, slug TEXT NOT NULL, prompt TEXT NOT NULL, tokens TEXT NOT NULL,"
    "  source_set TEXT, n_nodes INTEGER, n_links INTEGER, created_at TEXT, seal INTEGER, UNIQUE(model, slug));"
    "CREATE TABLE graph_texts(id INTEGER PRIMARY KEY, json BLOB NOT NULL, seal INTEGER);";

/* The lists that a feature is in. */
static const char schema_7[] = "CREATE INDEX list_features_by_feature ON list_features(model, source, number);";

/* Maps: where a feature is, in the plane that shows its source. */
static const char schema_8[] =
    "CREATE TABLE feature_places("
    "  id INTEGER PRIMARY KEY, x REAL, y REAL, cluster REAL, sparsity REAL, seal INTEGER);";

/* What is pinned and grouped in a graph. */
static const char schema_9[] =
    "CREATE TABLE subgraphs("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT, graph INTEGER NOT NULL, name TEXT, choices TEXT NOT NULL, created_at TEXT, updated_at TEXT, seal INTEGER);"
    "CREATE INDEX subgraphs_by_graph ON subgraphs(graph);";

/* Further figures of evaluations. A table of its own: the seal of a row covers its columns, so that a row cannot grow. */
static const char schema_10[] =
    "CREATE TABLE evaluation_figures("
    "  source INTEGER NOT NULL, corpus_hash TEXT NOT NULL, ends INTEGER NOT NULL, cosine REAL, l2_ratio REAL, bias REAL,"
    "  kl_spliced REAL, kl_zero REAL, seal INTEGER, PRIMARY KEY(source, corpus_hash, ends)) WITHOUT ROWID;";

static const char *const steps[] = {schema_1, schema_2, schema_3, schema_4, schema_5, schema_6, schema_7, schema_8, schema_9, schema_10};

int migrations_count(void) { return (int)(sizeof steps / sizeof *steps); }

int migrations_schema(struct connection *connection, int *schema, struct error *error) {
  struct row row;
  row_open(&row, connection, "PRAGMA user_version", NULL, error);
  if (row_next(&row) == 1) *schema = (int)row_int(&row);
  row_close(&row);
  return row_check(&row);
}

static int step_run(struct connection *writer, int step, struct error *error) {
  char number[48];
  snprintf(number, sizeof number, "PRAGMA user_version=%d; COMMIT", step + 1);
  if (connection_exec(writer, "BEGIN IMMEDIATE", error) == 0 && connection_exec(writer, steps[step], error) == 0 &&
      connection_exec(writer, number, error) == 0)
    return 0;
  bool there = (sqlite3_errcode(writer->db) & 0xff) == SQLITE_ERROR; /* "table ... already exists", which is all that a step can meet */
  if (!sqlite3_get_autocommit(writer->db)) sqlite3_exec(writer->db, "ROLLBACK", NULL, NULL, NULL);
  if (!there) return error_prefix(error, "bringing the store to schema %d", step + 1);
  error_clear(error);
  return error_set(error, ERROR_FORMAT, "store '%s' says that it has schema %d, but its tables are not those of schema %d: bringing it to schema %d "
                   "(this steerd knows up to %d) was undone; restore it from a copy, or use another file", writer->name, step, step, step + 1,
                   migrations_count());
}

/* Number 0 is that of an empty file: the first step puts its number and its tables in at once. Whose the tables are then, nobody knows. */
static int nobodys(struct connection *writer, struct error *error) {
  struct row row;
  int64_t entries = 0;
  row_open(&row, writer, "SELECT count(*) FROM sqlite_schema", NULL, error);
  if (row_next(&row) == 1) entries = row_int(&row);
  row_close(&row);
  if (row_check(&row) != 0) return -1;
  if (entries == 0) return 0;
  return error_set(error, ERROR_FORMAT, "'%s' has steerd's mark and schema 0, but tables already: it is not a steerd store; name another file for the "
                   "store", writer->name);
}

int migrations_run(struct connection *writer, int target, struct error *error) {
  int schema = 0;
  if (migrations_schema(writer, &schema, error) != 0 || (schema == 0 && nobodys(writer, error) != 0)) return -1;
  if (schema < 0 || schema > migrations_count())
    return error_set(error, ERROR_FORMAT, "store '%s' has schema %d, and this steerd knows up to %d: update steerd, "
                     "or use another file", writer->name, schema, migrations_count());
  for (int step = schema; step < target; step++)
    if (step_run(writer, step, error) != 0) return -1;
  return 0;
}

/* Whether the connection has this entry of sqlite_schema, with the same text. */
static int entry_verify(struct connection *connection, const char *type, const char *name, const char *sql,
                        struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT count(*) FROM sqlite_schema WHERE type = ?1 AND name = ?2 AND sql IS ?3", NULL,
           error);
  row_put_text(&row, type);
  row_put_text(&row, name);
  row_put_text(&row, sql);
  if (row_next(&row) == 1 && row_int(&row) != 1) {
    row.failed = true;
    error_set(error, ERROR_FORMAT, "store '%s' says that it has schema %d, but its %s '%s' is missing or another: restore it from a copy, "
              "or use another file", connection->name, migrations_count(), type, name);
  }
  row_close(&row);
  return row_check(&row);
}

int migrations_verify(struct connection *connection, struct error *error) {
  struct row row = {0};
  struct connection *fresh = connection_open(":memory:", connection->name, CONNECTION_MEMORY, error);
  if (!fresh) return -1;
  int result = migrations_run(fresh, migrations_count(), error);
  if (result != 0) goto out;
  row_open(&row, fresh, "SELECT type, name, sql FROM sqlite_schema", NULL, error);
  while (result == 0 && row_next(&row) == 1) {
    const char *type = row_text(&row), *name = row_text(&row);
    result = entry_verify(connection, type, name, row_text(&row), error);
  }
  if (row_check(&row) != 0) result = -1;
out:
  row_close(&row);
  connection_close(fresh);
  return result;
}
