/* feature_lists.c: many features at once, from the narrow table: pages, densities, one at random. */
#include "core/store/store_int.h"

#include <math.h>

#define LIST_MAX 10000

/* Pages are cut in an index (schema 2), and only the rows of a page are looked up. */
#define LIST(where, order)                                                                                      \
  "SELECT f.id, f.n_fired, f.rate, f.mean, f.maximum, f.seal, (SELECT e.description FROM explanations e"        \
  " WHERE e.feature = f.id ORDER BY e.origin DESC, e.score DESC, e.id LIMIT 1)"                                 \
  " FROM (SELECT id AS page FROM features WHERE " where " AND (NOT ?2 OR maximum > 0)"                          \
  " ORDER BY " order " LIMIT ?3 OFFSET ?4) CROSS JOIN features f ON f.id = page ORDER BY " order

#define BY_RANGE "id BETWEEN ?1 << 32 AND (?1 << 32) + 4294967295"
#define BY_SOURCE "id >> 32 = ?1"

static const char *const lists[4][2] = {
    [STORE_BY_INDEX] = {LIST(BY_RANGE, "id"), LIST(BY_RANGE, "id DESC")},
    [STORE_BY_RATE] = {LIST(BY_SOURCE, "rate, id"), LIST(BY_SOURCE, "rate DESC, id")},
    [STORE_BY_MAX] = {LIST(BY_SOURCE, "maximum, id"), LIST(BY_SOURCE, "maximum DESC, id")},
    [STORE_BY_MEAN] = {LIST(BY_SOURCE, "mean, id"), LIST(BY_SOURCE, "mean DESC, id")},
};

static int list_row_take(struct row *row, struct store_feature_row *out) {
  *out = (struct store_feature_row){.index = key_index(row_int(row))};
  out->n_fired = row_int(row);
  out->rate = row_real(row);
  out->mean = row_real(row);
  out->max = (float)row_real(row);
  if (row_check_seal(row, "a feature's statistics") != 0) return -1;
  out->description = row_text(row);
  return row_check(row);
}

static int list_count(struct connection *reader, int64_t source, bool alive, int64_t *count, struct error *error) {
  struct row row;
  row_open(&row, reader, alive ? "SELECT count(*) FROM features WHERE id >> 32 = ?1 AND maximum > 0"
                               : "SELECT count(*) FROM features WHERE id >> 32 = ?1",
           NULL, error);
  row_put_int(&row, source);
  if (row_next(&row) == 1) *count = row_int(&row);
  row_close(&row);
  return row_check(&row);
}

static int list_read(struct connection *reader, const struct store_feature_query *query, struct arena *arena,
                     struct store_feature_row **out, size_t *n, struct error *error) {
  struct row row;
  if (!(*out = arena_array(arena, (size_t)query->limit, sizeof **out, error))) return -1;
  *n = 0;
  row_open(&row, reader, lists[query->order][query->descending], arena, error);
  row_put_int(&row, query->source);
  row_put_int(&row, query->alive);
  row_put_int(&row, query->limit);
  row_put_int(&row, query->offset);
  while (row_next(&row) == 1 && list_row_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_feature_list(struct store *store, const struct store_feature_query *query, struct arena *arena,
                       struct store_feature_row **out, size_t *n, int64_t *total, struct error *error) {
  if ((unsigned)query->order > STORE_BY_MEAN || query->offset < 0 || query->limit < 0 || query->limit > LIST_MAX)
    return error_set(error, ERROR_ARGUMENT, "a page of features has an offset of 0 or more and a limit of 0 to %d",
                     LIST_MAX);
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int result = list_read(reader, query, arena, out, n, error);
  if (result == 0 && total) result = list_count(reader, query->source, query->alive, total, error);
  return store_reader_end(store, reader, result);
}

static int random_read(struct connection *reader, int64_t source, double unit, uint32_t *index,
                       struct error *error) {
  struct row row;
  int64_t count = 0;
  if (list_count(reader, source, true, &count, error) != 0) return -1;
  int64_t place = (int64_t)(unit * (double)count);
  row_open(&row, reader, "SELECT id FROM features WHERE id >> 32 = ?1 AND maximum > 0"
           " ORDER BY maximum DESC, id LIMIT 1 OFFSET ?2", NULL, error);
  row_put_int(&row, source);
  row_put_int(&row, place < count ? place : count - 1);
  int got = row_next(&row);
  if (got == 1) *index = key_index(row_int(&row));
  row_close(&row);
  return got;
}

int store_feature_random(struct store *store, int64_t source, double unit, uint32_t *index, struct error *error) {
  if (!(unit >= 0 && unit < 1)) return error_set(error, ERROR_ARGUMENT, "a random place is in [0, 1), not %g", unit);
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, random_read(reader, source, unit, index, error));
}

static int density_read(struct connection *reader, int64_t source, float *rates, size_t n, size_t *known,
                        struct error *error) {
  struct row row;
  struct store_feature_row one;
  size_t count = 0;
  for (size_t i = 0; i < n; i++) rates[i] = NAN;
  row_open(&row, reader, "SELECT id, n_fired, rate, mean, maximum, seal, NULL FROM features"
           " WHERE " BY_RANGE, NULL, error);
  row_put_int(&row, source);
  while (row_next(&row) == 1 && list_row_take(&row, &one) == 0)
    if (one.index < n) {
      rates[one.index] = (float)one.rate;
      count++;
    }
  row_close(&row);
  if (known) *known = count;
  return row_check(&row);
}

int store_density(struct store *store, int64_t source, float *rates, size_t n, size_t *known, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, density_read(reader, source, rates, n, known, error));
}

/* ---- labels ------------------------------------------------------------------------------------------- */

static int label_numbers(struct connection *reader, int64_t feature, struct store_feature_label *out, struct error *error) {
  struct row row;
  struct store_feature_row one;
  row_open(&row, reader, "SELECT id, n_fired, rate, mean, maximum, seal, NULL FROM features WHERE id = ?1", NULL, error);
  row_put_int(&row, feature);
  if (row_next(&row) == 1 && list_row_take(&row, &one) == 0) {
    out->known = true;
    out->rate = one.rate;
    out->max = one.max;
  }
  row_close(&row);
  return row_check(&row);
}

static int label_read(struct connection *reader, const struct store_feature_at *at, struct arena *arena, struct store_feature_label *out,
                      struct error *error) {
  struct store_explanation best, *kept;
  *out = (struct store_feature_label){.rate = NAN, .max = NAN};
  if (!at->source) return 0;
  int64_t key = feature_key(at->source, at->index);
  int got = label_numbers(reader, key, out, error) != 0 ? -1 : explanation_best(reader, key, arena, &best, error);
  if (got <= 0) return got;
  if (!(kept = arena_alloc(arena, sizeof *kept, error))) return -1;
  *kept = best;
  out->known = true;
  out->best = kept;
  return 0;
}

int store_feature_labels(struct store *store, const struct store_feature_at *features, size_t n, struct arena *arena,
                         struct store_feature_label *out, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int result = 0;
  for (size_t i = 0; i < n && result == 0; i++) result = label_read(reader, &features[i], arena, &out[i], error);
  return store_reader_end(store, reader, result);
}
