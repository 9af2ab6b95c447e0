/* tables.c: the bridge between analysis/tables (what is computed) and the store's rows (how it is kept). */
#include "core/lab/tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- slices (worker) ---- */

static int slice_logits(struct table_work *work, struct plan *plan, struct error *error) {
  int64_t left = work->n - work->done_logits;
  int most = plan_max_logit_rows(plan), n = left < most ? (int)left : most;
  struct feature_logits *made = calloc((size_t)n, sizeof *made);
  uint32_t *features = calloc((size_t)n, sizeof *features);
  int failed = made && features ? 0 : error_memory(error, (size_t)n * sizeof *made);
  for (int i = 0; !failed && i < n; i++) features[i] = (uint32_t)(work->first + work->done_logits + i);
  if (!failed) failed = tables_logits(work->source->dict, plan, tokenizer_size(work->model->tokenizer), features, n, made, error);
  for (int i = 0; !failed && i < n; i++) work->rows[work->done_logits + i].logits = made[i];
  free(features);
  free(made);
  work->done_logits += n;
  return failed;
}

/* Rows of the decoder are the queries; each goes on with what the parts before have found. */
static int ask_part(struct table_work *work, struct decoder_table *table, int n, struct error *error) {
  const struct dict *dict = work->source->dict;
  struct table_row *rows = work->rows + work->done_neighbours;
  size_t width = (size_t)dict_info(dict)->d_out;
  int64_t skip[TABLE_QUERIES];
  float *queries = malloc((size_t)n * width * sizeof *queries);
  struct feature_neighbours *found = calloc((size_t)n, sizeof *found);
  int failed = queries && found ? 0 : error_memory(error, (size_t)n * width * sizeof *queries);
  for (int i = 0; !failed && i < n; i++) {
    skip[i] = work->first + work->done_neighbours + i;
    dict_decoder_row(dict, skip[i], queries + (size_t)i * width);
    found[i] = rows[i].neighbours;
  }
  if (!failed) failed = decoder_table_nearest(table, queries, skip, n, work->nearest ? work->nearest : TABLE_NEIGHBOURS, found, error);
  for (int i = 0; !failed && i < n; i++) rows[i].neighbours = found[i];
  free(queries);
  free(found);
  return failed;
}

/* Many features: the whole decoder is prepared once, and then some features at a time meet it; a slice is one part of it. */
static int slice_many(struct table_work *work, struct plan *plan, struct error *error) {
  struct decoder_parts **parts = work->decoder;
  if (!*parts && !(*parts = decoder_parts_new(work->source->dict, plan_backend(plan), TABLE_PART_BYTES, error))) return -1;
  int more = decoder_parts_prepare(*parts, error);
  if (more) return more < 0 ? -1 : 0;
  int64_t left = work->n - work->done_neighbours;
  int n = left < TABLE_QUERIES ? (int)left : TABLE_QUERIES;
  if (ask_part(work, decoder_parts_table(*parts, work->next_part), n, error) != 0) return -1;
  if (++work->next_part < decoder_parts_count(*parts)) return 0;
  work->next_part = 0;
  work->done_neighbours += n;
  return 0;
}

/* One feature: a part of the decoder at a time. */
static int slice_one(struct table_work *work, struct plan *plan, struct error *error) {
  const struct dict *dict = work->source->dict;
  float *query = malloc((size_t)dict_info(dict)->d_out * sizeof *query);
  if (!query) return error_memory(error, (size_t)dict_info(dict)->d_out * sizeof *query);
  dict_decoder_row(dict, work->first, query);
  int more = decoder_nearest_part(dict, plan_backend(plan), query, work->first, TABLE_NEIGHBOURS, &work->next_row,
                                  &work->rows[0].neighbours, error);
  free(query);
  work->done_neighbours = more == 0;
  return more < 0 ? -1 : 0;
}

static int slice_neighbours(struct table_work *work, struct plan *plan, struct error *error) {
  return work->decoder ? slice_many(work, plan, error) : slice_one(work, plan, error);
}

int table_slice(void *context, struct plan *plan, struct error *error) {
  struct table_work *work = context;
  if (work->logits && work->source->info.promotes && work->done_logits < work->n) return slice_logits(work, plan, error) ? -1 : 1;
  if (work->neighbours && work->done_neighbours < work->n) return slice_neighbours(work, plan, error) ? -1 : 1;
  return 0;
}

/* ---- waiting for work (a job's thread) ---- */

struct waiting {
  const struct engine_work *work;
  void *context;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool done;
  struct error error;
};

static int wait_slice(void *context, struct plan *plan, struct error *error) {
  struct waiting *waiting = context;
  return waiting->work->slice(waiting->context, plan, error);
}

static void wait_done(void *context, const struct error *error) {
  struct waiting *waiting = context;
  pthread_mutex_lock(&waiting->mutex);
  if (error) waiting->error = *error;
  waiting->done = true;
  pthread_cond_signal(&waiting->changed);
  pthread_mutex_unlock(&waiting->mutex);
}

int table_wait(struct lab *lab, const struct model *model, const struct engine_work *work, void *context, struct error *error) {
  static const struct engine_work waiting_work = {.slice = wait_slice, .done = wait_done};
  struct waiting waiting = {work, context, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, ERROR_INIT};
  struct engine_task *task;
  if (engine_submit_work(lab->engine, model, &waiting_work, 0, &waiting, &task, error) != 0) return -1;
  pthread_mutex_lock(&waiting.mutex);
  while (!waiting.done) pthread_cond_wait(&waiting.changed, &waiting.mutex);
  pthread_mutex_unlock(&waiting.mutex);
  pthread_mutex_destroy(&waiting.mutex);
  pthread_cond_destroy(&waiting.changed);
  return waiting.error.code ? error_set(error, waiting.error.code, "%s", waiting.error.text) : 0;
}

int table_run(struct table_work *work, struct error *error) {
  static const struct engine_work slices = {.slice = table_slice};
  return table_wait(work->lab, work->model, &slices, work, error);
}

static int free_slice(void *context, struct plan *plan, struct error *error) {
  (void)plan;
  (void)error;
  decoder_parts_free(context);
  return 0;
}

void table_free_decoder(struct lab *lab, const struct model *model, struct decoder_parts *decoder) {
  static const struct engine_work work = {.slice = free_slice};
  struct error error = ERROR_INIT;
  if (!decoder || table_wait(lab, model, &work, decoder, &error) == 0) return;
  /* The engine is going away and takes no work; its thread no longer uses the backend for jobs. */
  decoder_parts_free(decoder);
}

/* ---- rows of the store ---- */

static int store_tokens(const struct model *model, const int32_t *ids, const float *values, int n,
                        struct arena *arena, struct store_tokens *out, struct error *error) {
  struct store_text *texts = arena_array(arena, (size_t)n, sizeof *texts, error);
  float *copy = arena_array(arena, (size_t)n, sizeof *copy, error);
  if (!texts || !copy) return -1;
  for (int i = 0; i < n; i++) {
    texts[i].text = lab_token_text(model->tokenizer, ids[i], arena, error);
    if (!texts[i].text) return -1;
    texts[i].length = strlen(texts[i].text);
    copy[i] = values[i];
  }
  *out = (struct store_tokens){texts, copy, (size_t)n};
  return 0;
}

int table_store_logits(const struct model *model, const struct feature_logits *logits, struct arena *arena, struct store_feature *out,
                       struct error *error) {
  out->groups |= STORE_LOGITS | STORE_MOMENTS;
  out->moments = (struct store_moments){logits->moments.mean, logits->moments.std, logits->moments.skewness, logits->moments.kurtosis};
  out->logits = (struct store_histogram){logits->bars, logits->centres, TABLE_LOGIT_BARS};
  if (store_tokens(model, logits->top, logits->top_value, logits->n, arena, &out->top, error) != 0) return -1;
  return store_tokens(model, logits->bottom, logits->bottom_value, logits->n, arena, &out->bottom, error);
}

int table_store(const struct table_work *work, const struct table_row *row, struct arena *arena,
                struct store_feature *out, struct error *error) {
  if (work->logits) out->groups |= STORE_LOGITS; /* also where it is known that there are none */
  if (work->logits && work->source->info.promotes && table_store_logits(work->model, &row->logits, arena, out, error) != 0) return -1;
  if (work->neighbours) {
    out->groups |= STORE_NEIGHBOURS;
    out->neighbours = row->neighbours.index;
    out->cosines = row->neighbours.cosine;
    out->n_neighbours = (size_t)row->neighbours.n;
  }
  return 0;
}
