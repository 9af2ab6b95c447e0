/* moments.c: the moments of features' logits: a narrow table, read whole. */
#include "core/store/store_int.h"

#define BATCH 4096 /* rows in a transaction: some tens of milliseconds */

int moments_put(struct connection *writer, int64_t feature, const struct store_moments *moments, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO feature_moments(id, mean, std, skewness, kurtosis, seal) VALUES(?,?,?,?,?,?)",
           NULL, error);
  row_put_int(&row, feature);
  row_put_real(&row, moments->mean);
  row_put_real(&row, moments->std);
  row_put_real(&row, moments->skewness);
  row_put_real(&row, moments->kurtosis);
  row_put_seal(&row);
  return row_run(&row);
}

static int batch_put(struct store *store, int64_t source, const struct store_moments *moments, size_t first, size_t n,
                     struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = source_require(writer, source, error);
  for (size_t i = first; result == 0 && i < first + n; i++)
    result = moments_put(writer, feature_key(source, (uint32_t)i), &moments[i], error);
  return store_writer_end(store, writer, result, error);
}

int store_moments_put(struct store *store, int64_t source, const struct store_moments *moments, size_t n,
                      struct error *error) {
  for (size_t i = 0; i < n; i += BATCH)
    if (batch_put(store, source, moments, i, n - i < BATCH ? n - i : BATCH, error) != 0) return -1;
  return 0;
}

static int moments_read(struct connection *reader, int64_t source, struct store_moments *out, bool *has, size_t n, size_t *known,
                        struct error *error) {
  struct row row;
  *known = 0;
  for (size_t i = 0; i < n; i++) has[i] = false;
  row_open(&row, reader, "SELECT id, mean, std, skewness, kurtosis, seal FROM feature_moments WHERE id BETWEEN ?1 AND ?2", NULL,
           error);
  row_put_int(&row, source_first(source));
  row_put_int(&row, source_last(source));
  while (row_next(&row) == 1) {
    uint32_t index = key_index(row_int(&row));
    struct store_moments one;
    one.mean = row_real(&row);
    one.std = row_real(&row);
    one.skewness = row_real(&row);
    one.kurtosis = row_real(&row);
    if (row_check_seal(&row, "the moments of a feature") != 0) break;
    if (index >= n) continue;
    out[index] = one;
    has[index] = true;
    ++*known;
  }
  row_close(&row);
  return row_check(&row);
}

int store_moments_list(struct store *store, int64_t source, struct store_moments *out, bool *has, size_t n, size_t *known,
                       struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, moments_read(reader, source, out, has, n, known, error));
}
