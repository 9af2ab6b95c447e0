/* evaluation.c: documents in batches through the engine's background. Two tasks a batch: the first runs the raw model and taps what
 * the dictionaries read and write; the second runs it spliced, ablated, and with what was reconstructed put back, error included. The first one's logits,
 * which the second's are compared with, wait in a temporary file: a batch of them may be larger than a model. Sums are kept for each document and added in
 * the documents' order. */
#include "core/analysis/evaluation.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/analysis/divergence.h"
#include "core/base/checked.h"
#include "core/base/spool.h"

#define MOST 64 /* documents of a batch */
#define PIECE 64 /* rows whose errors are made at a time */
#define WAITING_MOST ((int64_t)256 << 20) /* bytes of logits in the temporary file, unless a document has more */
#define LOOK_NS 100000000 /* somebody who wants it to stop waits no longer */

/* What the raw model showed of one dictionary. */
struct part {
  struct sparse codes;
  float *x, *y; /* [n] rows of the two points; y = x where they are one; x NULL where nothing needs it */
};

struct document {
  int64_t number;
  int32_t *ids;
  int32_t n;
  uint8_t *mask;   /* [n] positions that count and are changed, */
  int32_t counted; /* so many */
  struct part *parts; /* [n_dicts] */
  double loss[EVALUATION_RUNS], divergence[EVALUATION_RUNS];
  int64_t row; /* of its first position among those of the batch */
};

struct batch {
  const struct evaluation *what;
  const struct dict_info *info; /* of the last dictionary; they differ in their layers */
  struct document documents[MOST]; /* those that are not empty */
  int n_documents;
  int runs;        /* of the task that is under way: sequence s is run s % runs of document s / runs, ... */
  int first_run;   /* ... counted from here */
  float *logits;   /* [vocabulary] */
  float *plain;    /* [vocabulary] of the model as it is */
  struct spool *spool; /* [rows of the batch, vocabulary] logits of the model as it is, where a token is predicted */
  float *errors;   /* [PIECE, d_out] */
  int32_t eos;
  bool done;
  struct error error;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
};

/* ---- from the engine ---- */

static int taps_each(const struct batch *b) { return b->info->transcoder ? 2 : 1; }

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct batch *b = context;
  struct document *d = &b->documents[sequence / b->runs];
  size_t row = (size_t)tapped->width, count = (size_t)tapped->n_rows * row, at = (size_t)tapped->position * row;
  int which = tapped->tap / taps_each(b);
  bool written = tapped->tap % taps_each(b) != 0;
  struct part *part = &d->parts[which];
  float *rows = written ? part->y : part->x;
  if (rows && tapped->backend->ops->read(tapped->backend, rows + at, tapped->rows.at, count * sizeof *rows, error) != 0) return -1;
  return written ? 0 : dict_encode(b->what->dicts[which], tapped->rows, tapped->n_rows, &part->codes, error);
}

/* -1: nothing is predicted at this position. */
static int32_t target(const struct batch *b, const struct document *d, int32_t position) {
  return position + 1 < d->n ? d->ids[position + 1] : b->what->ends ? b->eos : -1;
}

/* What a row of logits, in b->logits, has to do with that of the model as it is. */
static int compare(struct batch *b, struct document *d, int run, int32_t position, struct error *error) {
  int64_t vocabulary = b->what->model->arch.vocabulary;
  size_t bytes = (size_t)vocabulary * sizeof(float);
  int64_t at = (d->row + position) * (int64_t)bytes;
  if (run == EVALUATE_RAW) return spool_write(b->spool, at, b->logits, bytes, error);
  if (run == EVALUATE_ERROR) return 0; /* its cross-entropy says enough: it is the first's */
  if (spool_read(b->spool, at, b->plain, bytes, error) != 0) return -1;
  d->divergence[run] += divergence_of(b->plain, b->logits, vocabulary);
  return 0;
}

static int on_logits(void *context, int sequence, int32_t position, int32_t n_rows, struct rows logits,
                     struct backend *backend, struct error *error) {
  struct batch *b = context;
  struct document *d = &b->documents[sequence / b->runs];
  int run = b->first_run + sequence % b->runs;
  int64_t vocabulary = b->what->model->arch.vocabulary;
  for (int32_t i = 0; i < n_rows; i++) {
    int32_t next = target(b, d, position + i);
    struct span row = span_at(logits.at, (size_t)i * (size_t)logits.ld * sizeof(float));
    if (next < 0) continue;
    if (backend->ops->read(backend, b->logits, row, (size_t)vocabulary * sizeof(float), error) != 0) return -1;
    d->loss[run] -= (double)sampler_logprob(b->logits, vocabulary, next);
    if (compare(b, d, run, position + i, error) != 0) return -1;
  }
  return 0;
}

static void on_done(void *context, const struct error *error) {
  struct batch *b = context;
  pthread_mutex_lock(&b->mutex);
  if (error) b->error = *error;
  b->done = true;
  pthread_cond_signal(&b->changed);
  pthread_mutex_unlock(&b->mutex);
}

static const struct engine_events events = {.tapped = on_tapped, .logits = on_logits, .done = on_done};

/* ---- errors ---- */

/* x^ of rows [first, first + n) of the output of layer `which` of a cross-layer transcoder: what the features of all layers up
 * to it write there. */
static void sum_layers(const struct batch *b, const struct document *d, int which, size_t first, size_t n, float *out) {
  const struct dict *dict = b->what->dicts[which];
  size_t width = (size_t)b->info->d_out;
  for (size_t r = 0; r < n; r++) memcpy(out + r * width, dict_output_bias(dict), width * sizeof *out);
  for (int layer = 0; layer <= which; layer++)
    dict_target_add(b->what->dicts[layer], &d->parts[layer].codes, first, n, which - layer, out);
  if (b->info->skip) dict_skip_add(dict, d->parts[which].x + first * (size_t)b->info->in_width, n, out);
}

/* What is left out of rows [first, first + n) of what dictionary `which` writes, [n, d_out]. */
static void make_errors(const struct batch *b, const struct document *d, int which, size_t first, size_t n, float *out) {
  const struct part *part = &d->parts[which];
  size_t width = (size_t)b->info->d_out, in = (size_t)b->info->in_width, row = (size_t)b->info->out_width;
  if (!b->info->cross) {
    dict_errors(b->what->dicts[which], &part->codes, first, n, part->x + first * in, part->y + first * row, out);
    return;
  }
  sum_layers(b, d, which, first, n, out);
  for (size_t r = 0; r < n; r++) {
    const float *y = part->y + (first + r) * row + b->info->out_column;
    for (size_t i = 0; i < width; i++) out[r * width + i] = y[i] - out[r * width + i];
  }
}

/* ---- edits ---- */

/* Of layers that go together each writes those that are replaced and no others. */
static int add_edit(struct edit_list *list, const struct batch *b, enum evaluation_run run, const struct document *d, int which,
                    const float *rows, struct error *error) {
  const struct dict_info *info = dict_info(b->what->dicts[which]);
  struct edit edit = {.point = info->out, .column_begin = (int32_t)info->out_column,
                      .column_end = (int32_t)(info->out_column + info->d_out), .prompt = true, .mask = d->mask, .n_mask = d->n};
  if (run == EVALUATE_SPLICED) {
    edit.dict = b->what->dicts[which];
    edit.n_targets = info->cross ? b->what->n_dicts - which : 0;
  } else if (run == EVALUATE_ZERO) {
    edit.kind = EDIT_ROW_FILL;
  } else {
    edit.kind = EDIT_ROW_REPLACE;
    edit.v = rows;
  }
  return edit_list_add(list, &edit, error);
}

/* (y - error) + error of rows [first, first + n): y but for rounding. */
static void put_back_rows(const struct batch *b, const struct document *d, int which, size_t first, size_t n, float *rows) {
  size_t width = (size_t)b->info->d_out, out = (size_t)b->info->out_width;
  make_errors(b, d, which, first, n, rows);
  for (size_t r = 0; r < n; r++) {
    const float *y = d->parts[which].y + (r + first) * out + b->info->out_column;
    for (size_t i = 0; i < width; i++) {
      volatile float left = y[i] - rows[r * width + i]; /* rounded to f32, as what is spliced is */
      rows[r * width + i] = left + rows[r * width + i];
    }
  }
}

/* For the changed positions, in their order. */
static float *put_back(const struct batch *b, const struct document *d, int which, struct error *error) {
  size_t width = (size_t)b->info->d_out, n = (size_t)d->counted;
  float *rows = malloc((n * width + 1) * sizeof *rows), *to = rows;
  if (!rows) return error_memory(error, n * width * sizeof *rows), NULL;
  for (int32_t begin, end = 0; positions_next(d->mask, d->n, &begin, &end); to += (size_t)(end - begin) * width)
    put_back_rows(b, d, which, (size_t)begin, (size_t)(end - begin), to);
  return rows;
}

/* Higher layers first, as the engine wants those of a cross-layer transcoder. */
static int add_edits(struct edit_list *list, const struct batch *b, enum evaluation_run run, const struct document *d,
                     struct error *error) {
  int failed = 0;
  for (int which = b->what->n_dicts - 1; which >= 0 && !failed; which--) {
    float *rows = run == EVALUATE_ERROR ? put_back(b, d, which, error) : NULL;
    failed = rows || run != EVALUATE_ERROR ? add_edit(list, b, run, d, which, rows, error) : -1;
    free(rows);
  }
  return failed;
}

/* A document of which no position is changed needs no edit, and REPLACE would take none. */
static int make_edits(const struct batch *b, enum evaluation_run run, const struct document *d, struct edit_list **out,
                      struct error *error) {
  *out = NULL;
  if (run == EVALUATE_RAW || d->counted == 0) return 0;
  struct edit_list *list = edit_list_new(error);
  int failed = list ? add_edits(list, b, run, d, error) : -1;
  if (failed) edit_list_free(list, NULL);
  else *out = list;
  return failed;
}

/* ---- tasks ---- */

static int fill(const struct batch *b, struct engine_sequence *sequences, const struct point *taps, struct error *error) {
  for (int s = 0; s < b->n_documents * b->runs; s++) {
    const struct document *d = &b->documents[s / b->runs];
    enum evaluation_run run = (enum evaluation_run)(b->first_run + s % b->runs);
    sequences[s] = (struct engine_sequence){.tokens = d->ids, .n_tokens = d->n, .last_layer = b->what->model->arch.n_layer,
                                            .logits = LOGITS_ALL, .eos = -1, .n_logprobs = -1};
    if (run == EVALUATE_RAW) {
      sequences[s].taps = taps;
      sequences[s].n_taps = b->what->n_dicts * taps_each(b);
    }
    if (make_edits(b, run, d, &sequences[s].edits, error) != 0) {
      while (s-- > 0) edit_list_free(sequences[s].edits, NULL);
      return -1;
    }
  }
  return 0;
}

/* Under the mutex the task cannot have ended as long as `done` is not set, and may be cancelled. */
static void wait_for(struct batch *b, struct engine_task *task) {
  struct timespec until;
  pthread_mutex_lock(&b->mutex);
  while (!b->done) {
    if (b->what->stop(b->what->context)) engine_cancel(b->what->engine, task);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&b->changed, &b->mutex, &until);
  }
  pthread_mutex_unlock(&b->mutex);
}

static int run_task(struct batch *b, int first_run, int runs, struct error *error) {
  struct engine_task *task;
  b->first_run = first_run;
  b->runs = runs;
  b->done = false;
  size_t n_taps = (size_t)(b->what->n_dicts * taps_each(b));
  struct engine_sequence *sequences = calloc((size_t)(b->n_documents * runs), sizeof *sequences);
  struct point *taps = malloc(n_taps * sizeof *taps);
  if (!sequences || !taps) {
    free(sequences);
    free(taps);
    return error_memory(error, (size_t)(b->n_documents * runs) * sizeof *sequences);
  }
  for (size_t i = 0; i < n_taps; i++) {
    const struct dict_info *info = dict_info(b->what->dicts[i / (size_t)taps_each(b)]);
    taps[i] = i % (size_t)taps_each(b) ? info->out : info->in;
  }
  struct engine_task_args args = {.model = b->what->model, .sequences = sequences, .n_sequences = b->n_documents * runs,
                                  .events = &events, .context = b, .background = true, .in_turn = true};
  int failed = fill(b, sequences, taps, error);
  if (!failed) failed = engine_submit(b->what->engine, &args, &task, error);
  free(sequences);
  free(taps);
  if (failed) return -1;
  wait_for(b, task);
  return b->error.code ? error_set(error, b->error.code, "%s", b->error.text) : 0;
}

/* ---- batches ---- */

static void close_document(const struct batch *b, struct document *d) {
  for (int i = 0; d->parts && i < b->what->n_dicts; i++) {
    struct part *part = &d->parts[i];
    if (part->y != part->x) free(part->y);
    free(part->x);
    sparse_clear(&part->codes);
  }
  free(d->parts);
  free(d->mask);
  free(d->ids);
  memset(d, 0, sizeof *d);
}

/* What a cross-layer transcoder reads is needed where it has a skip, and what others read always. */
static int open_part(const struct batch *b, struct part *part, size_t n, struct error *error) {
  bool reads = !b->info->cross || b->info->skip;
  sparse_init(&part->codes);
  if (reads) part->x = malloc(n * (size_t)b->info->in_width * sizeof *part->x);
  part->y = b->info->transcoder ? malloc(n * (size_t)b->info->out_width * sizeof *part->y) : part->x;
  return (part->x || !reads) && part->y ? 0 : error_memory(error, n * (size_t)b->info->in_width * sizeof *part->x);
}

static int open_document(struct batch *b, int64_t number, int64_t row, int32_t n, struct error *error) {
  struct document *d = &b->documents[b->n_documents++];
  *d = (struct document){.number = number, .n = n, .row = row};
  d->ids = malloc((size_t)n * sizeof *d->ids);
  d->mask = malloc((size_t)n);
  d->parts = calloc((size_t)b->what->n_dicts, sizeof *d->parts);
  if (!d->ids || !d->mask || !d->parts) return error_memory(error, (size_t)b->what->n_dicts * sizeof *d->parts);
  for (int i = 0; i < b->what->n_dicts; i++)
    if (open_part(b, &d->parts[i], (size_t)n, error) != 0) return -1;
  corpus_ids(b->what->corpus, number, d->ids);
  d->counted = positions_mark(&b->what->positions, d->ids, n, d->mask);
  return 0;
}

/* Positions of a batch. */
static int64_t most_rows(const struct evaluation *what) {
  int64_t waiting = WAITING_MOST / (what->model->arch.vocabulary * (int64_t)sizeof(float));
  return waiting < what->max_rows ? waiting : what->max_rows;
}

/* Documents from `first` on; returns behind the last, or -1. */
static int64_t open_batch(struct batch *b, int64_t first, struct error *error) {
  const struct evaluation *what = b->what;
  int64_t all = corpus_documents(what->corpus), rows = 0, at = first, most_of_rows = most_rows(what);
  int most = what->max_documents < MOST ? what->max_documents : MOST;
  for (; at < all && b->n_documents < most; at++) {
    int32_t n = corpus_length(what->corpus, at);
    rows += n;
    if (at > first && rows > most_of_rows) break;
    if (n > 0 && open_document(b, at, rows - n, n, error) != 0) return -1;
  }
  return at;
}

/* Rows [first, first + n) of a document, n at most PIECE. */
static int add_rows(struct batch *b, struct quality *const *qualities, const struct document *d, size_t first, size_t n,
                    struct error *error) {
  for (int i = 0; i < b->what->n_dicts; i++) {
    const float *y = d->parts[i].y + first * (size_t)b->info->out_width;
    make_errors(b, d, i, first, n, b->errors);
    if (quality_add_errors(qualities[i], &d->parts[i].codes, first, n, y, b->errors, error) != 0) return -1;
  }
  return 0;
}

/* The rows that count. */
static int add_document(struct batch *b, struct quality *const *qualities, const struct document *d, struct error *error) {
  for (int32_t begin, end = 0; positions_next(d->mask, d->n, &begin, &end);)
    for (size_t at = (size_t)begin; at < (size_t)end; at += PIECE)
      if (add_rows(b, qualities, d, at, size_min(PIECE, (size_t)end - at), error) != 0) return -1;
  return 0;
}

static int add_batch(struct batch *b, struct quality *const *qualities, struct evaluation_sums *sums, struct error *error) {
  for (int i = 0; i < b->n_documents; i++) {
    const struct document *d = &b->documents[i];
    for (int run = 0; run < EVALUATION_RUNS; run++) {
      sums->loss[run] += d->loss[run];
      sums->divergence[run] += d->divergence[run];
    }
    sums->n_predicted += d->n - 1 + b->what->ends;
    if (add_document(b, qualities, d, error) != 0) return -1;
  }
  return 0;
}

static int run_batches(struct batch *b, struct quality *const *qualities, struct evaluation_sums *sums, struct error *error) {
  int64_t all = corpus_documents(b->what->corpus);
  while (sums->next_document < all) {
    int64_t next = open_batch(b, sums->next_document, error);
    int result = next < 0 ? -1 : 0;
    if (!result && b->n_documents) result = run_task(b, EVALUATE_RAW, 1, error);
    if (!result && b->n_documents) result = run_task(b, EVALUATE_RAW + 1, EVALUATION_RUNS - 1, error);
    if (!result) result = add_batch(b, qualities, sums, error);
    for (int i = 0; i < b->n_documents; i++) close_document(b, &b->documents[i]);
    b->n_documents = 0;
    if (!result) sums->next_document = next;
    if (!result) result = b->what->progress(b->what->context, next);
    if (result) return result;
  }
  return 0;
}

int evaluation_run(const struct evaluation *evaluation, struct quality *const *qualities, struct evaluation_sums *sums,
                   struct error *error) {
  struct batch *b = calloc(1, sizeof *b);
  if (!b) return error_memory(error, sizeof *b);
  b->what = evaluation;
  b->info = dict_info(evaluation->dicts[evaluation->n_dicts - 1]);
  b->eos = tokenizer_eos(evaluation->model->tokenizer);
  size_t bytes = (size_t)evaluation->model->arch.vocabulary * sizeof(float), width = (size_t)b->info->d_out * sizeof(float);
  b->logits = malloc(bytes);
  b->plain = malloc(bytes);
  b->errors = malloc(PIECE * width);
  pthread_mutex_init(&b->mutex, NULL);
  pthread_cond_init(&b->changed, NULL);
  int result = b->logits && b->plain && b->errors ? 0 : error_memory(error, 2 * bytes + PIECE * width);
  if (result == 0 && !(b->spool = spool_open(error))) result = -1;
  if (result == 0) result = run_batches(b, qualities, sums, error);
  spool_close(b->spool);
  pthread_cond_destroy(&b->changed);
  pthread_mutex_destroy(&b->mutex);
  free(b->errors);
  free(b->plain);
  free(b->logits);
  free(b);
  return result;
}

void evaluation_read(const struct evaluation_sums *sums, const struct quality *quality, struct evaluation_result *out) {
  double predicted = sums->n_predicted ? (double)sums->n_predicted : (double)NAN;
  out->n_predicted = sums->n_predicted;
  quality_read(quality, &out->quality);
  for (int run = 0; run < EVALUATION_RUNS; run++) {
    out->ce[run] = sums->loss[run] / predicted;
    out->kl[run] = sums->divergence[run] / predicted;
  }
}
