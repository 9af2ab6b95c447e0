/* examples.c: the stretches of text on which a feature fired. Each has a slot, the order in which it was put. */
#include "core/store/store_int.h"

#include <math.h>
#include <stdlib.h>

#define EXAMPLE_COLUMNS \
  "id, tokens, activations, max_value, max_index, min_value, bin_min, bin_max, bin_contains, qualifying, document," \
  "position, data_index, extra, seal"

static int example_check(const struct store_example *example, struct error *error) {
  if (example->n == 0 || example->n > STORE_TOKENS_MAX)
    return error_set(error, ERROR_ARGUMENT, "an example has %zu tokens, and may have 1 to %d", example->n,
                     STORE_TOKENS_MAX);
  if (example->qualifying < -1 || example->qualifying >= (int)example->n)
    return error_set(error, ERROR_ARGUMENT, "qualifying token %d is not among the %zu tokens of its example",
                     example->qualifying, example->n);
  return 0;
}

/* The largest value, where it stands first, and the smallest. */
static void values_range(const struct store_example *example, float *max, int *at, float *min) {
  *max = *min = example->values[0];
  *at = 0;
  for (size_t i = 1; i < example->n; i++) {
    if (example->values[i] > *max) *max = example->values[i], *at = (int)i;
    if (example->values[i] < *min) *min = example->values[i];
  }
}

static int example_put(struct connection *writer, int64_t key, const struct store_example *example,
                       struct error *error) {
  struct row row;
  float max, min;
  int at;
  if (example_check(example, error) != 0) return -1;
  values_range(example, &max, &at, &min);
  row_open(&row, writer, "INSERT INTO examples(" EXAMPLE_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", NULL,
           error);
  row_put_int(&row, key);
  row_put_texts(&row, example->tokens, example->n);
  row_put_words(&row, example->values, example->n);
  row_put_real(&row, max);
  row_put_int(&row, at);
  row_put_real(&row, min);
  row_put_real(&row, example->bin_min);
  row_put_real(&row, example->bin_max);
  row_put_real(&row, example->bin_contains);
  row_put_int(&row, example->qualifying);
  row_put_int(&row, example->document);
  row_put_int(&row, example->position);
  row_put_text(&row, example->data_index);
  row_put_text(&row, example->extra);
  row_put_seal(&row);
  return row_run(&row);
}

static int slots_put(struct connection *writer, int64_t feature, size_t first, const struct store_example *examples,
                     size_t n, struct error *error) {
  if (n > STORE_SLOT_MAX || first > STORE_SLOT_MAX - n)
    return error_set(error, ERROR_LIMIT, "feature %u would have %zu examples, and may have %d", key_index(feature),
                     first + n, STORE_SLOT_MAX);
  for (size_t i = 0; i < n; i++)
    if (example_put(writer, feature << 12 | (int64_t)(first + i), examples + i, error) != 0) return -1;
  return 0;
}

int examples_put(struct connection *writer, int64_t feature, const struct store_example *examples, size_t n,
                 struct error *error) {
  struct row row;
  row_open(&row, writer, "DELETE FROM examples WHERE id BETWEEN ?1 << 12 AND (?1 << 12) + 4095", NULL, error);
  row_put_int(&row, feature);
  if (row_run(&row) != 0) return -1;
  return slots_put(writer, feature, 0, examples, n, error);
}

/* The slot behind the last one; -1. */
static int64_t slot_next(struct connection *writer, int64_t feature, struct error *error) {
  struct row row;
  int64_t next = 0;
  row_open(&row, writer, "SELECT coalesce(max(id) + 1 - (?1 << 12), 0) FROM examples"
           " WHERE id BETWEEN ?1 << 12 AND (?1 << 12) + 4095", NULL, error);
  row_put_int(&row, feature);
  if (row_next(&row) == 1) next = row_int(&row);
  row_close(&row);
  return row.failed ? -1 : next;
}

int examples_add(struct connection *writer, int64_t feature, const struct store_example *examples, size_t n,
                 struct error *error) {
  int64_t slot = slot_next(writer, feature, error);
  return slot < 0 ? -1 : slots_put(writer, feature, (size_t)slot, examples, n, error);
}

int store_examples_add(struct store *store, int64_t source, uint32_t index, const struct store_example *examples,
                       size_t n, struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = source_require(writer, source, error);
  if (result == 0) result = examples_add(writer, feature_key(source, index), examples, n, error);
  return store_writer_end(store, writer, result, error);
}

static int example_take(struct row *row, struct store_example *out) {
  size_t n_values;
  *out = (struct store_example){0};
  out->slot = (int)(row_int(row) & (STORE_SLOT_MAX - 1));
  out->tokens = row_texts(row, &out->n);
  out->values = row_words(row, &n_values);
  out->max_value = (float)row_real(row);
  out->max_index = (int)row_int(row);
  out->min_value = (float)row_real(row);
  out->bin_min = (float)row_real(row);
  out->bin_max = (float)row_real(row);
  out->bin_contains = (float)row_real(row);
  out->qualifying = (int)row_int(row);
  out->document = row_int(row);
  out->position = row_int(row);
  out->data_index = row_text(row);
  out->extra = row_text(row);
  if (n_values != out->n) row_damaged(row, "an example");
  return row_check_seal(row, "an example");
}

static int example_order(const void *left, const void *right) {
  const struct store_example *a = left, *b = right;
  if (a->max_value > b->max_value) return -1;
  if (a->max_value < b->max_value) return 1;
  return a->slot - b->slot;
}

static int64_t examples_count(struct connection *reader, int64_t feature, struct error *error) {
  struct row row;
  int64_t count = 0;
  row_open(&row, reader, "SELECT count(*) FROM examples WHERE id BETWEEN ?1 << 12 AND (?1 << 12) + 4095", NULL,
           error);
  row_put_int(&row, feature);
  if (row_next(&row) == 1) count = row_int(&row);
  row_close(&row);
  return row.failed ? -1 : count;
}

/* Sorting here, by reference, keeps SQLite from moving every blob through its sorter. */
int examples_of(struct connection *reader, int64_t feature, size_t most, struct arena *arena,
                const struct store_example **out, size_t *n, struct error *error) {
  struct row row;
  size_t taken = 0;
  int64_t count = examples_count(reader, feature, error);
  *n = 0;
  if (count < 0) return -1;
  struct store_example *examples = arena_array(arena, (size_t)count, sizeof *examples, error);
  if (!examples) return -1;
  row_open(&row, reader, "SELECT " EXAMPLE_COLUMNS " FROM examples"
           " WHERE id BETWEEN ?1 << 12 AND (?1 << 12) + 4095 ORDER BY id", arena, error);
  row_put_int(&row, feature);
  while (row_next(&row) == 1 && example_take(&row, examples + taken) == 0) taken++;
  row_close(&row);
  qsort(examples, taken, sizeof *examples, example_order);
  *out = examples;
  *n = taken < most ? taken : most;
  return row_check(&row);
}
