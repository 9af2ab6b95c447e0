/* row.c: binding and reading rows, the packed forms of arrays, and the seal over a row. Knows no table.
 *
 * Packed forms (all little-endian): numbers are 32-bit words without a header; a list of texts is, for each, its
 * length as a LEB128 number and its bytes. */
#include "core/store/connection.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are stored as they lie in memory");

/* ---- the seal --------------------------------------------------------------------------------------- */

#define SEAL_BEGIN UINT64_C(0x9e3779b97f4a7c15)
#define SEAL_FACTOR UINT64_C(0xff51afd7ed558ccd)

/* Both steps can be undone, so two rows that differ in a single word never have the same seal. */
static uint64_t seal_word(uint64_t seal, uint64_t word) {
  seal = (seal ^ word) * SEAL_FACTOR;
  return seal ^ seal >> 32;
}

static uint64_t seal_bytes(uint64_t seal, const void *data, size_t bytes) {
  const unsigned char *at = data;
  uint64_t word;
  seal = seal_word(seal, bytes);
  for (; bytes >= 8; at += 8, bytes -= 8) {
    memcpy(&word, at, 8);
    seal = seal_word(seal, word);
  }
  if (!bytes) return seal;
  word = 0;
  memcpy(&word, at, bytes);
  return seal_word(seal, word);
}

#define SEAL_NULL UINT64_C(0x6e756c6c)

static uint64_t seal_real(uint64_t seal, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return seal_word(seal, bits);
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static void row_fail(struct row *row, int rc) {
  if (!row->failed) connection_fail(row->connection, rc, row->error);
  row->failed = true;
}

static sqlite3_stmt *statement_find(struct connection *connection, const char *sql, int *rc) {
  for (int i = 0; i < connection->n_statements; i++)
    if (connection->statements[i].sql == sql) return connection->statements[i].statement;
  *rc = SQLITE_MISUSE; /* more statements than the room has: our own mistake */
  if (connection->n_statements == STATEMENTS_MAX) return NULL;
  sqlite3_stmt *statement = NULL;
  *rc = sqlite3_prepare_v3(connection->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL);
  if (*rc != SQLITE_OK) return NULL;
  connection->statements[connection->n_statements].sql = sql;
  connection->statements[connection->n_statements++].statement = statement;
  return statement;
}

void row_open(struct row *row, struct connection *connection, const char *sql, struct arena *arena,
              struct error *error) {
  int rc = SQLITE_OK;
  *row = (struct row){.connection = connection, .arena = arena, .error = error, .seal = SEAL_BEGIN};
  row->statement = statement_find(connection, sql, &rc);
  if (!row->statement) row_fail(row, rc);
}

void row_close(struct row *row) {
  if (!row->statement) return;
  sqlite3_reset(row->statement);
  sqlite3_clear_bindings(row->statement);
  row->statement = NULL;
}

/* ---- putting ---------------------------------------------------------------------------------------- */

static void row_bound(struct row *row, int rc) {
  if (rc != SQLITE_OK) row_fail(row, rc);
}

static void row_put_null(struct row *row) {
  row->seal = seal_word(row->seal, SEAL_NULL);
  row_bound(row, sqlite3_bind_null(row->statement, ++row->column));
}

void row_put_int(struct row *row, int64_t value) {
  if (row->failed) return;
  row->seal = seal_word(row->seal, (uint64_t)value);
  row_bound(row, sqlite3_bind_int64(row->statement, ++row->column, value));
}

void row_put_real(struct row *row, double value) {
  if (row->failed) return;
  if (isnan(value)) {
    row_put_null(row);
    return;
  }
  if (value == 0) value = 0; /* SQLite keeps whole reals as integers, which have no -0 */
  row->seal = seal_real(row->seal, value);
  row_bound(row, sqlite3_bind_double(row->statement, ++row->column, value));
}

void row_put_pointer(struct row *row, void *pointer, const char *kind) {
  if (!row->failed) row_bound(row, sqlite3_bind_pointer(row->statement, ++row->column, pointer, kind, NULL));
}

void row_put_text(struct row *row, const char *text) {
  if (row->failed) return;
  if (!text) {
    row_put_null(row);
    return;
  }
  size_t length = strlen(text);
  row->seal = seal_bytes(row->seal, text, length);
  row_bound(row, sqlite3_bind_text64(row->statement, ++row->column, text, length, SQLITE_STATIC, SQLITE_UTF8));
}

void row_put_blob(struct row *row, const void *data, size_t bytes) {
  if (row->failed) return;
  row->seal = seal_bytes(row->seal, data, bytes);
  row_bound(row, sqlite3_bind_blob64(row->statement, ++row->column, bytes ? data : "", bytes, SQLITE_STATIC));
}

void row_put_words(struct row *row, const void *words, size_t n) {
  size_t bytes;
  if (row->failed) return;
  if (!checked_mul(n, 4, &bytes)) {
    row_fail(row, SQLITE_TOOBIG);
    return;
  }
  row_put_blob(row, words, bytes);
}

static size_t length_put(unsigned char *out, size_t length) {
  size_t n = 0;
  for (; length >= 0x80; length >>= 7) out[n++] = (unsigned char)(length | 0x80);
  out[n++] = (unsigned char)length;
  return n;
}

#define LENGTH_BYTES 10 /* of a LEB128 number of 64 bits at most */

void row_put_texts(struct row *row, const struct store_text *texts, size_t n) {
  if (row->failed) return;
  size_t bytes = 1, used = 0;
  for (size_t i = 0; i < n; i++)
    if (!checked_add(bytes, LENGTH_BYTES, &bytes) || !checked_add(bytes, texts[i].length, &bytes)) {
      row_fail(row, SQLITE_TOOBIG);
      return;
    }
  unsigned char *packed = malloc(bytes);
  if (!packed) {
    row_fail(row, SQLITE_NOMEM);
    return;
  }
  for (size_t i = 0; i < n; i++) {
    used += length_put(packed + used, texts[i].length);
    if (texts[i].length) memcpy(packed + used, texts[i].text, texts[i].length);
    used += texts[i].length;
  }
  row->seal = seal_bytes(row->seal, packed, used);
  row_bound(row, sqlite3_bind_blob64(row->statement, ++row->column, packed, used, free));
}

void row_put_seal(struct row *row) {
  if (row->failed) return;
  row_bound(row, sqlite3_bind_int64(row->statement, ++row->column, (int64_t)row->seal));
}

/* ---- stepping --------------------------------------------------------------------------------------- */

int row_next(struct row *row) {
  if (row->failed) return -1;
  int rc = sqlite3_step(row->statement);
  row->column = 0;
  row->seal = SEAL_BEGIN;
  if (rc == SQLITE_ROW) return 1;
  if (rc == SQLITE_DONE) return 0;
  row_fail(row, rc);
  return -1;
}

int row_run(struct row *row) {
  int got;
  while ((got = row_next(row)) == 1) {
  }
  row_close(row);
  return got;
}

/* ---- taking ----------------------------------------------------------------------------------------- */

void row_damaged(struct row *row, const char *what) {
  if (!row->failed)
    error_set(row->error, ERROR_STORE, "store '%s': %s is damaged: restore the file from a copy, or make it again",
              row->connection->name, what);
  row->failed = true;
}

static bool row_is_null(struct row *row) {
  if (sqlite3_column_type(row->statement, row->column) != SQLITE_NULL) return false;
  row->seal = seal_word(row->seal, SEAL_NULL);
  row->column++;
  return true;
}

int64_t row_int(struct row *row) {
  if (row->failed) return 0;
  int64_t value = sqlite3_column_int64(row->statement, row->column++);
  row->seal = seal_word(row->seal, (uint64_t)value);
  return value;
}

double row_real(struct row *row) {
  if (row->failed || row_is_null(row)) return NAN;
  double value = sqlite3_column_double(row->statement, row->column++);
  row->seal = seal_real(row->seal, value);
  return value;
}

/* The next column's bytes, in SQLite's memory; NULL with *bytes 0 when it is empty. */
static const void *row_bytes(struct row *row, bool text, size_t *bytes) {
  const void *data = text ? (const void *)sqlite3_column_text(row->statement, row->column)
                          : sqlite3_column_blob(row->statement, row->column);
  *bytes = (size_t)sqlite3_column_bytes(row->statement, row->column++);
  if (!data && *bytes) row_fail(row, SQLITE_NOMEM);
  if (!data) *bytes = 0;
  row->seal = seal_bytes(row->seal, data, *bytes);
  return data;
}

const char *row_text(struct row *row) {
  if (row->failed || row_is_null(row)) return NULL;
  size_t length;
  const char *text = row_bytes(row, true, &length);
  if (row->failed) return NULL;
  if (!text) {
    row_fail(row, SQLITE_NOMEM);
    return NULL;
  }
  if (!row->arena) return text;
  const char *copy = arena_text(row->arena, text, length, row->error);
  if (!copy) row->failed = true;
  return copy;
}

const void *row_blob(struct row *row, size_t *bytes) {
  *bytes = 0;
  if (row->failed || row_is_null(row)) return NULL;
  const void *data = row_bytes(row, false, bytes);
  if (row->failed || !row->arena) return data;
  void *copy = arena_alloc(row->arena, *bytes, row->error);
  if (!copy) {
    row->failed = true;
    *bytes = 0;
    return NULL;
  }
  if (*bytes) memcpy(copy, data, *bytes);
  return copy;
}

const void *row_words(struct row *row, size_t *n) {
  size_t bytes;
  const void *data = row_blob(row, &bytes);
  if (bytes % 4) row_damaged(row, "a list of numbers");
  *n = row->failed ? 0 : bytes / 4;
  return data;
}

/* Reads one text at *at; false when the bytes do not hold one. */
static bool text_take(const unsigned char *data, size_t bytes, size_t *at, struct store_text *out) {
  uint64_t length = 0;
  for (int shift = 0;; shift += 7) {
    if (*at == bytes || shift > 56) return false;
    unsigned char byte = data[(*at)++];
    length |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) break;
  }
  if (length > bytes - *at) return false;
  *out = (struct store_text){(const char *)data + *at, (size_t)length};
  *at += (size_t)length;
  return true;
}

/* Copies text by text, each with a NUL behind it: readers print them. */
static const struct store_text *texts_unpack(struct row *row, const unsigned char *data, size_t bytes, size_t n) {
  struct store_text *texts = arena_array(row->arena, n, sizeof *texts, row->error);
  char *copy = texts ? arena_alloc(row->arena, bytes + n, row->error) : NULL;
  if (!copy) {
    row->failed = true;
    return NULL;
  }
  for (size_t i = 0, at = 0; i < n; i++) {
    struct store_text text;
    if (!text_take(data, bytes, &at, &text)) break;
    memcpy(copy, text.text, text.length);
    texts[i] = (struct store_text){copy, text.length};
    copy += text.length + 1;
  }
  return texts;
}

const struct store_text *row_texts(struct row *row, size_t *n) {
  *n = 0;
  if (row->failed || row_is_null(row)) return NULL;
  size_t bytes, count = 0;
  const unsigned char *data = row_bytes(row, false, &bytes);
  struct store_text text;
  for (size_t at = 0; at < bytes && !row->failed; count++)
    if (!text_take(data, bytes, &at, &text)) row_damaged(row, "a list of texts");
  if (row->failed) return NULL;
  *n = count;
  return texts_unpack(row, data, bytes, count);
}

int row_check(struct row *row) { return row->failed ? -1 : 0; }

int row_check_seal(struct row *row, const char *what) {
  if (row->failed) return -1;
  if ((uint64_t)sqlite3_column_int64(row->statement, row->column++) != row->seal) row_damaged(row, what);
  return row_check(row);
}

static void row_take_any(struct row *row) {
  size_t bytes;
  switch (sqlite3_column_type(row->statement, row->column)) {
  case SQLITE_INTEGER: row_int(row); break;
  case SQLITE_FLOAT: row_real(row); break;
  case SQLITE_TEXT: row_bytes(row, true, &bytes); break;
  case SQLITE_BLOB: row_bytes(row, false, &bytes); break;
  default: row_is_null(row); break;
  }
}

bool row_sealed(struct row *row) {
  int last = sqlite3_column_count(row->statement) - 1;
  while (row->column < last) row_take_any(row);
  return (uint64_t)sqlite3_column_int64(row->statement, last) == row->seal;
}

const char *row_shown(const struct row *row, int column) {
  const unsigned char *text = sqlite3_column_text(row->statement, column);
  return text ? (const char *)text : "";
}
