/* connection.h: one SQLite connection with its prepared statements, and a cursor over one statement. Private to the
 * room.
 *
 * A connection is used by one thread at a time. */
#ifndef STEERD_CORE_STORE_CONNECTION_H
#define STEERD_CORE_STORE_CONNECTION_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/error.h"
#include "core/store/store.h"

#define STATEMENTS_MAX 160

struct connection {
  sqlite3 *db;
  const char *name; /* the store as its user named it; borrowed */
  struct {
    const char *sql; /* the literal itself is the key */
    sqlite3_stmt *statement;
  } statements[STATEMENTS_MAX];
  int n_statements;
  bool io_failed;      /* a call failed because of the disk since this was last cleared */
  bool starved;        /* a call found no memory: see store_writer */
  int64_t deadline_ns; /* of the running statement; 0: none */
  int64_t data_version; /* SQLite's, when store_generation last asked this connection */
  struct connection *next;
};

enum connection_kind { CONNECTION_WRITER, CONNECTION_READER, CONNECTION_MEMORY };

/* Opens `file` with every guard set: defensive, no trusted schema, no extensions, no mmap, no checkpoint when it is
 * closed (connection_own changes that). NULL on failure. */
struct connection *connection_open(const char *file, const char *name, enum connection_kind kind,
                                   struct error *error) MUST_CHECK;
void connection_close(struct connection *connection); /* NULL is fine */

/* 0 when what SQLite checks is sound, else ERROR_STORE with its first finding. */
int connection_check(struct connection *connection, enum store_check check, struct error *error) MUST_CHECK;


/* The writer may fold the log into the file from now on: everything about it has been checked. */
void connection_own(struct connection *connection);

/* Runs statements that return nothing of interest. */
int connection_exec(struct connection *connection, const char *sql, struct error *error) MUST_CHECK;

/* The error of result code rc of the last call; always -1. */
int connection_fail(struct connection *connection, int rc, struct error *error);

/* Statements started until the next call fail with ERROR_TIMEOUT after that many milliseconds; 0: no limit. */
void connection_limit(struct connection *connection, int64_t milliseconds);

/* A cursor over one statement. Parameters are put, and columns taken, from left to right; both go into `seal`, so
 * that a row put as (a, b, c, seal) can be taken as (a, b, c) and its seal compared. The first failure is kept (error
 * set, `failed`) and later calls do nothing, so that it is checked once, in row_run, row_next or row_check. */
struct row {
  struct connection *connection;
  sqlite3_stmt *statement;
  struct arena *arena; /* where taken texts and blobs are copied to; NULL: borrowed until the next step */
  struct error *error;
  int column;
  uint64_t seal;
  bool failed;
};

/* sql must be a literal: its address names the prepared statement. A row that is open must be closed before the same
 * statement is opened again on its connection. */
void row_open(struct row *row, struct connection *connection, const char *sql, struct arena *arena,
              struct error *error);
void row_close(struct row *row);

void row_put_int(struct row *row, int64_t value);
void row_put_real(struct row *row, double value); /* NaN is stored as NULL */
void row_put_text(struct row *row, const char *text);
void row_put_pointer(struct row *row, void *pointer, const char *kind); /* for a function of ours; not sealed */
void row_put_blob(struct row *row, const void *data, size_t bytes); /* data must live until the row is stepped */
void row_put_words(struct row *row, const void *words, size_t n);   /* n 32-bit words, little-endian */
void row_put_texts(struct row *row, const struct store_text *texts, size_t n);
void row_put_seal(struct row *row);

int row_run(struct row *row) MUST_CHECK;  /* steps to the end and closes: 0 or -1 */
int row_next(struct row *row) MUST_CHECK; /* 1: a row; 0: no more; -1 */

int64_t row_int(struct row *row);
double row_real(struct row *row); /* NaN for NULL */
const char *row_text(struct row *row);
const void *row_blob(struct row *row, size_t *bytes);
const void *row_words(struct row *row, size_t *n);
const struct store_text *row_texts(struct row *row, size_t *n);

/* Compares the seal that stands in the next column. 0, or -1: this or an earlier step on the row failed. */
int row_check_seal(struct row *row, const char *what) MUST_CHECK;
int row_check(struct row *row) MUST_CHECK; /* without a seal */

/* Takes all columns of a row whose last is its seal, whatever they are: whether it is the seal over the others. */
bool row_sealed(struct row *row);

/* Column `column` as text, for people; not taken, and borrowed until the next step. "" for NULL. */
const char *row_shown(const struct row *row, int column);

/* Fails the row as damaged. */
void row_damaged(struct row *row, const char *what);

#endif
