/* features.c: the groups of a feature, and the batch in which a job writes them. Each group is a table of its own, so
 * that one is replaced without reading the others. */
#include "core/store/store_int.h"

/* ---- putting ---------------------------------------------------------------------------------------- */

static void histogram_put(struct row *row, const struct store_histogram *histogram) {
  row_put_words(row, histogram->heights, histogram->n);
  row_put_words(row, histogram->values, histogram->n);
}

static void tokens_put(struct row *row, const struct store_tokens *tokens) {
  row_put_texts(row, tokens->texts, tokens->n);
  row_put_words(row, tokens->values, tokens->n);
}

static int statistics_put(struct connection *writer, int64_t key, const struct store_feature *feature,
                          struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO features(id, n_fired, rate, mean, maximum, seal)"
           " VALUES(?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, key);
  row_put_int(&row, feature->n_fired);
  row_put_real(&row, feature->rate);
  row_put_real(&row, feature->mean);
  row_put_real(&row, feature->max);
  row_put_seal(&row);
  if (row_run(&row) != 0) return -1;
  row_open(&row, writer, "INSERT OR REPLACE INTO feature_activity(id, heights, positions, seal) VALUES(?,?,?,?)",
           NULL, error);
  row_put_int(&row, key);
  histogram_put(&row, &feature->activity);
  row_put_seal(&row);
  return row_run(&row);
}

static int logits_put(struct connection *writer, int64_t key, const struct store_feature *feature,
                      struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO feature_logits(id, top_tokens, top_values, bottom_tokens,"
           " bottom_values, heights, positions, seal) VALUES(?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, key);
  tokens_put(&row, &feature->top);
  tokens_put(&row, &feature->bottom);
  histogram_put(&row, &feature->logits);
  row_put_seal(&row);
  return row_run(&row);
}

static int neighbours_put(struct connection *writer, int64_t key, const struct store_feature *feature,
                          struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO feature_neighbours(id, indices, cosines, seal) VALUES(?,?,?,?)",
           NULL, error);
  row_put_int(&row, key);
  row_put_words(&row, feature->neighbours, feature->n_neighbours);
  row_put_words(&row, feature->cosines, feature->n_neighbours);
  row_put_seal(&row);
  return row_run(&row);
}

static int extra_put(struct connection *writer, int64_t key, const struct store_feature *feature,
                     struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO feature_extra(id, extra, seal) VALUES(?,?,?)", NULL, error);
  row_put_int(&row, key);
  row_put_text(&row, feature->extra);
  row_put_seal(&row);
  return row_run(&row);
}

int feature_put(struct connection *writer, int64_t source, const struct store_feature *feature, struct error *error) {
  int64_t key = feature_key(source, feature->index);
  unsigned groups = feature->groups;
  if (groups & STORE_STATISTICS && statistics_put(writer, key, feature, error) != 0) return -1;
  if (groups & STORE_LOGITS && logits_put(writer, key, feature, error) != 0) return -1;
  if (groups & STORE_MOMENTS && moments_put(writer, key, &feature->moments, error) != 0) return -1;
  if (groups & STORE_NEIGHBOURS && neighbours_put(writer, key, feature, error) != 0) return -1;
  if (groups & STORE_PLACE && place_put(writer, key, &feature->place, error) != 0) return -1;
  if (groups & STORE_EXTRA && extra_put(writer, key, feature, error) != 0) return -1;
  if (!(groups & STORE_EXAMPLES)) return 0;
  return examples_put(writer, key, feature->examples, feature->n_examples, error);
}

static int batch_write(struct connection *writer, const struct store_batch *batch, struct error *error) {
  if (source_require(writer, batch->source, error) != 0) return -1;
  for (size_t i = 0; i < batch->n_features; i++)
    if (feature_put(writer, batch->source, batch->features + i, error) != 0) return -1;
  for (size_t i = 0; i < batch->n_explanations; i++) {
    if (batch->explanations[i].source != batch->source)
      return error_set(error, ERROR_ARGUMENT, "explanation %zu of the batch is of another source", i);
    if (explanation_insert(writer, batch->explanations + i, NULL, error) != 0) return -1;
  }
  if (!batch->job) return 0;
  static const struct store_job_update nothing = STORE_JOB_UPDATE_INIT;
  if (job_parts_put(writer, batch->job, batch->parts, batch->n_parts, error) != 0) return -1;
  /* Behind the parts, because a job that is done drops them. */
  return job_change(writer, batch->job, batch->update ? batch->update : &nothing, error);
}

int store_batch_put(struct store *store, const struct store_batch *batch, struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  return store_writer_end(store, writer, batch_write(writer, batch, error), error);
}

/* ---- reading one feature ---------------------------------------------------------------------------- */

static void histogram_take(struct row *row, struct store_histogram *out) {
  size_t n;
  out->heights = row_words(row, &out->n);
  out->values = row_words(row, &n);
  if (n != out->n) row_damaged(row, "a histogram");
}

static void tokens_take(struct row *row, struct store_tokens *out) {
  size_t n;
  out->texts = row_texts(row, &out->n);
  out->values = row_words(row, &n);
  if (n != out->n) row_damaged(row, "a list of tokens");
}

static void statistics_take(struct row *row, struct store_feature *out) {
  out->n_fired = row_int(row);
  out->rate = row_real(row);
  out->mean = row_real(row);
  out->max = (float)row_real(row);
}

static void activity_take(struct row *row, struct store_feature *out) { histogram_take(row, &out->activity); }

static void logits_take(struct row *row, struct store_feature *out) {
  tokens_take(row, &out->top);
  tokens_take(row, &out->bottom);
  histogram_take(row, &out->logits);
}

static void neighbours_take(struct row *row, struct store_feature *out) {
  size_t n;
  out->neighbours = row_words(row, &out->n_neighbours);
  out->cosines = row_words(row, &n);
  if (n != out->n_neighbours) row_damaged(row, "the neighbours of a feature");
}

static void feature_place_take(struct row *row, struct store_feature *out) { place_take(row, &out->place); }

static void extra_take(struct row *row, struct store_feature *out) { out->extra = row_text(row); }

static const struct {
  unsigned group;
  const char *sql;
  void (*take)(struct row *row, struct store_feature *out);
} groups[] = {
    {STORE_STATISTICS, "SELECT id, n_fired, rate, mean, maximum, seal FROM features WHERE id = ?1", statistics_take},
    {STORE_STATISTICS, "SELECT id, heights, positions, seal FROM feature_activity WHERE id = ?1", activity_take},
    {STORE_LOGITS, "SELECT id, top_tokens, top_values, bottom_tokens, bottom_values, heights, positions, seal"
                   " FROM feature_logits WHERE id = ?1", logits_take},
    {STORE_NEIGHBOURS, "SELECT id, indices, cosines, seal FROM feature_neighbours WHERE id = ?1", neighbours_take},
    {STORE_PLACE, "SELECT id, x, y, cluster, sparsity, seal FROM feature_places WHERE id = ?1", feature_place_take},
    {STORE_EXTRA, "SELECT id, extra, seal FROM feature_extra WHERE id = ?1", extra_take},
};

static int groups_read(struct connection *reader, int64_t key, struct arena *arena, struct store_feature *out,
                       struct error *error) {
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
    struct row row;
    row_open(&row, reader, groups[i].sql, arena, error);
    row_put_int(&row, key);
    if (row_next(&row) == 1) {
      if (row_int(&row) != key) row_damaged(&row, "a feature");
      groups[i].take(&row, out);
      if (row_check_seal(&row, "a feature") == 0) out->groups |= groups[i].group;
    }
    row_close(&row);
    if (row_check(&row) != 0) return -1;
  }
  return 0;
}

int feature_read(struct connection *reader, int64_t source, uint32_t index, size_t most, struct arena *arena,
                 struct store_feature *out, struct error *error) {
  int64_t key = feature_key(source, index);
  *out = (struct store_feature){.index = index};
  if (groups_read(reader, key, arena, out, error) != 0 ||
      examples_of(reader, key, most, arena, &out->examples, &out->n_examples, error) != 0 ||
      explanations_of(reader, source, index, arena, &out->explanations, &out->n_explanations, error) != 0)
    return -1;
  if (out->n_examples) out->groups |= STORE_EXAMPLES;
  return out->groups || out->n_explanations;
}

int store_feature_count(struct store *store, int64_t source, int64_t *count, struct error *error) {
  struct row row;
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  row_open(&row, reader, "SELECT count(*) FROM features WHERE id BETWEEN ?1 AND ?2", NULL, error);
  row_put_int(&row, source_first(source));
  row_put_int(&row, source_last(source));
  if (row_next(&row) == 1) *count = row_int(&row);
  row_close(&row);
  return store_reader_end(store, reader, row_check(&row));
}

int store_feature_get(struct store *store, int64_t source, uint32_t index, size_t max_examples, struct arena *arena,
                      struct store_feature *out, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, feature_read(reader, source, index, max_examples, arena, out, error));
}
