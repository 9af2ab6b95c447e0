/* evaluations.c: rows of evaluations. */
#include <math.h>

#include "core/store/store_int.h"

#define COLUMNS \
  "source, corpus_hash, ends, corpus, lines, n_documents, n_tokens, n_features, l0, mse, explained, n_predicted, ce_raw," \
  "ce_spliced, ce_error, ce_zero, n_dead, below_1, below_2, below_3, below_4, made_at, seal"

#define FIGURE_COLUMNS "source, corpus_hash, ends, cosine, l2_ratio, bias, kl_spliced, kl_zero, seal"

static int evaluation_take(struct row *row, struct store_evaluation *out) {
  *out = (struct store_evaluation){0};
  out->source = row_int(row);
  out->corpus_hash = row_text(row);
  out->ends = row_int(row) != 0;
  out->corpus = row_text(row);
  out->lines = row_int(row) != 0;
  out->n_documents = row_int(row);
  out->n_tokens = row_int(row);
  out->n_features = row_int(row);
  out->l0 = row_real(row);
  out->mse = row_real(row);
  out->explained = row_real(row);
  out->n_predicted = row_int(row);
  out->ce_raw = row_real(row);
  out->ce_spliced = row_real(row);
  out->ce_error = row_real(row);
  out->ce_zero = row_real(row);
  out->n_dead = row_int(row);
  for (int i = 0; i < STORE_SHARES; i++) out->below[i] = row_int(row);
  out->made_at = row_text(row);
  return row_check_seal(row, "an evaluation");
}

/* The further figures of an evaluation; one of before there were any has none. */
static int figures_read(struct connection *reader, struct arena *arena, struct store_evaluation *e, struct error *error) {
  struct row row;
  e->cosine = e->l2_ratio = e->bias = e->kl_spliced = e->kl_zero = NAN;
  row_open(&row, reader, "SELECT " FIGURE_COLUMNS " FROM evaluation_figures WHERE source = ?1 AND corpus_hash = ?2 AND ends = ?3", arena, error);
  row_put_int(&row, e->source);
  row_put_text(&row, e->corpus_hash);
  row_put_int(&row, e->ends);
  int got = row_next(&row);
  if (got == 1) {
    (void)row_int(&row);
    (void)row_text(&row);
    (void)row_int(&row);
    e->cosine = row_real(&row);
    e->l2_ratio = row_real(&row);
    e->bias = row_real(&row);
    e->kl_spliced = row_real(&row);
    e->kl_zero = row_real(&row);
    got = row_check_seal(&row, "the figures of an evaluation");
  }
  row_close(&row);
  return got < 0 ? -1 : 0;
}

static int evaluation_write(struct connection *writer, const struct store_evaluation *e, struct error *error) {
  struct row row;
  char now[25];
  row_open(&row, writer, "INSERT OR REPLACE INTO evaluations(" COLUMNS ")"
           " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, e->source);
  row_put_text(&row, e->corpus_hash);
  row_put_int(&row, e->ends);
  row_put_text(&row, e->corpus);
  row_put_int(&row, e->lines);
  row_put_int(&row, e->n_documents);
  row_put_int(&row, e->n_tokens);
  row_put_int(&row, e->n_features);
  row_put_real(&row, e->l0);
  row_put_real(&row, e->mse);
  row_put_real(&row, e->explained);
  row_put_int(&row, e->n_predicted);
  row_put_real(&row, e->ce_raw);
  row_put_real(&row, e->ce_spliced);
  row_put_real(&row, e->ce_error);
  row_put_real(&row, e->ce_zero);
  row_put_int(&row, e->n_dead);
  for (int i = 0; i < STORE_SHARES; i++) row_put_int(&row, e->below[i]);
  row_put_text(&row, time_or_now(e->made_at, now));
  row_put_seal(&row);
  return row_run(&row);
}

static int figures_write(struct connection *writer, const struct store_evaluation *e, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO evaluation_figures(" FIGURE_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, e->source);
  row_put_text(&row, e->corpus_hash);
  row_put_int(&row, e->ends);
  row_put_real(&row, e->cosine);
  row_put_real(&row, e->l2_ratio);
  row_put_real(&row, e->bias);
  row_put_real(&row, e->kl_spliced);
  row_put_real(&row, e->kl_zero);
  row_put_seal(&row);
  return row_run(&row);
}

int store_evaluation_put(struct store *store, const struct store_evaluation *evaluation, struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  int result = source_require(writer, evaluation->source, error);
  if (result == 0) result = evaluation_write(writer, evaluation, error);
  if (result == 0) result = figures_write(writer, evaluation, error);
  return store_writer_end(store, writer, result, error);
}

static int count_of(struct connection *reader, int64_t source, size_t *n, struct error *error) {
  struct row row;
  row_open(&row, reader, "SELECT count(*) FROM evaluations WHERE source = ?1", NULL, error);
  row_put_int(&row, source);
  int got = row_next(&row);
  *n = got == 1 ? (size_t)row_int(&row) : 0;
  row_close(&row);
  return got < 0 ? -1 : 0;
}

static int list(struct connection *reader, int64_t source, struct arena *arena, struct store_evaluation **out, size_t *n,
                struct error *error) {
  struct row row;
  size_t most;
  int got = 1;
  *n = 0;
  if (count_of(reader, source, &most, error) != 0) return -1;
  *out = arena_array(arena, most, sizeof **out, error);
  if (!*out) return -1;
  row_open(&row, reader, "SELECT " COLUMNS " FROM evaluations WHERE source = ?1 ORDER BY made_at DESC, corpus_hash", arena,
           error);
  row_put_int(&row, source);
  while (*n < most && (got = row_next(&row)) == 1)
    if (evaluation_take(&row, &(*out)[(*n)++]) != 0) break;
  row_close(&row);
  int failed = row_check(&row);
  for (size_t i = 0; !failed && i < *n; i++) failed = figures_read(reader, arena, &(*out)[i], error);
  return failed;
}

int store_evaluation_list(struct store *store, int64_t source, struct arena *arena, struct store_evaluation **out, size_t *n,
                          struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, list(reader, source, arena, out, n, error));
}

static int rows_clear(struct connection *writer, const char *sql, int64_t source, struct error *error) {
  struct row row;
  row_open(&row, writer, sql, NULL, error);
  row_put_int(&row, source);
  return row_run(&row);
}

int evaluations_clear(struct connection *writer, int64_t source, struct error *error) {
  if (rows_clear(writer, "DELETE FROM evaluation_figures WHERE source = ?1", source, error) != 0) return -1;
  return rows_clear(writer, "DELETE FROM evaluations WHERE source = ?1", source, error);
}
