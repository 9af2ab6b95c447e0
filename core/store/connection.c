/* connection.c: how a connection is set up, what SQLite's result codes mean to a reader, and the cache of prepared
 * statements. Knows no table. */
#include "core/store/connection.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/store/ranking.h"

#define BUSY_MS 2000            /* a foreign program (the sqlite3 shell) may hold the file for a moment */
#define PROGRESS_STEPS 2000     /* virtual machine steps between two looks at the clock: about 20 us */
#define CACHE_KIB "16384"

static int out_of_memory(struct connection *connection, struct error *error) {
  connection->starved = true;
  return error_set(error, ERROR_MEMORY, "store '%s': out of memory", connection->name);
}

/* What the system refused, and what lets it agree. Nothing of the write is kept, and what was there can be read. */
static int disk_refused(struct connection *connection, int rc, struct error *error) {
  const char *why = "its disk failed, or a limit on the size of files (ulimit -f) was met: mend that and try again";
  connection->io_failed = true;
  switch (rc & 0xff) {
  case SQLITE_FULL: why = "its disk is full: free some space and try again"; break;
  case SQLITE_CANTOPEN: why = "its files cannot be opened: allow writing to its folder, and more open files (ulimit -n)"; break;
  case SQLITE_READONLY: why = "it is read-only: allow writing to the file and its folder and try again"; break;
  default: break;
  }
  return error_set(error, ERROR_STORAGE, "store '%s': %s", connection->name, why);
}

int connection_fail(struct connection *connection, int rc, struct error *error) {
  const char *name = connection->name, *reason = sqlite3_errstr(rc);
  switch (rc & 0xff) {
  case SQLITE_IOERR:
    if (rc == SQLITE_IOERR_NOMEM) return out_of_memory(connection, error);
    /* fall through */
  case SQLITE_FULL:
  case SQLITE_READONLY:
  case SQLITE_CANTOPEN: return disk_refused(connection, rc, error);
  case SQLITE_NOMEM: return out_of_memory(connection, error);
  case SQLITE_TOOBIG: return error_set(error, ERROR_LIMIT, "store '%s': a value is too large to be kept", name);
  case SQLITE_INTERRUPT: return error_set(error, ERROR_TIMEOUT, "the search took too long: use rarer words");
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    return error_set(error, ERROR_BUSY, "store '%s' is locked by another program: close it and try again", name);
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
    return error_set(error, ERROR_STORE, "store '%s' is damaged: restore it from a copy or begin a new one", name);
  default: return error_set(error, ERROR_STORE, "store '%s': %s", name, reason);
  }
}

int connection_exec(struct connection *connection, const char *sql, struct error *error) {
  int rc = sqlite3_exec(connection->db, sql, NULL, NULL, NULL);
  return rc == SQLITE_OK ? 0 : connection_fail(connection, rc, error);
}

static int past_deadline(void *context) {
  const struct connection *connection = context;
  return clock_ns() > connection->deadline_ns;
}

void connection_limit(struct connection *connection, int64_t milliseconds) {
  connection->deadline_ns = 0;
  sqlite3_progress_handler(connection->db, 0, NULL, NULL);
  if (milliseconds <= 0 || milliseconds > INT64_MAX / 2000000) return;
  connection->deadline_ns = clock_ns() + milliseconds * 1000000;
  sqlite3_progress_handler(connection->db, PROGRESS_STEPS, past_deadline, connection);
}

/* What a file might try on us, and what clients might, is switched off before the first statement. */
static void connection_harden(sqlite3 *db) {
  static const struct {
    int option, value;
  } options[] = {
      {SQLITE_DBCONFIG_DEFENSIVE, 1},          {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
      {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0}, {SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0},
      {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},     {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
      {SQLITE_DBCONFIG_DQS_DML, 0},            {SQLITE_DBCONFIG_DQS_DDL, 0},
      {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1},
  };
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    sqlite3_db_config(db, options[i].option, options[i].value, NULL);
  sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
}

/* Readers never checkpoint: two connections that do it at once could corrupt the log in SQLite before 3.51.3. */
static const char *const connection_setup[] = {
    [CONNECTION_WRITER] = "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY;"
                          "PRAGMA synchronous=FULL; PRAGMA secure_delete=FAST; PRAGMA wal_autocheckpoint=1000; PRAGMA cache_size=-" CACHE_KIB,
    [CONNECTION_READER] = "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY;"
                          "PRAGMA query_only=ON; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-" CACHE_KIB,
    [CONNECTION_MEMORY] = "PRAGMA temp_store=MEMORY",
};

struct connection *connection_open(const char *file, const char *name, enum connection_kind kind,
                                   struct error *error) {
  struct connection *connection = calloc(1, sizeof *connection);
  if (!connection) return error_memory(error, sizeof *connection), NULL;
  connection->name = name;
  int rc = sqlite3_open_v2(file, &connection->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
  if (rc != SQLITE_OK) {
    connection_fail(connection, rc, error);
    goto fail;
  }
  sqlite3_extended_result_codes(connection->db, 1);
  sqlite3_busy_timeout(connection->db, BUSY_MS);
  connection_harden(connection->db);
  if (connection_exec(connection, connection_setup[kind], error) != 0) goto fail;
  if (kind == CONNECTION_READER && (rc = ranking_install(connection->db)) != SQLITE_OK) {
    connection_fail(connection, rc, error);
    goto fail;
  }
  return connection;
fail:
  connection_close(connection);
  return NULL;
}

void connection_close(struct connection *connection) {
  if (!connection) return;
  for (int i = 0; i < connection->n_statements; i++) sqlite3_finalize(connection->statements[i].statement);
  sqlite3_close(connection->db);
  free(connection);
}

void connection_own(struct connection *connection) {
  sqlite3_db_config(connection->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
}

/* ---- checking --------------------------------------------------------------------------------------- */

/* What SQLite found, of which the first line only names the database. */
static int damage_found(const struct connection *connection, const char *finding, struct error *error) {
  const char *line = strchr(finding, '\n');
  line = line ? line + 1 : finding;
  return error_set(error, ERROR_STORE, "store '%s' is damaged (%.*s): restore it from a copy or begin a new one",
                   connection->name, (int)strcspn(line, "\n"), line);
}

int connection_check(struct connection *connection, enum store_check check, struct error *error) {
  struct row row;
  if (check == STORE_CHECK_NONE) return 0;
  row_open(&row, connection,
           check == STORE_CHECK_FULL ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)", NULL, error);
  if (row_next(&row) == 1) {
    const char *finding = row_text(&row);
    if (finding && strcmp(finding, "ok") != 0) row.failed = damage_found(connection, finding, error) != 0;
  }
  row_close(&row);
  return row_check(&row);
}
