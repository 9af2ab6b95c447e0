/* vectors.c: rows of steering vectors. */
#include "core/base/secret.h"
#include "core/store/store_int.h"

#define VECTOR_COLUMNS "model, source, number, label, point, strength, owner, created_at, numbers, seal"
#define NUMBER_TRIES 64 /* of 900,000,000: a source would need to be nearly full to use them up */

static int vector_take(struct row *row, struct store_vector *out) {
  *out = (struct store_vector){0};
  out->model = row_text(row);
  out->source = row_text(row);
  out->index = row_int(row);
  out->label = row_text(row);
  out->point = row_text(row);
  out->strength = row_real(row);
  out->owner = row_text(row);
  out->created_at = row_text(row);
  out->values = row_words(row, &out->n);
  return row_check_seal(row, "a vector");
}

static int vector_by_number(struct connection *connection, const char *model, const char *source, int64_t number,
                            struct arena *arena, struct store_vector *out, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " VECTOR_COLUMNS " FROM vectors WHERE model = ?1 AND source = ?2"
           " AND number = ?3", arena, error);
  row_put_text(&row, model);
  row_put_text(&row, source);
  row_put_int(&row, number);
  int got = row_next(&row);
  if (got == 1 && out && vector_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

static int vector_write(struct connection *writer, const struct store_vector *vector, int64_t number,
                        struct error *error) {
  struct row row;
  char now[25];
  row_open(&row, writer, "INSERT INTO vectors(" VECTOR_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?)", NULL, error);
  row_put_text(&row, vector->model);
  row_put_text(&row, vector->source);
  row_put_int(&row, number);
  row_put_text(&row, vector->label);
  row_put_text(&row, vector->point);
  row_put_real(&row, vector->strength);
  row_put_text(&row, vector->owner);
  row_put_text(&row, time_or_now(vector->created_at, now));
  row_put_words(&row, vector->values, vector->n);
  row_put_seal(&row);
  return row_run(&row);
}

/* A number of 9 digits that the source does not use. */
static int number_free(struct connection *writer, const struct store_vector *vector, int64_t *number,
                       struct error *error) {
  for (int i = 0; i < NUMBER_TRIES; i++) {
    uint32_t random;
    if (random_secret(&random, sizeof random, error) != 0) return -1;
    *number = 100000000 + random % 900000000;
    int got = vector_by_number(writer, vector->model, vector->source, *number, NULL, NULL, error);
    if (got <= 0) return got;
  }
  return error_set(error, ERROR_LIMIT, "source '%s' has no free vector number", vector->source);
}

int store_vector_new(struct store *store, const struct store_vector *vector, int64_t *index, struct error *error) {
  int64_t number = 0;
  if (!vector->model || !vector->source || !vector->n)
    return error_set(error, ERROR_ARGUMENT, "a vector needs a model, a source and values");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = number_free(writer, vector, &number, error);
  if (result == 0) result = vector_write(writer, vector, number, error);
  result = store_writer_end(store, writer, result, error);
  if (result == 0) *index = number;
  return result;
}

#define LABEL_WHERE " FROM vectors WHERE model = ?1 AND label = ?2"

static int labels_count(struct connection *connection, const char *model, const char *label, int64_t *count, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT count(*)" LABEL_WHERE, NULL, error);
  row_put_text(&row, model);
  row_put_text(&row, label);
  int got = row_next(&row);
  *count = got == 1 ? row_int(&row) : 0;
  row_close(&row);
  return got == 1 ? 0 : -1;
}

static int label_free(struct connection *writer, const char *model, const char *label, struct error *error) {
  int64_t count;
  if (labels_count(writer, model, label, &count, error) != 0) return -1;
  if (!count) return 0;
  return error_set(error, ERROR_CONFLICT, "model '%.64s' has %lld vectors labelled '%.200s' already", model, (long long)count, label);
}

int store_vectors_add(struct store *store, struct store_vector *vectors, size_t n, struct error *error) {
  if (!n || !vectors->label) return error_set(error, ERROR_ARGUMENT, "vectors that belong together need a label");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = label_free(writer, vectors->model, vectors->label, error);
  for (size_t i = 0; i < n && result == 0; i++) {
    result = number_free(writer, &vectors[i], &vectors[i].index, error);
    if (result == 0) result = vector_write(writer, &vectors[i], vectors[i].index, error);
  }
  return store_writer_end(store, writer, result, error);
}

int store_vector_find(struct store *store, const char *model, const char *source, int64_t index, struct arena *arena,
                      struct store_vector *out, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, vector_by_number(reader, model, source, index, arena, out, error));
}

static int labelled_read(struct connection *reader, const char *model, const char *label, struct arena *arena,
                         struct store_vector **out, size_t *n, struct error *error) {
  struct row row;
  int64_t count;
  *n = 0;
  if (labels_count(reader, model, label, &count, error) != 0) return -1;
  if (!(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  row_open(&row, reader, "SELECT " VECTOR_COLUMNS LABEL_WHERE " ORDER BY id", arena, error);
  row_put_text(&row, model);
  row_put_text(&row, label);
  while (row_next(&row) == 1 && vector_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_vectors_labelled(struct store *store, const char *model, const char *label, struct arena *arena, struct store_vector **out,
                           size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, labelled_read(reader, model, label, arena, out, n, error));
}

#define LIST_WHERE " FROM vectors WHERE (?1 IS NULL OR model = ?1) AND (?2 IS NULL OR owner = ?2)"

static int vectors_read(struct connection *reader, const char *model, const char *owner, struct arena *arena,
                        struct store_vector **out, size_t *n, struct error *error) {
  struct row row;
  int64_t count = 0;
  row_open(&row, reader, "SELECT count(*)" LIST_WHERE, NULL, error);
  row_put_text(&row, model);
  row_put_text(&row, owner);
  if (row_next(&row) == 1) count = row_int(&row);
  row_close(&row);
  if (row.failed || !(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  *n = 0;
  row_open(&row, reader, "SELECT " VECTOR_COLUMNS LIST_WHERE " ORDER BY id", arena, error);
  row_put_text(&row, model);
  row_put_text(&row, owner);
  while (row_next(&row) == 1 && vector_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_vector_list(struct store *store, const char *model, const char *owner, struct arena *arena,
                      struct store_vector **out, size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, vectors_read(reader, model, owner, arena, out, n, error));
}

int store_vector_delete(struct store *store, const char *model, const char *source, int64_t index,
                        struct error *error) {
  struct row row;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  row_open(&row, writer, "DELETE FROM vectors WHERE model = ?1 AND source = ?2 AND number = ?3", NULL, error);
  row_put_text(&row, model);
  row_put_text(&row, source);
  row_put_int(&row, index);
  int result = row_run(&row);
  if (result == 0) result = sqlite3_changes(writer->db) > 0;
  return store_writer_end(store, writer, result, error);
}

int store_vectors_delete(struct store *store, const char *model, const char *label, struct error *error) {
  struct row row;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  row_open(&row, writer, "DELETE" LABEL_WHERE, NULL, error);
  row_put_text(&row, model);
  row_put_text(&row, label);
  int result = row_run(&row);
  if (result == 0) result = sqlite3_changes(writer->db);
  return store_writer_end(store, writer, result, error);
}
